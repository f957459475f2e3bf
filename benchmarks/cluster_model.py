"""What training would take on 1 to 512 GPUs, modelled: python -m benchmarks.cluster_model

Counts what each preset's network computes, keeps and moves, takes the rest from data sheets, and says for DDP and FSDP
where the memory goes, how long a step takes, how much of the communication is not hidden, and what is left of the
speed of one GPU. What the host does for a step is measured here, on this machine's processor. GPU figures are modelled,
never measured. The formulas are checked against what can be measured here: peak memory of CPU processes, and two
processes over gloo (--processes: the figures of benchmarks.processes).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.cluster_check import (
    MEMORY_CASES,
    QUICK_MEMORY_CASES,
    Comparison,
    check_communication,
    check_counts,
    check_memory,
)
from benchmarks.cluster_formulas import Choice, memory_of, step_time
from benchmarks.cluster_hardware import CLUSTERS, Cluster
from benchmarks.cluster_host import host_seconds_a_clip
from benchmarks.cluster_report import (
    GPUS,
    NOT_MEASURED,
    PARALLELISMS,
    assumptions,
    check_table,
    efficiency,
    limits_table,
    memory_table,
    time_table,
    workload_table,
)
from benchmarks.cluster_workload import Workload, workload_of
from benchmarks.limited_process import LimitError
from benchmarks.machine import machine_line
from benchmarks.option_types import output_file
from benchmarks.output import INTERRUPTED, save_figures, say
from benchmarks.processes_measure import Round, undisturbed, work_from_json
from common.errors import UserError
from config import PRESETS

TINY = "tiny"
"""The preset of benchmarks.processes, and the one that is counted with contents too."""


def main(arguments: Sequence[str]) -> int:
    """Count, check and print; return the exit code."""
    options = _parser().parse_args(arguments)
    clusters = [cluster for cluster in CLUSTERS if cluster.name in options.clusters]
    try:
        rounds = read_rounds(options.processes)
        works = {preset: _counted(preset) for preset in options.presets}
        comparisons = _check(works, rounds, checks_memory=options.check, quick=options.quick)
        print("\n".join(_report(list(works.values()), clusters, comparisons)))
        save_figures(options.json, _as_json(list(works.values()), clusters, comparisons))
    except (UserError, LimitError, OSError) as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def read_rounds(path: Path | None) -> list[Round]:
    """Read the alternations that benchmarks.processes saved and that nothing disturbed; none without a path.

    Raises:
        OSError: the file cannot be read.
        UserError: it holds something else.
    """
    if path is None:
        return []
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))["rounds"]
        rounds: list[Round] = [{name: work_from_json(work) for name, work in works.items()} for works in saved]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} does not hold figures of benchmarks.processes: make it with python -m benchmarks.processes "
            f"--json {path}"
        ) from error
    return undisturbed(rounds)


def _counted(preset: str) -> Workload:
    say(f"counting the network of preset {preset}, and timing what the host does for its batch")
    return replace(workload_of(preset), host_seconds=host_seconds_a_clip(preset))


def _check(
    works: Mapping[str, Workload], rounds: Sequence[Round], *, checks_memory: bool, quick: bool
) -> list[Comparison]:
    comparisons = check_communication(rounds, works.get(TINY)) if rounds else []
    if TINY in works:
        comparisons = [*check_counts(works[TINY]), *comparisons]
    if checks_memory:
        say("measuring peak memory")
        cases = [case for case in (QUICK_MEMORY_CASES if quick else MEMORY_CASES) if case[0] in works]
        comparisons = [*check_memory(works, cases), *comparisons]
    return comparisons


def _report(works: Sequence[Workload], clusters: Sequence[Cluster], comparisons: Sequence[Comparison]) -> list[str]:
    sizes = {cluster.gpu.memory_bytes: cluster.gpu for cluster in clusters}
    return [
        machine_line(),
        "",
        "Counted, on tensors without contents, in bfloat16 autocast:",
        "",
        *workload_table(works),
        *(check_table(comparisons) if comparisons else ["Nothing was checked.", ""]),
        *assumptions(),
        "",
        NOT_MEASURED,
        "",
        *(line for work in works for gpu in sizes.values() for line in memory_table(work, gpu)),
        *(line for work in works for cluster in clusters for line in time_table(work, cluster)),
        *limits_table(works, clusters),
    ]


def _as_json(
    works: Sequence[Workload], clusters: Sequence[Cluster], comparisons: Sequence[Comparison]
) -> dict[str, object]:
    rows = []
    for work in works:
        for cluster in clusters:
            for gpus in GPUS:
                for parallelism in PARALLELISMS:
                    for checkpoints in (False, True):
                        choice = Choice(parallelism, gpus, work.batch_size, checkpoints)
                        rows.append(
                            {
                                "preset": work.preset,
                                "cluster": cluster.name,
                                **dataclasses.asdict(choice),
                                "memory": dataclasses.asdict(memory_of(work, choice)),
                                "seconds": dataclasses.asdict(step_time(work, choice, cluster)),
                                "efficiency": efficiency(work, choice, cluster),
                            }
                        )
    return {
        "machine": machine_line(),
        "counted": [dataclasses.asdict(work) for work in works],
        "checked": [{**dataclasses.asdict(each), "deviation": each.deviation} for each in comparisons],
        "modelled": rows,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    names = [cluster.name for cluster in CLUSTERS]
    parser.add_argument("--presets", nargs="+", choices=list(PRESETS), default=list(PRESETS), help="default: all")
    parser.add_argument("--clusters", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--processes", type=Path, metavar="PATH", help="figures that benchmarks.processes saved")
    parser.add_argument("--no-check", dest="check", action="store_false", help="leave out the measuring of memory")
    parser.add_argument("--quick", action="store_true", help="check the memory of one small case alone")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write all figures to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
