"""Do evaluation and run doctor tell five runs apart? python -m benchmarks.verdicts

Trains five small runs on ten signs that it draws, and asks both what is wrong with them. What spoils four of the runs
changes the batches of their training alone, so that judges compare with clips as they should be: captions of other
clips, one clip of each sign only, frames that stand still, and haze where hands move.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch import Tensor
from torch.nn import functional

import evaluation.__main__ as evaluation_program
import main as training_program
from benchmarks import runner
from common.console import program
from common.errors import UserError
from common.files import named_if_unwritable, write_atomically
from common.filmstrip import filmstrips
from common.randomness import derive_seed, numpy_generator, torch_generator
from common.video_encoding import encode_mp4, encode_png
from data.batches import training_batches
from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets
from data.lengths import ClipLengths
from data.records import Batch, to_pixels
from evaluation.clips import make_clips
from logging_system.doctor.__main__ import read_run
from logging_system.doctor.diagnosis import diagnose
from sampling.trained_run import SamplingRequest, open_trained_run

SIGNS = ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "hotel", "india", "kilo", "lima")
"""Each is signed with the handshape of its first letter."""
TAKES, FRAMES, SIDE, RATE = 32, 8, 16, 12.0
MARGIN, SWAY = 1, 2  # pixels: how far a take is from the middle at most, and how far it moves
SHOWN_SIGN = SIGNS[2]
OPTIONS = (
    f"--image-size={SIDE}",
    f"--max-frames={FRAMES}",
    "--model-channels=32,64",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-layers=1",
    "--text-heads=2",
    "--batch-size=8",
    "--max-steps=1600",
    "--max-minutes=none",
    "--learning-rate=1.5e-3",
    "--prediction-type=sample",
    "--motion-weight=1",
    "--guidance-scale=1.4",
    "--signer-from-file-name",
    "--lr-warmup-steps=20",
    "--ema-decay=0.98",
    "--validate-every-steps=100",
    "--validation-clips=10",
    "--sample-every-steps=200",
    "--log-every-steps=20",
    "--recogniser-steps=100",
    "--num-workers=0",
    "--device=cpu",
    "--no-enable-noise-visualization",
)


def draw_sign(renderer: WordRenderer, sign: str, take: int) -> numpy.ndarray:
    """Return a take of a sign, uint8 [T, 16, 16, 3]: a handshape that sways, in a look and place of its own."""
    clip = renderer.render_look((sign[0].upper(),), derive_seed(take, sign))
    top, left = numpy_generator(take, sign).integers(2 * MARGIN + 1, size=2).tolist()
    sway = numpy.round(SWAY * numpy.sin(2 * numpy.pi * numpy.arange(len(clip)) / len(clip))).astype(int)
    around = ((0, 0), (MARGIN, MARGIN), (MARGIN + SWAY, MARGIN + SWAY), (0, 0))
    padded = numpy.pad(clip, around, mode="edge")
    windows = [(slice(top, top + SIDE), slice(left + SWAY + x, left + SWAY + x + SIDE)) for x in sway.tolist()]
    return numpy.stack([frame[window] for frame, window in zip(padded, windows, strict=True)])


def _renderer() -> WordRenderer:
    alphabets = Alphabets((Alphabet(tuple(sign[0].upper() for sign in SIGNS), "en", "ase"),))
    lengths = ClipLengths(RATE, FRAMES, FRAMES, is_natural=True)
    return WordRenderer(alphabets, load_letters("ase")[1], lengths, (SIDE, SIDE), ClipCache(Path(), 0))


def _as_they_are(batches: Iterator[Batch]) -> Iterator[Batch]:
    return batches


def _with_captions_of_others(batches: Iterator[Batch]) -> Iterator[Batch]:
    for number, batch in enumerate(batches):
        order = torch.randperm(len(batch.captions), generator=torch_generator(0, "captions", number))
        yield replace(batch, tokens_BL=batch.tokens_BL[order])


def _of_few_clips(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Show the first clip of each sign that comes in place of all others."""
    first: dict[str, Tensor] = {}
    for batch in batches:
        shown = [first.setdefault(*each) for each in zip(batch.captions, batch.clips_BTHWC, strict=True)]
        yield replace(batch, clips_BTHWC=torch.stack(shown))


