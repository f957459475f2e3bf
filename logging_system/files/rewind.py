"""Taking back what an earlier launch logged beyond the step that a run resumes from.

A run that dies has usually logged more steps than its last checkpoint holds. The resumed run repeats those steps.
TensorBoard's fast loader ignores the records that announce such a restart, so the old points would stay in the charts
next to the new ones; they have to leave the files.
"""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG

from common.files import sync_folder, write_atomically
from logging_system.files.append_log import Span, read_records

METRICS_FILE = "metrics.jsonl"
EVENT_FILE_PREFIX = "events.out.tfevents."
EPOCH_CATEGORY = "03_Epoch_Summary/"  # the one category whose x axis is the epoch
EPOCH_MARK = "epoch"
PARTIAL_EPOCH_MARK = "partial epoch"
BACKUP_FOLDER = "rewound"
_ONE_OF_A_RUN = ("_hparams_/", CONFIG_SUMMARY_TAG)  # each launch writes its own, and TensorBoard shows the first


@dataclass(frozen=True)
class Rewound:
    """What :func:`rewind` took out."""

    records: int  # of event files; a torn end counts as one
    lines: int  # of metrics.jsonl
    backup_folder: Path | None  # holds what was taken out; None when that was nothing


@dataclass(frozen=True)
class _Plan:
    """How one event file is to be cut."""

    kept: list[Span]
    dropped: list[Span]  # a torn end is the last
    keeps_points: bool


def rewind(run_folder: Path, first_new_step: int) -> Rewound:
    """Remove every point at or beyond ``first_new_step`` from the run's event files and ``metrics.jsonl``.

    - A launch that began at or beyond that step goes completely, its opening points included.
    - Epoch summaries go when the optimizer step at which they were written is taken back, and so does the summary of
      an epoch that had not ended, because the resumed run finishes that epoch and sums it up again.
    - HParams and the Custom Scalars layout go: every launch writes its own.
    - A record or line torn by a sudden end goes.

    What remains keeps its bytes, with the descriptions in it. What is taken out is kept in
    ``rewound/from_step_<N>_<k>/`` under names that TensorBoard does not take for event files. Each file is replaced in
    one rename, so an interruption leaves a state from which rewinding again succeeds.

    A file left without points is removed, but the newest one stays, empty: TensorBoard's slower loader
    (``--load_fast false``) waits at the end of the newest file, and an open dashboard whose file vanishes never gets
    to the next one (``directory_watcher.py`` of TensorBoard 2.21).

    Args:
        run_folder: need not exist.
        first_new_step: the first step that the coming launch writes; 0 takes everything back.

    Raises:
        OSError: a file cannot be read or written.
    """
    doubtful = _DoubtfulScalars(first_new_step)
    paths = sorted(run_folder.glob(f"{EVENT_FILE_PREFIX}*"))
    plans = {path: _plan(path, first_new_step, doubtful) for path in paths}
    kept_lines, dropped_lines = _split_lines(run_folder / METRICS_FILE, doubtful)
    to_cut = {path: plan for path, plan in plans.items() if plan.dropped}
    if not to_cut and not dropped_lines:
        _remove_empty(plans)
        return Rewound(0, 0, None)
    backup = _new_backup_folder(run_folder, first_new_step)
    for path, plan in to_cut.items():
        _copy_spans(path, plan.dropped, backup / path.name.replace("tfevents", "backup"))
        _copy_spans(path, plan.kept, path)
        sync_folder(run_folder)
    _remove_empty(plans)
    if dropped_lines:
        write_atomically(backup / METRICS_FILE, b"".join(dropped_lines))
        write_atomically(run_folder / METRICS_FILE, b"".join(kept_lines))
    records = sum(len(plan.dropped) for plan in to_cut.values())
    return Rewound(records, len(dropped_lines), backup)


