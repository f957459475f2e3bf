"""The real torchrun: what a user of several GPUs or machines types, but on two processes of one CPU."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from logging_system.dashboard_server import choose_port, tensorboard_server
from tests.reliability.faults import tell_steps
from tests.reliability.launch import SMALLEST, train_ranks
from tests.reliability.read_back import curve, largest_difference, newest, state_of, steps_done

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 8
OPTIONS = (
    "--epoch-size=12",
    f"--max-steps={STEPS}",
    "--max-minutes=none",
    "--save-every-steps=3",
    "--mixed-precision=off",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
# One process is killed in the middle of a step, in the first generation of processes only.
KILLED_ONCE = """
import os, sys
sys.path.insert(0, {root!r})
if os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    from tests.reliability.faults import kill_in_step
    kill_in_step(6, 1)
import main
sys.exit(main.main(sys.argv[1:]))
"""


class Torchrun:
    """A torchrun with two processes."""

    def __init__(self, folder: Path, program: Path, *options: str, of_torchrun: tuple[str, ...] = ()) -> None:
        self.logs = folder / "logs"
        self._output = folder / "torchrun.txt"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", *of_torchrun),
            *(str(program), *SMALLEST, *OPTIONS, *options),
            *(f"--log-dir={self.logs}", f"--cache-dir={folder / 'cache'}"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)

    @property
    def said(self) -> str:
        return self._output.read_text("utf-8", errors="replace").replace("\r", "\n")

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 120
        while not any(reached >= step for reached in self._steps()):
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def _steps(self) -> list[int]:
        files = [file.read_text() for file in self.logs.glob("*/metrics.jsonl")]
        return [int(step) for file in files for step in re.findall(r'"step": (\d+), "tag": "01_Training/Loss"', file)]

    def end(self) -> int:
        return self.process.wait(120)


@pytest.fixture
def torchrun() -> Iterator[functools.partial[Torchrun]]:
    started: list[Torchrun] = []

    def start(*arguments: object, **options: object) -> Torchrun:
        started.append(Torchrun(*arguments, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()


def runs_of_dashboard(logdir: Path) -> list[str]:
    """Ask a real TensorBoard over HTTP."""
    port = choose_port("127.0.0.1", None)
    url = f"http://127.0.0.1:{port}/"
    with tensorboard_server(logdir, "127.0.0.1", port):
        deadline = time.monotonic() + 60
        while True:
            with urllib.request.urlopen(f"{url}data/runs", timeout=10) as answer:
                runs = json.load(answer)
            if runs or time.monotonic() > deadline:
                return runs
            time.sleep(0.2)


def test_a_killed_process_is_replaced_and_the_run_ends_as_if_nothing_had_been(tmp_path: Path, torchrun) -> None:
    program = tmp_path / "killed_once.py"
    program.write_text(KILLED_ONCE.format(root=str(ROOT)))
    job = torchrun(tmp_path, program, of_torchrun=("--max-restarts=1",))
    straight = train_ranks(tmp_path / "straight", 2, *OPTIONS, "--log-every-steps=1")
    assert job.end() == 0, job.said
    assert "another process of this run has ended" in job.said
    assert "Going on from step 5" in job.said  # saved by the main process when the other one was gone
    [run] = job.logs.iterdir()  # without --resume and --experiment-name
    assert curve(run, "01_Training/Loss") == curve(straight[0].run, "01_Training/Loss")
    assert largest_difference(newest(run), newest(straight[0].run)) == 0
    assert runs_of_dashboard(job.logs) == [run.name]  # one, not one for each process


def test_a_signal_to_torchrun_ends_all_processes_with_a_checkpoint(tmp_path: Path, torchrun) -> None:
    job = torchrun(tmp_path, ROOT / "main.py", "--max-steps=100000", "--experiment-name=run")
    job.wait_for_step(4)
    job.process.send_signal(signal.SIGTERM)
    assert job.end() != 0
    run = job.logs / "run"
    step = state_of(newest(run))["step"]
    assert f"Stopped at step {step}: SIGTERM asked for it" in job.said
    assert max(curve(run, "01_Training/Loss")) == step
    assert job.said.count("SIGTERM: ending after this step") == 1  # one process answers for all
    resumed = train_ranks(tmp_path, 2, *OPTIONS, f"--max-steps={step + 2}", "--resume", faults={0: [tell_steps], 1: []})
    assert steps_done(resumed[0]) == [step + 1, step + 2]
