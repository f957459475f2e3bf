"""Generate clips from a trained run: python generate.py [--run logs/NAME] --text CAB --output cab.mp4"""

import argparse
import hashlib
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy

from common.console import counted, program
from common.errors import UserError
from common.field_types import MOST_FRAMES
from common.files import check_writable, named_if_unwritable, write_atomically
from common.video_encoding import encode_gif, encode_mp4, encode_png
from compute.memory import keep_freed_memory
from config import Config
from data.records import to_pixels
from sampling.sampler import contact_sheet
from sampling.trained_run import (
    SamplingRequest,
    TrainedRun,
    add_sampling_options,
    add_weights_options,
    as_captions,
    check_text,
    open_trained_run,
)

SLOWEST, FASTEST = 0.25, 4.0  # times the speed that the model expects
LARGEST_SIDE = 4096  # pixels; larger videos play hardly anywhere
MOST_NAME_BYTES = 200  # of a text in the name of its file, which may have 255
RESERVED_NAMES = re.compile("con|prn|aux|nul|(com|lpt)[0-9¹²³]", re.IGNORECASE)  # on Windows
OTHER_VIDEO_SUFFIXES = (".webm", ".mov", ".avi", ".mkv", ".png")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest(SamplingRequest):
    """What generate.py was asked for."""

    text: Sequence[str]
    output: Path | None
    seed: int
    scale: int
    seconds: float | None  # of each clip; None for what the model expects
    speed: float  # of the signing; 1 is as the model expects it
    contact_sheet: Path | None


def parse(arguments: list[str]) -> GenerationRequest:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Turn text into sign videos with a trained run.")
    add_weights_options(parser)
    parser.add_argument("--text", nargs="+", required=True, help="what to sign; several texts make several videos")
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help="file ending in .mp4 or .gif for one text; folder for several (each becomes TEXT.mp4, with a hash where "
        "the name cannot hold all of the text). Default: TEXT.mp4 in the current folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial noise (default 0)")
    how_long = parser.add_mutually_exclusive_group()
    how_long.add_argument("--seconds", type=float, default=None, help="of each clip (default: what the model expects)")
    how_long.add_argument("--speed", type=float, default=1.0, help="0.7 signs more slowly, 1.5 faster (default 1)")
    add_sampling_options(parser)
    parser.add_argument("--scale", type=int, default=8, help="enlarge each pixel to this many (default 8)")
    parser.add_argument(
        "--contact-sheet", type=Path, default=None, help="also draw all clips on one PNG, real ones above"
    )
    return GenerationRequest(**vars(parser.parse_args(arguments)))


def generate(request: GenerationRequest) -> list[Path]:
    """Sample one clip a text and write it; return the files in the order of the texts, a contact sheet last.

    Each text's initial noise depends only on the seed and the text's place, so that further texts do not change the
    first ones. (The sampler "ddpm" draws further noise for all clips together.)

    Raises:
        UserError: no usable checkpoint, a text the model cannot read, or a place that cannot be written.
    """
    run = open_trained_run(request)
    config = run.config
    request = replace(request, text=as_captions(request.text, request.language, config, run.tokenizer))
    _check(request, run)
    paths = _output_paths(request)
    noises = [
        run.sampler.initial_noise(frames, request.seed, index) for index, frames in enumerate(_frames(request, run))
    ]
    clips = [to_pixels(clip) for clip in run.sampler.sample(run.model, request.text, noises, request.seed)]
    for path, clip in zip(paths, clips, strict=True):
        encode = encode_gif if path.suffix.lower() == ".gif" else encode_mp4
        with named_if_unwritable(f"--output {path}"):
            write_atomically(path, encode(clip, config.FRAMES_PER_SECOND, request.scale))
    if request.contact_sheet is not None:
        _write_contact_sheet(request.contact_sheet, request.text, clips, config)
        paths.append(request.contact_sheet)
    return paths


