"""Do evaluation and run doctor tell five runs apart? python -m benchmarks.verdicts

Trains five small runs on ten signs that it draws, and asks both what is wrong with them. What spoils four of the runs
changes the batches of their training alone, so that judges compare with clips as they should be: captions of other
clips, one clip of each sign only, frames that stand still, and haze where hands move.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy
import torch
from torch.nn import functional

import evaluation.__main__ as evaluation_program
import main as training_program
from benchmarks import runner
from common.console import program
from common.errors import UserError
from common.files import named_if_unwritable, write_atomically
from common.filmstrip import filmstrips
from common.randomness import derive_seed
from common.video_encoding import encode_mp4, encode_png
from data.batches import BatchOrder, training_batches
from data.records import Batch, ClipRow, ClipSource, as_video, to_pixels
from evaluation.clips import make_clips
from logging_system.doctor.__main__ import read_run
from logging_system.doctor.diagnosis import diagnose
from sampling.trained_run import SamplingRequest, open_trained_run

SIGNS = tuple(f"sign {number}" for number in range(10))
TAKES, FRAMES, SIDE, HAND, RATE = 16, 8, 16, 5, 12
SHOWN_SIGN = SIGNS[2]
OPTIONS = (
    f"--image-size={SIDE}",
    "--patch-size=1",
    f"--max-frames={FRAMES}",
    "--model-channels=32,64",
    "--spatial-attention-sizes=8",
    "--attention-head-channels=16",
    "--text-channels=64",
    "--text-layers=1",
    "--text-heads=2",
    "--batch-size=8",
    "--max-steps=400",
    "--max-minutes=none",
    "--learning-rate=3e-3",
    "--lr-warmup-steps=20",
    "--ema-decay=0.98",
    "--validate-every-steps=100",
    "--validation-clips=10",
    "--sample-every-steps=200",
    "--log-every-steps=20",
    "--recogniser-steps=60",
    "--num-workers=0",
    "--device=cpu",
    "--no-enable-noise-visualization",
)


def draw_sign(number: int, take: int) -> numpy.ndarray:
    """Return a take of a sign, uint8 [8, 16, 16, 3]: a striped hand on its way; place and background differ."""
    random = numpy.random.default_rng([number, take])
    background = random.integers(20, 110, (4, 4, 1)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
    clip = numpy.broadcast_to(background, (FRAMES, SIDE, SIDE, 3)).astype(numpy.uint8)
    hand = numpy.zeros((HAND, HAND, 3), numpy.uint8)
    hand[:, ::2] = 255
    if number % 2:
        hand = hand.transpose(1, 0, 2)
    moments = numpy.linspace(0, 1, FRAMES)
    middle = numpy.full(FRAMES, 0.5)
    turns = 2 * numpy.pi * moments
    ways = (
        (moments, middle),
        (middle, moments),
        (moments, moments),
        (moments, 1 - moments),
        (0.5 + 0.5 * numpy.sin(turns), 0.5 + 0.5 * numpy.cos(turns)),
    )
    shift = random.integers(-1, 2, 2)
    for frame, (down, across) in enumerate(zip(*ways[number // 2], strict=True)):
        room = SIDE - HAND - 2
        top, left = round(1 + room * down) + shift[0], round(1 + room * across) + shift[1]
        clip[frame, top : top + HAND, left : left + HAND] = hand
    return clip


def _as_it_is(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    return source.load(row)


def _of_another_clip(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    """Return a clip that the row's name draws, whatever its caption."""
    return source.load(source.row(0, derive_seed(0, row.id) % len(source)))


