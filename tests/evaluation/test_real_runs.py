"""Five trained runs that differ in one thing each get different, right verdicts from evaluation and run doctor.

Each is trained on ten made signs. What spoils four of them changes the batches of training alone, so that the data that
judges see is right: captions of other clips, three clips only, frames that stand still, haze where hands move.
"""

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest

import evaluation.__main__ as evaluation_program
import main
import training.build
from common.randomness import derive_seed
from common.video_encoding import encode_mp4
from data.batches import BatchOrder, training_batches
from data.records import Batch, ClipRow, ClipSource
from logging_system.doctor.__main__ import main as doctor
from tests.evaluation.test_verdicts import CAPTIONS, changed, dissolved

TAKES = 16
FRAMES, RATE = 8, 12

OPTIONS = (
    "--image-size=16",
    "--patch-size=1",
    "--max-frames=8",
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


def filmed(number: int, take: int) -> numpy.ndarray:
    """Return a take of a sign, uint8 [8, 16, 16, 3]: a striped hand on its way; place and background differ."""
    random = numpy.random.default_rng([number, take])
    background = random.integers(20, 110, (4, 4, 1)).repeat(4, 0).repeat(4, 1)
    clip = numpy.broadcast_to(background, (FRAMES, 16, 16, 3)).astype(numpy.uint8)
    hand = numpy.full((5, 5, 3), 0, numpy.uint8)
    hand[:, ::2] = 255
    if number % 2:
        hand = hand.transpose(1, 0, 2)
    moments = numpy.linspace(0, 1, FRAMES)
    ways = (
        (moments, 0.5 + 0 * moments),
        (0.5 + 0 * moments, moments),
        (moments, moments),
        (moments, 1 - moments),
        (0.5 + 0.5 * numpy.sin(2 * numpy.pi * moments), 0.5 + 0.5 * numpy.cos(2 * numpy.pi * moments)),
    )
    down, across = ways[number // 2]
    shift = random.integers(-1, 2, 2)
    for frame in range(FRAMES):
        top, left = round(1 + 9 * down[frame]) + shift[0], round(1 + 9 * across[frame]) + shift[1]
        clip[frame, top : top + 5, left : left + 5] = hand
    return clip


@dataclass(frozen=True)
class Spoilt:
    """Training clips that are not shown as they are."""

    source: Any
    change: Callable[[Any, ClipRow], numpy.ndarray]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def __len__(self) -> int:
        return len(self.source)

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.change(self.source, row)


def of_another_sign(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    """The clip of a row drawn by this one's name, whatever its caption."""
    return source.load(source.row(0, derive_seed(0, row.id) % len(source)))


def of_few_clips(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    rows = [source.row(0, index) for index in range(len(source))]
    return source.load(next(each for each in rows if each.caption == row.caption))


def still(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    clip = source.load(row)
    return clip[[len(clip) // 3] * len(clip)]


def hazy(source: ClipSource, row: ClipRow) -> numpy.ndarray:
    return changed(source.load(row), dissolved)


RUNS = {
    "right": (lambda source, row: source.load(row), "Clips show what was asked for.", set()),
    "shuffled captions": (of_another_sign, "The text is ignored", {"Text ignored"}),
    "few clips": (of_few_clips, "Clips are copies", {"Memorisation"}),
    "still frames": (still, "Clips hardly move", {"Frozen samples"}),
    "haze": (hazy, "Hands dissolve", {"Hands dissolve"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_each_run_gets_its_own_verdict(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change, verdict, rules = RUNS[name]
    signs = tmp_path / "signs"
    signs.mkdir()
    for number, caption in enumerate(CAPTIONS):
        for take in range(TAKES):
            file = signs / f"{caption} {take}.mp4"
            file.write_bytes(encode_mp4(filmed(number, take), RATE))
            file.with_suffix(".txt").write_text(caption)

    def spoilt(source: ClipSource, order: BatchOrder, **options: Any) -> Generator[Batch, None, None]:
        return training_batches(Spoilt(source, change), order, **options)

    with monkeypatch.context() as patched:
        patched.setattr(training.build, "training_batches", spoilt)
        folders = (f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}", "--experiment-name=run")
        assert main.main([*OPTIONS, f"--data-root={signs}", *folders]) == 0
    report_file = tmp_path / "report.json"
    run = tmp_path / "logs" / "run"
    assert evaluation_program.main([f"--run={run}", f"--output={report_file}"]) == 0
    report = json.loads(report_file.read_text())
    capsys.readouterr()
    assert doctor([str(run), "--json"]) in (0, 1)
    findings = {finding["rule"] for finding in json.loads(capsys.readouterr().out)["findings"]}
    print(name, report["verdict"], findings, {k: v for k, v in report.items() if isinstance(v, float)})
    assert any(found.startswith(verdict) for found in report["verdict"]), report["verdict"]
    assert rules <= findings
