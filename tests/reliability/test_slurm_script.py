"""The Slurm script of docs/scaling.md with stand-ins for Slurm: what it returns, and when it queues again."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.waiting import wait_until

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "scaling.md"
# It ends by itself with CODE, or a moment after a signal, as a training that writes its last checkpoint.
SRUN = """#!/bin/bash
builtin trap "sleep 0.5; echo saved; exit 1" TERM
echo "$@" > "$FOLDER/arguments"
for tick in $(seq "$TICKS"); do sleep 0.05; done
exit "$CODE"
"""
# Bash reads it before the job's script: tells when a signal would be caught.
TELLS_OF_TRAPS = """
trap() { builtin trap "$@"; touch "$FOLDER/trapped"; }
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && echo first-machine || echo "$1 $2"
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    for name, body in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(body)
        (tmp_path / name).chmod(0o755)
    found = re.search(r"```\n(#!/bin/bash.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "job.sh").write_text(found.group(1))
    return tmp_path / "job.sh"


@pytest.mark.parametrize(
    ("ticks", "code", "signalled", "codes", "expected"),
    # A signal before bash waits lets it wait for the end of the training at once, which has code 1.
    [(1, 0, False, {0}, ""), (1, 1, False, {1}, ""), (12_000, 0, True, {143, 1}, "saved\nrequeue 17\n")],
)
def test_a_job_is_queued_again_only_when_its_time_was_over(
    script: Path, ticks: int, code: int, signalled: bool, codes: set[int], expected: str
) -> None:
    environment = {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "FOLDER": str(script.parent)}
    environment |= {"TICKS": str(ticks), "CODE": str(code), "SLURM_JOB_ID": "17", "SLURM_NNODES": "4"}
    environment |= {"SLURM_JOB_NODELIST": "first-machine", "SLURM_RESTART_COUNT": "0"}
    (script.parent / "tells_of_traps").write_text(TELLS_OF_TRAPS)
    environment["BASH_ENV"] = str(script.parent / "tells_of_traps")
    job = subprocess.Popen(["bash", str(script)], env=environment, stdout=subprocess.PIPE, text=True)
    wait_until(lambda: (script.parent / "arguments").exists() and (script.parent / "trapped").exists())
    if signalled:
        job.send_signal(signal.SIGTERM)
    said, _ = job.communicate(timeout=100)
    assert (job.returncode in codes, said) == (True, expected)
    arguments = (script.parent / "arguments").read_text()
    assert "torchrun --nnodes=4 " in arguments
    assert "--rdzv-endpoint=first-machine:29500 --rdzv-id=17-0 main.py " in arguments
