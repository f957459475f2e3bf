"""Rows of a table, each measured by processes of its own: what benchmarks.recipe and benchmarks.spelling share."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.output import INTERRUPTED, save_figures, save_progress, say

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT", bound="DataclassInstance")
FailedT = TypeVar("FailedT", bound="DataclassInstance")


def measure_rows(
    first: ItemT,
    others: Sequence[ItemT],
    measure: Callable[[ItemT], RowT | FailedT],
    report: Callable[[Sequence[RowT | FailedT]], list[str]],
    failed: type[FailedT],
    complaint: Callable[[FailedT], str],
    *,
    jobs: int,
    json_path: Path | None,
) -> int:
    """Measure every row, print the report and return the exit code.

    Args:
        first: measured alone, because it trains the recogniser that the others find in the cache. Where it fails, that
            is all.
        others: the rest, `jobs` at a time.
        report: the lines of the table, also of the rows so far where Ctrl-C ends it.
        failed: what `measure` returns for a row that failed.
        complaint: what is wrong with the first row.
        json_path: for the rows, written again after each; None for none.
    """
    rows: list[RowT | FailedT] = []

    def as_json() -> dict[str, object]:
        return {"rows": [dataclasses.asdict(row) for row in rows]}

    try:
        row = measure(first)
        if isinstance(row, failed):
            print(f"error: {complaint(row)}", file=sys.stderr)
            return 1
        rows.append(row)
        with ThreadPoolExecutor(jobs) as pool:
            for row in pool.map(measure, others):
                rows.append(row)
                save_progress(json_path, as_json())
    except KeyboardInterrupt:
        say("interrupted")
        print("\n".join(report(rows)))
        return INTERRUPTED
    print("\n".join(report(rows)))
    save_figures(json_path, as_json())
    return 1 if any(isinstance(row, failed) for row in rows) else 0
