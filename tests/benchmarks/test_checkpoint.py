"""The benchmark of checkpoints measures what it says, and its report holds every figure."""

from pathlib import Path

import pytest

from benchmarks import checkpoint
from benchmarks.checkpoint import CheckpointCost, main, report
from benchmarks.spread import spread_of
from config import PRESETS

SMALL = {
    "IMAGE_SIZE": 16,
    "NUM_FRAMES": 8,
    "MODEL_CHANNELS": (16, 32),
    "SPATIAL_ATTENTION_SIZES": (4,),
    "ATTENTION_HEAD_CHANNELS": 16,
    "TEXT_CHANNELS": 32,
    "VALIDATION_CLIPS": 2,
    "DEVICE": "cpu",
}


def test_a_small_measurement_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    monkeypatch.setattr(checkpoint, "STEPS_BESIDE", 2)
    cost = checkpoint.measure("tiny", tmp_path, 2, with_steps=True)
    assert cost.foreground.repeats == cost.stall.repeats == 2
    assert cost.size_bytes > 16 * cost.parameters  # weights, their average and two moments, four bytes each
    assert cost.stall.largest < cost.write.smallest
    assert cost.steps_alone is not None
    written = sorted(path.name for path in tmp_path.glob("*ground/step_*"))
    assert written == ["step_00000003"] * 2  # of the last round; the earlier ones made room
    assert main(["--repeats=1", "--no-steps", f"--json={tmp_path / 'figures.json'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| here, ") == 2
    assert "training steps:" not in printed
    assert (tmp_path / "figures.json").stat().st_size > 0


def test_the_report_compares_with_torch_save() -> None:
    seconds = [spread_of([value]) for value in (0.5, 1.0, 2.0, 0.25, 3.0, 10.0, 11.5)]
    lines = report(CheckpointCost("tiny", 5_000_000, 80_000_000, *seconds))
    assert "| here, training waits | 2.000 (2.000 to 2.000) | 4.00 | durable, hashed |" in lines
    assert any(line.startswith("| here, beside training | 0.250 (0.250 to 0.250) | 0.50 |") for line in lines)
    assert "1.50 s more, beside the stall." in lines[-1]