class _DoubtfulScalars:
    """Which scalars stay where the step alone does not tell: epoch summaries, and the step before the first new one.

    ``metrics.jsonl`` holds no marks, so it follows what was decided for the event files.
    """

    def __init__(self, first_new_step: int) -> None:
        self._first_new_step = first_new_step
        self._kept: set[tuple[str, int]] = set()

    def note_kept(self, tag: str, step: int) -> None:
        if tag.startswith(EPOCH_CATEGORY) or step == self._first_new_step - 1:
            self._kept.add((tag, step))

    def keeps(self, tag: str, step: int) -> bool:
        """Return whether a line stays; a doubtful one stays only once."""
        if not tag.startswith(EPOCH_CATEGORY) and step != self._first_new_step - 1:
            return step < self._first_new_step
        if (tag, step) not in self._kept:
            return False
        self._kept.remove((tag, step))
        return True


def _plan(path: Path, first_new_step: int, doubtful: _DoubtfulScalars) -> _Plan:
    kept: list[Span] = []
    dropped: list[Span] = []
    judge = _Judge(first_new_step)
    keeps_points = False
    end = 0
    with open(path, "rb") as file:
        for event, span in read_records(file):
            end = span[1]
            if judge.keeps(event):
                kept.append(span)
                for value in event.summary.value:
                    keeps_points = True
                    doubtful.note_kept(value.tag, event.step)
            else:
                dropped.append(span)
        size = file.seek(0, os.SEEK_END)
    if size > end:
        dropped.append((end, size))
    return _Plan(kept, dropped, keeps_points)


class _Judge:
    """Decides record by record, in the order of the file, which of one launch's records stay."""

    def __init__(self, first_new_step: int) -> None:
        self._first_new_step = first_new_step
        self._launch_is_taken_back = False
        self._epoch_is_taken_back = False

    def keeps(self, event: Event) -> bool:
        if event.HasField("session_log"):
            return self._keeps_mark(event.step, event.session_log)
        if not event.HasField("summary"):
            return True
        tags = [value.tag for value in event.summary.value]
        if self._launch_is_taken_back or any(tag.startswith(_ONE_OF_A_RUN) for tag in tags):
            return False
        if any(tag.startswith(EPOCH_CATEGORY) for tag in tags):
            return not self._epoch_is_taken_back
        return int(event.step) < self._first_new_step

    def _keeps_mark(self, step: int, mark: SessionLog) -> bool:
        is_new = step >= self._first_new_step
        if mark.status == SessionLog.START:
            self._launch_is_taken_back = is_new
        elif mark.msg in (EPOCH_MARK, PARTIAL_EPOCH_MARK):
            self._epoch_is_taken_back = is_new or mark.msg == PARTIAL_EPOCH_MARK
            return not self._epoch_is_taken_back
        return not is_new


def _split_lines(path: Path, doubtful: _DoubtfulScalars) -> tuple[list[bytes], list[bytes]]:
    kept: list[bytes] = []
    dropped: list[bytes] = []
    if not path.exists():
        return kept, dropped
    with open(path, "rb") as file:
        for line in file:
            (kept if _line_stays(line, doubtful) else dropped).append(line)
    return kept, dropped


def _line_stays(line: bytes, doubtful: _DoubtfulScalars) -> bool:
    try:
        point = json.loads(line)
        return line.endswith(b"\n") and doubtful.keeps(point["tag"], point["step"])
    except (ValueError, KeyError, TypeError):  # torn or foreign
        return False


def _remove_empty(plans: Mapping[Path, _Plan]) -> None:
    """Remove the files that keep no points, except for the newest file (see :func:`rewind`)."""
    for path in list(plans)[:-1]:
        if not plans[path].keeps_points:
            path.unlink()
            sync_folder(path.parent)


def _copy_spans(source: Path, spans: Iterable[Span], target: Path) -> None:
    """Write the given parts of ``source`` to ``target`` (which may be ``source``) in one rename."""
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")  # a name that TensorBoard does not take for its own
    try:
        with open(source, "rb") as reader, open(temporary, "wb") as writer:
            for start, end in spans:
                reader.seek(start)
                writer.write(reader.read(end - start))
            writer.flush()
            os.fsync(writer.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _new_backup_folder(run_folder: Path, first_new_step: int) -> Path:
    number = 1
    while (folder := run_folder / BACKUP_FOLDER / f"from_step_{first_new_step}_{number}").exists():
        number += 1
    folder.mkdir(parents=True)
    return folder
