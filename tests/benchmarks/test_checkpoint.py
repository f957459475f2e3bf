"""The benchmark of checkpoints measures what it says, and its report holds every figure."""

import re
from pathlib import Path

import pytest

from benchmarks import checkpoint
from benchmarks.checkpoint import BESIDE, PLAIN, STEPS, SYNCED, WAITING, Saved, main, report
from config import PRESETS

SMALL = {
    "IMAGE_SIZE": 16,
    "PATCH_SIZE": 2,
    "MAX_FRAMES": 8,
    "MODEL_CHANNELS": (16, 32),
    "SPATIAL_ATTENTION_SIZES": (4,),
    "ATTENTION_HEAD_CHANNELS": 16,
    "TEXT_CHANNELS": 32,
    "VALIDATION_CLIPS": 2,
    "DEVICE": "cpu",
}


@pytest.mark.slow
def test_a_small_measurement_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", SMALL)
    monkeypatch.setattr(checkpoint, "STEPS_BESIDE", 2)
    about, saves = checkpoint.measure("tiny", tmp_path, 2, with_steps=True)
    assert {way: len(found) for way, found in saves.items()} == dict.fromkeys(
        [PLAIN, SYNCED, WAITING, STEPS, BESIDE], 2
    )
    parameters, size = (float(number) for number in re.findall(r"([\d.e-]+) M", about))
    assert size > 15 * parameters  # weights, their average and two moments, four bytes each
    assert max(each.stall for each in saves[BESIDE]) < min(each.durable for each in saves[BESIDE])
    assert all(each.steps > 0 for each in (*saves[BESIDE], *saves[STEPS]))
    written = sorted(path.name for way in (WAITING, BESIDE) for path in (tmp_path / way).glob("step_*"))
    assert written == ["step_00000003"] * 2  # of the last round; the earlier ones made room
    assert main(["--repeats=1", "--no-steps", f"--json={tmp_path / 'figures.json'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| here, ") == 2
    assert "training steps:" not in printed
    assert (tmp_path / "figures.json").stat().st_size > 0


def test_the_report_compares_with_torch_save() -> None:
    stalls = {PLAIN: 0.5, SYNCED: 1.0, WAITING: 2.0, BESIDE: 0.25}
    saves = {way: [Saved(stall, 4 * stall, 11.5)] for way, stall in stalls.items()} | {STEPS: [Saved(steps=10.0)]}
    lines = report(saves)
    assert "| here, training waits | 2.000 (2.000 to 2.000) | 4.00 (4.00 to 4.00) | 8.00 (8.00 to 8.00) |" in lines
    assert any(line.startswith("| here, in the background | 0.250 (0.250 to 0.250) | 0.50 (") for line in lines)
    assert "1.50 s more, beside the stall." in lines[-1]
