"""The run doctor on two real runs that differ in one thing: whether the captions belong to their clips."""

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

import main
from data.fingerspelling.source import FixedWords, TrainingWords
from data.records import ClipRow

ROOT = Path(__file__).resolve().parent.parent.parent

# Single letters, four frames of 16 x 16: small enough to begin to read in 200 steps.
LETTERS = (
    "--max-word-letters=1",
    "--held-out-word-fraction=0",
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=4",
    "--model-channels=32,32",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-layers=1",
    "--text-heads=2",
    "--epoch-size=512",
    "--validation-clips=16",
    "--batch-size=8",
    "--max-steps=200",
    "--learning-rate=5e-3",
    "--lr-warmup-steps=20",
    "--ema-decay=0.98",
    "--validate-every-steps=40",
    "--log-every-steps=20",
    "--num-workers=0",
    "--device=cpu",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)


def load_another_letter(source: TrainingWords | FixedWords, row: ClipRow) -> numpy.ndarray:
    """Load a clip that has nothing to do with the row's caption."""
    symbols = source.renderer.alphabets.symbols
    return source.renderer.clip(symbols[row.style_seed % len(symbols)], row.style_seed, row.frames)


@pytest.mark.slow
@pytest.mark.parametrize(
    "shuffled",
    [False, True],
    ids=["right captions", "shuffled captions"],
)
def test_text_is_called_ignored_only_where_captions_mean_nothing(
    shuffled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shuffled:
        monkeypatch.setattr(TrainingWords, "load", load_another_letter)
        monkeypatch.setattr(FixedWords, "load", load_another_letter)
    folders = (f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}", "--experiment-name=letters")
    assert main.main([*LETTERS, *folders]) == 0
    command = [sys.executable, "-m", "logging_system.doctor", str(tmp_path / "logs" / "letters"), "--json"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    verdict = json.loads(finished.stdout)
    names = [finding["rule"] for finding in verdict["findings"]]
    assert ("Text ignored" in names) == shuffled, verdict
    assert "Diverged" not in names
