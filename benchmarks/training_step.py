"""Median training step and peak memory of a preset: python -m benchmarks.training_step [main.py options]

Runs main.py in a process of its own with every category logged, and watches all its processes from outside. Memory is
proportional set size (PSS), which counts pages that loader workers share with their parent once.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks import runner
from benchmarks.evaluated_rows import ROOT
from benchmarks.worker_process import GIBIBYTE
from common.console import program

STEPS, STEPS_A_POINT, WARM_UP_POINTS = 60, 5, 2
STEP_TAG = "05_Performance/Step_Time_Seconds"


@program
def main(arguments: Sequence[str]) -> int:
    """Run, watch and print; return the exit code."""
    options, training_options = runner.build_parser("training_step", __doc__).parse_known_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "main.py", f"--max-steps={STEPS}", f"--log-every-steps={STEPS_A_POINT}"]
        command += [f"--log-dir={folder}/logs", "--experiment-name=run", f"--cache-dir={folder}/cache"]
        errors = Path(folder) / "stderr"
        code, peak = _run([*command, "--recogniser-steps=0", *training_options], errors)
        if code != 0:
            runner.say(errors.read_text(encoding="utf-8", errors="replace"))
            runner.say(f"error: main.py ended with exit code {code}")
            return 1
        points = runner.points_of(Path(folder) / "logs/run")[STEP_TAG][WARM_UP_POINTS:]
    report = [
        f"step: {runner.spread_of(points).text(3, 's')}, median (smallest to largest) of means of {STEPS_A_POINT}",
        f"peak memory of all processes, samples and validation included: {peak / GIBIBYTE:.2f} GiB PSS",
    ]
    runner.publish(runner.machine_line(), report, {"step_seconds": points, "peak_bytes": peak}, options.json)
    return 0


def _run(command: Sequence[str], errors: Path) -> tuple[int, int]:
    """Return the exit code and the peak of memory; standard error goes to a file."""
    peak = 0
    with errors.open("wb") as file:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
        while child.poll() is None:
            with contextlib.suppress(psutil.Error):  # a process ended in between
                watched = psutil.Process(child.pid)
                members = [watched, *watched.children(recursive=True)]
                peak = max(peak, sum(member.memory_full_info().pss for member in members))
            time.sleep(0.5)
        return child.wait(), peak


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
