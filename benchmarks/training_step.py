"""Median training step and peak memory of a preset: python benchmarks/training_step.py [main.py options]

Runs main.py in a process of its own with every category logged, and watches the whole process tree from outside.
Memory is proportional set size (PSS), which counts pages that loader workers share with their parent once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

STEPS = 60
WARM_UP_POINTS = 2  # of 5 steps each
ROOT = Path(__file__).resolve().parent.parent


def tree_pss(process: psutil.Process) -> int:
    """Return the proportional set size of a process and its children, in bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:  # it ended in between
            continue
    return total


def main() -> None:
    """Run, watch and print."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--max-steps={STEPS}", "--log-every-steps=5", f"--log-dir={folder}/logs", "--experiment-name=run"]
        command = [sys.executable, "main.py", *options, f"--cache-dir={folder}/cache", *sys.argv[1:]]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        watched = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                peak = max(peak, tree_pss(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        if child.wait() != 0:
            sys.exit(f"main.py failed: {' '.join(command)}")
        lines = map(json.loads, (Path(folder) / "logs/run/metrics.jsonl").read_text().splitlines())
        seconds = [line["value"] for line in lines if line["tag"] == "05_Performance/Step_Time_Seconds"][
            WARM_UP_POINTS:
        ]
    print(
        f"step: median {statistics.median(seconds):.3f} s, from {min(seconds):.3f} to {max(seconds):.3f} s (means of 5)"
    )
    print(f"peak memory of the process tree, sampling and validation included: {peak / 2**30:.2f} GiB PSS")


if __name__ == "__main__":
    main()
