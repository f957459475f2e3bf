"""Median training step and peak memory of a preset: python -m benchmarks.training_step [main.py options]

Runs main.py in a process of its own with every category logged, and watches the whole process tree from outside.
Memory is proportional set size (PSS), which counts pages that loader workers share with their parent once.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.machine import GIBIBYTE, machine_line
from benchmarks.output import say
from benchmarks.spread import spread_of

STEPS = 60
STEPS_A_POINT = 5
WARM_UP_POINTS = 2
STEP_TAG = "05_Performance/Step_Time_Seconds"
ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run, watch and print; return the exit code."""
    _, training_options = _parser().parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--max-steps={STEPS}", f"--log-every-steps={STEPS_A_POINT}", f"--log-dir={folder}/logs"]
        options += ["--experiment-name=run", f"--cache-dir={folder}/cache", "--recogniser-steps=0", *training_options]
        errors = Path(folder) / "stderr"
        code, peak = _run([sys.executable, "main.py", *options], errors)
        if code != 0:
            say(f"{errors.read_text(encoding='utf-8', errors='replace')}error: main.py ended with exit code {code}")
            return 1
        lines = (Path(folder) / "logs/run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    points = [point["value"] for point in map(json.loads, lines) if point["tag"] == STEP_TAG]
    step = spread_of(points[WARM_UP_POINTS:])
    print(machine_line())
    print(f"step: {step.text(3, 's')}, median (smallest to largest) of {step.repeats} means of {STEPS_A_POINT} steps")
    print(f"peak memory of the process tree, sampling and validation included: {peak / GIBIBYTE:.2f} GiB PSS")
    return 0


def tree_pss(process: psutil.Process) -> int:
    """Return the proportional set size of a process and its children, in bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # it ended in between
            continue
    return total


def _run(command: Sequence[str], errors: Path) -> tuple[int, int]:
    """Return the exit code and the peak of memory; what the command says on standard error goes to a file."""
    peak = 0
    with errors.open("wb") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, tree_pss(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        return child.wait(), peak


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="python -m benchmarks.training_step",
        usage="%(prog)s [-h] [main.py options]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