def _standing_still(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        frame = batch.clips_BTHWC[:, FRAMES // 3, None]
        yield replace(batch, clips_BTHWC=frame.expand_as(batch.clips_BTHWC))


def _hazy(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Blur what moves alone, and make up for the motion that this takes."""
    for batch in batches:
        mean = batch.video_BCTHW.mean(dim=2, keepdim=True)
        haze = functional.avg_pool3d(batch.video_BCTHW - mean, (1, 3, 3), 1, (0, 1, 1))
        yield replace(batch, clips_BTHWC=torch.from_numpy(to_pixels(mean + 1.75 * haze)))


@dataclass(frozen=True)
class Kind:
    """A kind of run, and what evaluation and doctor should say of it."""

    spoil: Callable[[Iterator[Batch]], Iterator[Batch]]  # what training alone sees
    verdict: str  # how one of the evaluation's begins
    rule: str | None  # of the doctor, that finds something


KINDS = {
    "right": Kind(_as_they_are, "Clips show what was asked for", None),
    "other captions": Kind(_with_captions_of_others, "The text is ignored", "Text ignored"),
    "few clips": Kind(_of_few_clips, "Clips are copies", "Memorisation"),
    "still frames": Kind(_standing_still, "Clips hardly move", "Frozen samples"),
    "hazy hands": Kind(_hazy, "Hands dissolve", "Hands dissolve"),
}


@dataclass(frozen=True)
class Judgement:
    """What was said of a run."""

    report: dict[str, Any]  # of the evaluation
    rules: tuple[str, ...]  # of the doctor, that found something
    run: Path  # its folder


def train_and_judge(name: str, folder: Path) -> Judgement:
    """Train a run of a kind in a folder, which others may share, and return what is said of it."""
    signs = folder / "signs"
    signs.mkdir(parents=True, exist_ok=True)
    renderer = _renderer()
    for sign in SIGNS:
        for take in range(TAKES):
            file = signs / f"signer{take}_{sign}.mp4"
            if not file.exists():
                file.write_bytes(encode_mp4(draw_sign(renderer, sign, take), RATE))
                file.with_suffix(".txt").write_text(sign)
    run = folder / "logs" / name.replace(" ", "_")

    def spoilt(*arguments: Any, **named: Any) -> Iterator[Batch]:
        with closing(training_batches(*arguments, **named)) as batches:
            yield from KINDS[name].spoil(batches)

    command = [*OPTIONS, f"--data-root={signs}", f"--log-dir={run.parent}", f"--cache-dir={folder / 'cache'}"]
    report = folder / f"{run.name}.json"
    with redirect_stdout(sys.stderr):
        # No option can spoil what training alone is shown, and none should.
        with patch("training.build.training_batches", spoilt):
            code = training_program.main([*command, f"--experiment-name={run.name}"])
        if code or evaluation_program.main([f"--run={run}", f"--output={report}"]):
            raise UserError(f"the run {name!r} ended with an error, see above")
    logged, constants = read_run(run)
    diagnosis = diagnose(logged.history, constants)
    rules = tuple(finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings))
    return Judgement(json.loads(report.read_text(encoding="utf-8")), rules, run)


@program
def main(arguments: Sequence[str]) -> int:
    """Train, judge and print; the exit code is 1 if a verdict or a finding is not the right one."""
    parser = runner.build_parser("verdicts", __doc__)
    parser.add_argument("--sheet", type=runner.output_file, metavar="PNG", help="draw a clip of each run into this")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name in KINDS:
            runner.say(f"{name} ...")
            found[name] = train_and_judge(name, Path(folder))
        if options.sheet is not None:
            with named_if_unwritable(options.sheet):
                write_atomically(options.sheet, _sheet(found))
    rows = [(name, " ".join(each.report["verdict"]), ", ".join(each.rules) or "-") for name, each in found.items()]
    runner.publish(
        runner.machine_line("torch"),
        runner.table(("run", "verdict of the evaluation", "findings of the doctor"), rows),
        {name: {"report": each.report, "rules": each.rules} for name, each in found.items()},
        options.json,
    )
    return 0 if all(map(is_right, found, found.values())) else 1


def _sheet(found: Mapping[str, Judgement]) -> bytes:
    """Return a PNG with a real clip of SHOWN_SIGN, and one that each run generates."""
    strips = [(f"{SHOWN_SIGN}, real", draw_sign(_renderer(), SHOWN_SIGN, 0))]
    for name, judgement in found.items():
        (clip,) = make_clips(open_trained_run(SamplingRequest(run=judgement.run, device="cpu")), [SHOWN_SIGN], 1, 0)
        strips.append((name, clip))
    return encode_png(filmstrips(strips))


def is_right(name: str, judgement: Judgement) -> bool:
    """Return whether evaluation and doctor found what is wrong with a run, and nothing in one that is right."""
    kind = KINDS[name]
    if kind.rule is None:
        others = {each.rule for each in KINDS.values()}
        return judgement.report["verdict"] == [f"{kind.verdict}."] and others.isdisjoint(judgement.rules)
    said = any(verdict.startswith(kind.verdict) for verdict in judgement.report["verdict"])
    return said and kind.rule in judgement.rules


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