def _check(request: GenerationRequest, run: TrainedRun) -> None:
    """Check the request against the run."""
    config, tokenizer = run.config, run.tokenizer
    if not 1 <= request.scale * max(config.IMAGE_SIZE) <= LARGEST_SIDE:
        largest = LARGEST_SIDE // max(config.IMAGE_SIZE)
        raise UserError(f"--scale {request.scale}: must be between 1 and {largest}, for {LARGEST_SIDE} pixels a side")
    longest_seconds = MOST_FRAMES / config.FRAMES_PER_SECOND
    if request.seconds is not None and not 0 < request.seconds <= longest_seconds:
        raise UserError(f"--seconds {request.seconds:g}: must be above 0, and at most {longest_seconds:.3g}")
    if not SLOWEST <= request.speed <= FASTEST:
        raise UserError(f"--speed {request.speed:g}: must be between {SLOWEST:g} and {FASTEST:g}")
    if config.CLIP_TIMING == "stretched" and (request.seconds is not None or request.speed != 1):
        frames = counted(config.MAX_FRAMES, "frame")
        raise UserError(f"--seconds and --speed: all clips of the run have {frames} (CLIP_TIMING is 'stretched')")
    for text in request.text:
        check_text("--text", text, config, tokenizer, run.signs)
        letters = len(tokenizer.encode(text)[0])
        if config.DATA_ROOT is None and letters > config.MAX_WORD_LETTERS:
            longest = config.MAX_WORD_LETTERS
            print(f"note: the run was trained on words of up to {longest} letters; {text!r} is longer", file=sys.stderr)
        if run.signs is not None and len(run.signs.segment(text)) > config.COMPOSE_SIGNS:
            longest = config.COMPOSE_SIGNS
            print(f"note: the run was trained on up to {longest} signs; {text!r} has more", file=sys.stderr)
    if request.contact_sheet is not None and request.contact_sheet.suffix.lower() != ".png":
        raise UserError(f"--contact-sheet {request.contact_sheet}: a contact sheet is a PNG; let its name end in .png")


def _frames(request: GenerationRequest, run: TrainedRun) -> list[int]:
    """Return the frames of each clip: as many as the model expects, unless the request says how long, or how fast."""
    if request.seconds is None and request.speed == 1:
        return run.sampler.frames(run.model, request.text)
    lengths = replace(run.sampler.settings.lengths, max_frames=MOST_FRAMES)
    if request.seconds is not None:
        return [lengths.of(request.seconds)] * len(request.text)
    return [lengths.of(seconds / request.speed) for seconds in run.sampler.seconds(run.model, request.text)]


def _output_paths(request: GenerationRequest) -> list[Path]:
    """Return where each clip goes; make the folders, and check that all files can be written."""
    suffix = "" if request.output is None else request.output.suffix.lower()
    if suffix in OTHER_VIDEO_SUFFIXES:
        raise UserError(f"--output {request.output}: only .mp4 and .gif can be written")
    if request.output is not None and suffix in (".mp4", ".gif"):
        if len(request.text) > 1:
            texts = counted(len(request.text), "text")
            raise UserError(f"--output {request.output}: {texts} make several files; name a folder")
        paths = [request.output]
    else:
        folder = Path() if request.output is None else request.output
        with named_if_unwritable(f"--output {folder}"):
            paths = [folder / name for name in _file_names(request.text, folder)]
    for path in paths:
        check_writable("--output", path)
    if request.contact_sheet is not None:
        check_writable("--contact-sheet", request.contact_sheet)
    return paths


def _file_names(texts: Sequence[str], folder: Path) -> list[str]:
    """Return TEXT.mp4 for each text; no other text ever has the same name, in this folder or on another file system.

    A text that is not what its name says, or that differs from another name in capitals only, has a hash in its name.
    What comes again is numbered, since it has another noise: CAB.mp4, CAB.2.mp4.
    """
    taken = {}
    if folder.is_dir():
        taken = {_folded(file.name): unicodedata.normalize("NFC", file.name) for file in folder.iterdir()}
    names: list[str] = []
    hashed: Counter[str] = Counter()
    for text in texts:
        text = unicodedata.normalize("NFC", text)
        name = _readable_name(text)
        file = f"{name}.mp4"
        if name.replace("_", " ") != text or taken.setdefault(_folded(file), file) != file:
            name += "." + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        hashed[name] += 1
        names.append(f"{name}.mp4" if hashed[name] == 1 else f"{name}.{hashed[name]}.mp4")
    return names


def _readable_name(text: str) -> str:
    """Return a file name without extension that every file system takes: letters, digits and marks of any script."""
    kept = "".join(
        character if character.isalnum() or character == "-" or unicodedata.category(character)[0] == "M" else "_"
        for character in text
    )
    name = re.sub("_+", "_", kept).strip("_-")
    if RESERVED_NAMES.fullmatch(name):
        name = f"_{name}"
    return name.encode()[:MOST_NAME_BYTES].decode(errors="ignore") or "_"


def _folded(name: str) -> str:
    """Return what two names share that a file system may take for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _write_contact_sheet(path: Path, texts: Sequence[str], clips: Sequence[numpy.ndarray], config: Config) -> None:
    from data.build import build_data  # here, because without a contact sheet no data is needed

    splits = build_data(config)
    real = [splits.real_clip(text) for text in texts]
    with named_if_unwritable(f"--contact-sheet {path}"):
        write_atomically(path, encode_png(contact_sheet(texts, clips, real)))


@program
def main(arguments: list[str]) -> None:
    """Generate, and print the files alone, for scripts."""
    keep_freed_memory()
    for path in generate(parse(arguments)):
        print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
