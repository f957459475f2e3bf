"""``python -m logging_system.doctor logs/NAME``: what is wrong with a run, in plain language."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.console import counted, program
from common.errors import UserError
from config import Config
from logging_system.dashboard_server import find_runs
from logging_system.doctor.diagnosis import as_json, as_text, diagnose
from logging_system.files.rewind import EVENT_FILE_PREFIX, METRICS_FILE
from logging_system.files.scalar_history import HistoryFile, read_history

CONFIG_FILE = "config.json"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m logging_system.doctor",
        description="Say in plain language what is wrong with a run, on what evidence, and what to do. The run may be "
        "finished or still going on. Exit code 0 whatever the verdict is, 1 where there is nothing to judge.",
    )
    logs = Config.model_fields["LOG_DIR"].default
    parser.add_argument(
        "run",
        type=Path,
        nargs="?",
        default=logs,
        help=f"folder of a run, such as logs/NAME, or of runs: then the newest one (default: {logs})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser.parse_args(arguments)


def find_run(path: Path) -> Path:
    """Return `path` if it is a run, or the run in it that wrote last.

    Raises:
        UserError: it is neither.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a folder. Name the folder of a run, such as logs/NAME, or of runs.")
    names = (CONFIG_FILE, METRICS_FILE)
    if any((path / name).exists() for name in names) or any(path.glob(f"{EVENT_FILE_PREFIX}*")):
        return path
    if runs := find_runs(path):
        return path / runs[0]
    raise UserError(f"{path} holds no run. Train first (python main.py), or name another folder.")


def read_run(run: Path) -> tuple[HistoryFile, Mapping[str, object]]:
    """Return what a run has logged, and its constants.

    Raises:
        UserError: it has logged nothing yet, or a file of it cannot be read.
    """
    metrics, config = run / METRICS_FILE, run / CONFIG_FILE
    try:
        file = read_history(metrics)
        constants = json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if metrics.exists():
            raise UserError(f"{config} is missing. Put it back, or judge another run.") from error
        raise UserError(
            f"{error.filename} does not exist: {run} is no run, or has no metrics yet. Wait for its first step."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{run} cannot be read: {error}. Is it the folder of a run, and readable to you?") from error
    if not isinstance(constants, dict):
        raise UserError(f"{config} is not a JSON object. Restore it, or judge another run.")
    if not len(file.history) and file.unreadable_lines:
        raise UserError(f"{metrics}: none of its lines can be read ({file.unreadable_lines}). Judge another run.")
    if not len(file.history):
        raise UserError(f"{metrics} holds no metrics yet. Wait for the first step, or for the next flush.")
    return file, constants


@program
def main(arguments: Sequence[str]) -> None:
    """Print the verdict."""
    options = parse(arguments)
    run = find_run(options.run)
    file, constants = read_run(run)
    diagnosis = diagnose(file.history, constants)
    if options.json:
        found = {"run": str(run), "unreadable_lines": file.unreadable_lines, **as_json(diagnosis)}
        print(json.dumps(found, indent=1, allow_nan=False))
        return
    print(f"Run: {run}")
    if file.unreadable_lines:
        print(f"Left out: {counted(file.unreadable_lines, 'line')} of {METRICS_FILE} that cannot be read.")
    print(as_text(diagnosis))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
