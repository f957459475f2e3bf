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
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from logging_system.dashboard_server import tensorboard_server
from tests.grids import mostly_slow
from tests.ports import free_port
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
    "--tensorboard-flush-every-steps=1",
    "--mixed-precision=off",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
)
# One process is killed in the middle of a step, once. Saving takes the main one a while, so that it lives longer than
# the other machine's torchrun waits before it starts anew.
KILLED_ONCE = """
import os, pathlib, sys
sys.path.insert(0, {root!r})
from tests.reliability.faults import kill_in_step, stretch_saves
killed = pathlib.Path({marker!r})
if os.environ["RANK"] == "1" and not killed.exists():
    killed.touch()
    kill_in_step(6, 1)
if os.environ["RANK"] == "0":
    stretch_saves({seconds})
import main
sys.exit(main.main(sys.argv[1:]))
"""


ONE_MACHINE = ("--nproc-per-node=2", "--standalone", "--max-restarts=3")


class Torchrun:
    """A torchrun, of one of several machines perhaps."""

    def __init__(
        self,
        folder: Path,
        program: Path,
        *options: str,
        of_torchrun: tuple[str, ...] = ONE_MACHINE,
        shares_store: bool = True,
    ) -> None:
        self.logs = folder / "logs"
        self._output = folder / f"torchrun_{time.monotonic_ns()}.txt"
        command = [
            *(sys.executable, "-m", "torch.distributed.run", *of_torchrun),
            *(str(program), *SMALLEST, *OPTIONS, *options),
            *(f"--log-dir={self.logs}", f"--cache-dir={folder / 'cache'}"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment |= {} if shares_store else {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment)

    @property
    def said(self) -> str:
        return self._output.read_text("utf-8", errors="replace").replace("\r", "\n")

    def wait_for_step(self, step: int) -> None:
        self._wait_until(lambda: any(reached >= step for reached in self._steps()))

    def wait_for(self, text: str) -> None:
        self._wait_until(lambda: text in self.said)

    def _wait_until(self, is_true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not is_true():
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
        if each.process.poll() is None:  # of torchrun; its processes would go on without it
            children = psutil.Process(each.process.pid).children(recursive=True)
            for process in (each.process, *children):
                process.kill()
            psutil.wait_procs(children)
            each.process.wait()


def runs_of_dashboard(logdir: Path) -> list[str]:
    """Ask a real TensorBoard over HTTP."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with tensorboard_server(logdir, "127.0.0.1", port):
        deadline = time.monotonic() + 60
        while True:
            with urllib.request.urlopen(f"{url}data/runs", timeout=60) as answer:
                runs = json.load(answer)
            if runs or time.monotonic() > deadline:
                return runs
            time.sleep(0.2)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a training that nothing disturbs."""
    return train_ranks(tmp_path_factory.mktemp("straight"), 2, *OPTIONS)[0].run


@pytest.mark.slow
@pytest.mark.parametrize("machines", mostly_slow([1, 2]))
def test_a_killed_process_is_replaced_and_the_run_ends_as_if_nothing_had_been(
    tmp_path: Path, torchrun, straight: Path, machines: int
) -> None:
    program = tmp_path / "killed_once.py"
    facts = {"root": str(ROOT), "marker": str(tmp_path / "killed"), "seconds": 0.0 if machines == 1 else 0.5}
    program.write_text(KILLED_ONCE.format(**facts))
    options = ONE_MACHINE
    if machines == 2:
        port = free_port()
        options = ("--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=test")
        options += (f"--rdzv-endpoint=localhost:{port}", "--rdzv-conf=last_call_timeout=1")
    jobs = [torchrun(tmp_path, program, of_torchrun=options) for _ in range(machines)]
    assert [job.end() for job in jobs] == [0] * machines, "".join(job.said for job in jobs)
    said = "".join(job.said for job in jobs)
    assert "another process of this run has ended" in said
    assert "Going on from step 5" in said  # saved by the main process when the other one was gone
    [run] = jobs[0].logs.iterdir()  # without --resume and --experiment-name
    assert curve(run, "01_Training/Loss") == curve(straight, "01_Training/Loss")
    assert largest_difference(newest(run), newest(straight)) == 0
    assert runs_of_dashboard(jobs[0].logs) == [run.name]  # one, not one for each process


@pytest.mark.slow
def test_machines_may_join_and_leave_a_run(tmp_path: Path, torchrun) -> None:
    port = free_port()
    of_torchrun = ("--nnodes=1:2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=test", "--max-restarts=1")
    # A machine that is gone counts as there until it has not been heard of for a while.
    of_torchrun += (f"--rdzv-endpoint=localhost:{port}", "--rdzv-conf=last_call_timeout=1,keep_alive_interval=1")
    options = ("--resume", "--experiment-name=run", "--max-steps=100000", "--save-every-steps=100000")

    def machine(address: str) -> Torchrun:
        """Rank 0 is on the machine with the lowest address."""
        of_this = (*of_torchrun, f"--local-addr={address}")
        return torchrun(tmp_path, ROOT / "main.py", *options, of_torchrun=of_this, shares_store=False)

    first = machine("127.0.0.1")
    first.wait_for_step(3)
    second = machine("127.0.0.2")
    first.wait_for("Processes: 2")
    joined_at = int(re.findall(r"Going on from step (\d+)", first.said)[-1])
    first.wait_for_step(joined_at + 3)
    second.process.send_signal(signal.SIGTERM)
    first.wait_for("a step takes up to 8 frames, and took 16")
    left_at = int(re.findall(r"Going on from step (\d+)", first.said)[-1])
    first.wait_for_step(left_at + 3)
    first.process.send_signal(signal.SIGTERM)
    first.end()
    assert "a step takes up to 16 frames, and took 8" in first.said
    run = first.logs / "run"
    state = state_of(newest(run))
    assert list(curve(run, "01_Training/Loss")) == list(range(1, state["step"] + 1))  # none missing, none twice
    alone = joined_at + state["step"] - left_at
    assert state["samples_seen"] == 2 * alone + 4 * (left_at - joined_at)


@pytest.mark.slow
def test_processes_whose_successors_would_not_find_their_run_do_not_begin(tmp_path: Path, torchrun) -> None:
    of_torchrun = ("--nproc-per-node=2", "--standalone")
    job = torchrun(tmp_path, ROOT / "main.py", of_torchrun=of_torchrun, shares_store=False)
    assert job.end() != 0
    assert "could not find their run. Add --resume --experiment-name NAME" in job.said
    assert not job.logs.exists()


@pytest.mark.slow
def test_a_signal_to_torchrun_ends_all_processes_with_a_checkpoint(tmp_path: Path, torchrun) -> None:
    job = torchrun(tmp_path, ROOT / "main.py", "--max-steps=100000", "--experiment-name=run")
    job.wait_for_step(4)
    job.process.send_signal(signal.SIGTERM)
    assert job.end() != 0
    run = job.logs / "run"
    step = state_of(newest(run))["step"]
    assert f"Stopped at step {step}: SIGTERM asked for it" in job.said
    assert max(curve(run, "01_Training/Loss")) == step
    assert job.said.count("SIGTERM: asked to end") == 1  # one process answers for all
    resumed = train_ranks(tmp_path, 2, *OPTIONS, f"--max-steps={step + 2}", "--resume", faults={0: [tell_steps], 1: []})
    assert steps_done(resumed[0]) == [step + 1, step + 2]
