"""Real signals to a real process."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from checkpoints.checkpoint import load_newest
from tests.grids import mostly_slow
from tests.waiting import HANGS_AFTER_SECONDS

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=8",
    "--clip-timing=stretched",
    "--model-channels=16,32",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-heads=2",
    "--epoch-size=40",
    "--sampling-steps=2",
    "--recogniser-steps=0",
    "--lr-schedule=constant",
    "--log-every-steps=1",
    "--save-every-steps=100000",
    "--validate-every-steps=100000",
    "--device=cpu",
)


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "main.py", *SMALL, "--experiment-name=run", *more]
    command += [f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_step(process: subprocess.Popen[str], folder: Path, step: int = 1) -> None:
    """Wait until a step is in metrics.jsonl, which is flushed after the first step."""
    path = folder / "logs" / "run" / "metrics.jsonl"
    deadline = time.monotonic() + HANGS_AFTER_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and f'"step": {step}, "tag": "01_Training/Loss"' in path.read_text():
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"no step was logged: {process.communicate()[0]}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", mostly_slow([signal.SIGTERM, signal.SIGINT, signal.SIGHUP]), ids=lambda number: number.name
)
def test_a_signal_ends_the_run_with_a_checkpoint_of_its_last_step_and_resume_goes_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "--max-steps=100000", "--tensorboard-flush-every-steps=5")
    wait_for_step(process, tmp_path, 5)
    process.send_signal(number)
    output, _ = process.communicate(timeout=HANGS_AFTER_SECONDS)
    assert process.returncode == 128 + number, output
    checkpoint = load_newest(tmp_path / "logs" / "run" / "checkpoints")
    assert checkpoint is not None
    assert f"Stopped at step {checkpoint.state.step}: {number.name} asked for it" in output
    lines = [json.loads(line) for line in (tmp_path / "logs" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines if line["tag"] == "01_Training/Loss") == checkpoint.state.step

    target = checkpoint.state.step + 2
    resumed = start(tmp_path, f"--max-steps={target}", "--resume")
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    newest = load_newest(tmp_path / "logs" / "run" / "checkpoints")
    assert newest is not None
    assert newest.state.step == target
    assert newest.state.samples_seen == 2 * target  # BATCH_SIZE
    lines = [json.loads(line) for line in (tmp_path / "logs" / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["tag"] == "01_Training/Loss"] == list(range(1, target + 1))


@pytest.mark.slow
def test_kill_and_resume_goes_on_from_the_last_checkpoint(tmp_path: Path) -> None:
    process = start(tmp_path, "--max-steps=100000", "--save-every-steps=2")
    wait_for_step(process, tmp_path)
    checkpoints = tmp_path / "logs" / "run" / "checkpoints"
    deadline = time.monotonic() + HANGS_AFTER_SECONDS
    while not (checkpoints / "LATEST").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    saved = load_newest(checkpoints)
    assert saved is not None
    target = saved.state.step + 1
    resumed = start(tmp_path, f"--max-steps={target}", "--resume")
    output, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, output
    assert f"Stopped at step {target}: all {target} steps are done" in output
