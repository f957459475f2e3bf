"""Is everything right and fast on a GPU? python -m benchmarks.gpu --output gpu.json

Runs the checks that docs/gpu.md lists, each in a process of its own with a time limit of its own, in the order of their
worth. Each writes one line of JSON when it ends. What the time does not suffice for is skipped. On a CPU the same code
runs with small sizes. Exit code 1 if a check failed.
"""

import argparse
import dataclasses
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks import runner
from benchmarks.gpu_runs import CHECKS, CheckPlan
from benchmarks.worker_process import GIBIBYTE, WorkerError, run_worker, worker_command
from common.console import program
from common.files import named_if_unwritable

GRACE_SECONDS = 45.0  # that a check may take longer than expected: starting takes long on a cold disk
LEAST_SHARE = 0.5  # of the expected time, without which a check does not begin


@program
def main(arguments: Sequence[str]) -> int:
    """Check, write and print; return the exit code."""
    parser = runner.plain_parser("gpu", __doc__)
    parser.add_argument("--output", type=runner.output_file, required=True, help="JSON lines are added to this file")
    parser.add_argument("--budget-seconds", type=runner.at_least_one, default=560, metavar="N", help="default 560")
    parser.add_argument("--checks", type=_numbers, default=range(len(CHECKS)), help="such as 0,1,6; default: all")
    parser.add_argument("--device", choices=("cuda", "mps", "cpu"), default="cuda")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"), help="of clips and recognisers; default cache")
    options = parser.parse_args(arguments)
    if not {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}[options.device]:
        parser.error(f"--device {options.device}: PyTorch sees none here; --device cpu tries the code")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` sends it: what was found so far is kept
    return _run(options)


def _numbers(text: str) -> list[int]:
    numbers = {str(number): number for number in range(len(CHECKS))}
    words = [word.strip() for word in text.split(",")]
    if not set(words) <= set(numbers):
        raise argparse.ArgumentTypeError(f"must be numbers from 0 to {len(CHECKS) - 1}, such as 0,1,6, not {text!r}")
    return [numbers[word] for word in words]


def _run(options: argparse.Namespace) -> int:
    end = time.monotonic() + options.budget_seconds
    began = {"began": datetime.now(UTC).isoformat(timespec="seconds"), "arguments": sys.argv[1:]}
    _add_line(options.output, began)
    results: list[dict[str, Any]] = []
    is_interrupted = False
    for number in options.checks:
        check, left = CHECKS[number], end - time.monotonic()
        result = {
            "check": number,
            "title": check.title,
            "state": "skipped",
            "seconds": 0.0,
            "figures": {},
            "faults": [],
        }
        if not is_interrupted and left >= LEAST_SHARE * check.seconds:
            runner.say(f"{number}: {check.title}")
            # The last one has all that is left; the seconds that the others are expected to take are those of a GPU.
            is_free = options.device == "cpu" or number == options.checks[-1]
            is_interrupted = _do(result, options, left if is_free else min(left, check.seconds + GRACE_SECONDS))
        _add_line(options.output, result)
        results.append(result)
    print("\n".join(report(results)))
    if is_interrupted:
        return runner.INTERRUPTED
    return 1 if any(result["state"] == "failed" for result in results) else 0


def _do(result: dict[str, Any], options: argparse.Namespace, seconds: float) -> bool:
    """Let a process do a check, and fill in what it found; return whether Ctrl-C ended it."""
    start, is_interrupted = time.monotonic(), False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "findings"
        path.touch()
        plan = CheckPlan(result["check"], options.device, str(path), str(options.cache_dir), seconds)
        command = worker_command("benchmarks.gpu_runs", dataclasses.asdict(plan))
        try:
            run_worker(command, seconds=seconds, memory_gib=psutil.virtual_memory().total / GIBIBYTE)
        except WorkerError as error:
            result["faults"].append(str(error))
        except KeyboardInterrupt:
            result["faults"].append("interrupted")
            is_interrupted = True
        for line in path.read_text("utf-8").rpartition("\n")[0].splitlines():  # the last may be cut off
            finding = json.loads(line)
            if "fault" in finding:
                result["faults"].append(finding["fault"])
            else:
                result["figures"][finding["figure"]] = finding["value"]
    result |= {"seconds": round(time.monotonic() - start, 1), "state": "failed" if result["faults"] else "passed"}
    return is_interrupted


def report(results: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of the checks, in Markdown."""
    rows = [
        [
            *(str(result["check"]), result["title"], result["state"], f"{result['seconds']:g}"),
            "; ".join(result["faults"]).replace("\n", " ").replace("|", "/"),
        ]
        for result in results
    ]
    return runner.table(["#", "check", "", "seconds", "faults"], rows)


def _add_line(path: Path, line: dict[str, Any]) -> None:
    with named_if_unwritable(f"--output {path}"), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
