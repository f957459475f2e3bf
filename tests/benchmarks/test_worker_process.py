"""Processes are ended at their limits, and what they answered arrives."""

import fcntl
import os
import sys

import psutil
import pytest

from benchmarks.worker_process import (
    MemoryLimitError,
    TimeLimitError,
    WorkerError,
    read_plan,
    run_worker,
    worker_command,
)

HUNGRY = "import time\nkept = []\nwhile True: kept.append(bytearray(b'x' * 2**24)), time.sleep(0.01)"


def python(source):
    return [sys.executable, "-c", source]


def test_a_result_is_the_json_object_among_other_lines():
    source = "print('progress'); print(3); print('{\"loss\": 0.5}')"
    assert run_worker(python(source), memory_gib=1, seconds=60) == {"loss": 0.5}


def test_too_much_memory_ends_it():
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(MemoryLimitError, match=r"^more than 0\.25 GiB$") as raised:
        run_worker(python(HUNGRY), memory_gib=0.25, seconds=60)
    assert raised.value.bound == "memory"
    assert set(psutil.Process().children(recursive=True)) <= before


def test_memory_of_children_counts():
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HUNGRY!r}])"
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(MemoryLimitError):
        run_worker(python(source), memory_gib=0.25, seconds=60)
    assert set(psutil.Process().children(recursive=True)) <= before


def test_a_talkative_process_is_held_to_the_limits_too():
    source = "while True: print('still busy', flush=True)"
    with pytest.raises(TimeLimitError, match=r"^more than 0\.5 s$") as raised:
        run_worker(python(source), memory_gib=1, seconds=0.5)
    assert raised.value.bound == "seconds"


def test_too_much_time_ends_it():
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(TimeLimitError, match=r"^more than 0\.5 s$"):
        run_worker(python("import time; time.sleep(600)"), memory_gib=1, seconds=0.5)
    assert set(psutil.Process().children(recursive=True)) <= before


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("print('no json')", "ended with exit code 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "ended by signal 15"),
    ],
)
def test_an_end_without_an_answer_is_told_and_is_no_limit(source, reason):
    with pytest.raises(WorkerError, match=f"^{reason}$") as raised:
        run_worker(python(source), memory_gib=1, seconds=60)
    assert raised.value.bound is None


def test_what_a_process_that_died_had_started_is_ended_too(tmp_path):
    child = f"import fcntl, time; file = open({str(tmp_path / 'lock')!r}, 'w'); fcntl.flock(file, 2); time.sleep(600)"
    source = f"""
import fcntl, os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {child!r}])
while True:  # until the child has the lock
    with open({str(tmp_path / "lock")!r}, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.abort()
"""
    with pytest.raises(WorkerError, match="ended by signal 6"):
        run_worker(python(source), memory_gib=1, seconds=60)
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for the child's end


def test_ctrl_c_in_the_terminal_does_not_reach_a_process():
    source = "import json, os; print(json.dumps({'group': os.getpgrp()}))"
    assert run_worker(python(source), memory_gib=1, seconds=60)["group"] != os.getpgrp()


def test_a_plan_reaches_a_worker_as_it_is():
    plan = {"options": ["--device=cpu"], "steps": 3}
    command = worker_command("benchmarks.scaling_worker", plan, ("-X", "dev"))
    assert command[:5] == [sys.executable, "-X", "dev", "-m", "benchmarks.scaling_worker"]
    assert read_plan(command[5:], "A worker.") == plan