def _of_few_clips(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    rows = (source.row(0, index) for index in range(len(source)))
    return source.load(next(each for each in rows if each.caption == row.caption))


def _still(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    clip = source.load(row)
    return clip[[len(clip) // 3] * len(clip)]


def _hazy(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    """Blur what moves alone, and make up for the motion that this takes."""
    clip = as_video(torch.from_numpy(source.load(row)))
    mean = clip.mean(dim=1, keepdim=True)
    haze = functional.avg_pool2d((clip - mean).transpose(0, 1), 3, 1, 1).transpose(0, 1)
    return to_pixels(mean + 1.25 * haze)


@dataclass(frozen=True)
class Kind:
    """A kind of run, and what evaluation and doctor should say of it."""

    shown: Callable[[ClipSource, ClipRow], numpy.ndarray]  # what training sees in place of a clip
    verdict: str  # how one of the evaluation's begins
    rule: str | None  # of the doctor, that finds something


KINDS = {
    "right": Kind(_as_it_is, "Clips show what was asked for", None),
    "captions of other clips": Kind(_of_another_clip, "The text is ignored", "Text ignored"),
    "one clip of each sign": Kind(_of_few_clips, "Clips are copies", "Memorisation"),
    "frames that stand still": Kind(_still, "Clips hardly move", "Frozen samples"),
    "haze where hands move": Kind(_hazy, "Hands dissolve", "Hands dissolve"),
}


@dataclass(frozen=True)
class Judgement:
    """What was said of a run."""

    report: dict[str, Any]  # of the evaluation
    rules: tuple[str, ...]  # of the doctor, that found something
    clip: numpy.ndarray  # that it generates of SHOWN_SIGN


@dataclass(frozen=True)
class _Shown:
    """Training clips that are not shown as they are."""

    source: ClipSource
    shown: Callable[[ClipSource, ClipRow], numpy.ndarray]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.shown(self.source, row)


def train_and_judge(name: str, folder: Path, options: Sequence[str] = ()) -> Judgement:
    """Train a run of a kind in a folder, which others may share, and return what is said of it."""
    signs = folder / "signs"
    signs.mkdir(parents=True, exist_ok=True)
    for number, sign in enumerate(SIGNS):
        for take in range(TAKES):
            file = signs / f"{sign} {take}.mp4"
            if not file.exists():
                file.write_bytes(encode_mp4(draw_sign(number, take), RATE))
                file.with_suffix(".txt").write_text(sign)
    run = folder / "logs" / name.replace(" ", "_")

    def spoilt(source: ClipSource, order: BatchOrder, **more: Any) -> Generator[Batch, None, None]:
        return training_batches(_Shown(source, KINDS[name].shown), order, **more)

    command = [*OPTIONS, f"--data-root={signs}", f"--log-dir={run.parent}", f"--cache-dir={folder / 'cache'}"]
    report = folder / f"{run.name}.json"
    with redirect_stdout(sys.stderr):
        # No option can spoil what training alone is shown, and none should.
        with patch("training.build.training_batches", spoilt):
            code = training_program.main([*command, f"--experiment-name={run.name}", *options])
        if code or evaluation_program.main([f"--run={run}", f"--output={report}"]):
            raise UserError(f"the run {name!r} ended with an error, see above")
    logged, constants = read_run(run)
    diagnosis = diagnose(logged.history, constants)
    (clip,) = make_clips(open_trained_run(SamplingRequest(run=run, device="cpu")), [SHOWN_SIGN], 1, 0)
    rules = tuple(finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings))
    return Judgement(json.loads(report.read_text(encoding="utf-8")), rules, clip)


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
    rows = [(name, " ".join(each.report["verdict"]), ", ".join(each.rules) or "-") for name, each in found.items()]
    runner.publish(
        runner.machine_line("torch"),
        runner.table(("training sees", "verdict of the evaluation", "findings of the doctor"), rows),
        {name: {"report": each.report, "rules": each.rules} for name, each in found.items()},
        options.json,
    )
    if options.sheet is not None:
        strips = [(f"{SHOWN_SIGN}, real", draw_sign(SIGNS.index(SHOWN_SIGN), 0))]
        strips += [(name, each.clip) for name, each in found.items()]
        with named_if_unwritable(options.sheet):
            write_atomically(options.sheet, encode_png(filmstrips(strips)))
    return 0 if all(map(is_right, found, found.values())) else 1


def is_right(name: str, judgement: Judgement) -> bool:
    """Return whether evaluation and doctor found what is wrong with a run, and nothing in one that is right."""
    kind = KINDS[name]
    if kind.rule is None:
        return judgement.report["verdict"] == [f"{kind.verdict}."] and not judgement.rules
    said = any(verdict.startswith(kind.verdict) for verdict in judgement.report["verdict"])
    return said and kind.rule in judgement.rules


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
