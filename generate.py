"""Generate clips from a trained run: python generate.py --run logs/NAME --text CAB --output cab.mp4"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from common.console import counted, program
from common.errors import UserError
from common.files import named_if_unwritable, write_atomically
from common.video_encoding import encode_gif, encode_mp4, encode_png
from compute.memory import keep_freed_memory
from config import Config
from models.tokens import Tokenizer
from sampling.sampler import contact_sheet, to_pixels
from sampling.trained_run import (
    SamplingRequest,
    add_sampling_options,
    add_weights_options,
    check_text,
    open_trained_run,
)

LARGEST_SIDE = 4096  # pixels; larger videos play hardly anywhere
OTHER_VIDEO_SUFFIXES = (".webm", ".mov", ".avi", ".mkv", ".png")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest(SamplingRequest):
    """What generate.py was asked for."""

    text: Sequence[str]
    output: Path | None
    seed: int
    scale: int
    contact_sheet: Path | None


def parse(arguments: list[str]) -> GenerationRequest:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Turn text into sign videos with a trained run.")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, such as logs/my_run")
    parser.add_argument("--text", nargs="+", required=True, help="what to sign; several texts make several videos")
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help="file ending in .mp4 or .gif for one text; folder for several (each becomes TEXT.mp4). "
        "Default: TEXT.mp4 in the current folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial noise (default 0)")
    add_sampling_options(parser)
    parser.add_argument("--scale", type=int, default=8, help="enlarge each pixel to this many (default 8)")
    parser.add_argument(
        "--contact-sheet", type=Path, default=None, help="also draw all clips on one PNG, real ones above"
    )
    add_weights_options(parser)
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
    _check(request, config, run.tokenizer)
    paths = _output_paths(request)
    noise = torch.stack([run.sampler.initial_noise(request.seed, index) for index in range(len(request.text))])
    clips = to_pixels(run.sampler.sample(run.model, list(request.text), noise, request.seed))
    for path, clip in zip(paths, clips, strict=True):
        encode = encode_gif if path.suffix.lower() == ".gif" else encode_mp4
        with named_if_unwritable(path):
            write_atomically(path, encode(clip, config.VIDEO_FRAMES_PER_SECOND, request.scale))
    if request.contact_sheet is not None:
        _write_contact_sheet(request.contact_sheet, request.text, clips, config)
        paths.append(request.contact_sheet)
    return paths


def _check(request: GenerationRequest, config: Config, tokenizer: Tokenizer) -> None:
    """Check the request against the run."""
    if not 1 <= request.scale * config.IMAGE_SIZE <= LARGEST_SIDE:
        largest = LARGEST_SIDE // config.IMAGE_SIZE
        raise UserError(f"--scale {request.scale}: must be between 1 and {largest}, for {LARGEST_SIDE} pixels a side")
    for text in request.text:
        check_text("--text", text, config, tokenizer)
        letters = len(tokenizer.encode(text)[0])
        if config.DATA_ROOT is None and letters > config.MAX_WORD_LETTERS:
            longest = config.MAX_WORD_LETTERS
            print(f"note: the run was trained on words of up to {longest} letters; {text!r} is longer", file=sys.stderr)
    if request.contact_sheet is not None and request.contact_sheet.suffix.lower() != ".png":
        raise UserError(f"--contact-sheet {request.contact_sheet}: a contact sheet is a PNG; let its name end in .png")


def _output_paths(request: GenerationRequest) -> list[Path]:
    suffix = "" if request.output is None else request.output.suffix.lower()
    if suffix in OTHER_VIDEO_SUFFIXES:
        raise UserError(f"--output {request.output}: only .mp4 and .gif can be written")
    if len(request.text) == 1 and (request.output is None or suffix in (".mp4", ".gif")):
        paths = [request.output if request.output is not None else Path(f"{_file_name(request.text[0])}.mp4")]
    else:
        folder = request.output if request.output is not None else Path()
        if suffix in (".mp4", ".gif"):
            raise UserError(
                f"--output {folder}: {counted(len(request.text), 'text')} make several files; name a folder"
            )
        paths = [folder / f"{name}.mp4" for name in _distinct([_file_name(text) for text in request.text])]
    try:
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {request.output}: cannot make the folder: {error}") from error
    return paths


def _file_name(text: str) -> str:
    """Keep letters and digits of any script, so that no text can point outside the folder."""
    kept = "".join(character if character.isalnum() or character in "-_" else "_" for character in text)
    return kept[:100]


def _distinct(names: list[str]) -> list[str]:
    """Number repeated names: CAB, CAB_2. Names that differ in case only count as repeated, as some disks see them."""
    taken: set[str] = set()
    distinct = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        free = next(candidate for candidate in candidates if candidate.lower() not in taken)
        taken.add(free.lower())
        distinct.append(free)
    return distinct


def _write_contact_sheet(path: Path, texts: Sequence[str], clips: numpy.ndarray, config: Config) -> None:
    from data.build import build_data  # here, because without a contact sheet no data is needed

    splits = build_data(config)
    real = [splits.real_clip(text) for text in texts]
    with named_if_unwritable(f"--contact-sheet {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, encode_png(contact_sheet(texts, list(clips), real)))


@program
def main(arguments: list[str]) -> None:
    """Generate, and print the files alone, for scripts."""
    keep_freed_memory()
    for path in generate(parse(arguments)):
        print(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
