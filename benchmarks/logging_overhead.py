"""What logging costs: python -m benchmarks.logging_overhead [--alternations N] [--steps-per-block N] [--json PATH]

Trains the default preset in one process, with full logging and without in alternate blocks of steps, and times the
parts of logging. Then it times a diagnostic pass over 200 and 2,000 parameter tensors, as it is done and naively.
Freed memory is kept as in a run of main.py. Further options are passed on to the run, as main.py's.
"""

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.alternating_run import BlockPlan, Overhead, measure_overhead
from benchmarks.diagnostic_pass import Comparison, compare
from benchmarks.machine import MEMORY_NOTE, machine_line
from benchmarks.option_types import at_least, at_least_one, output_file
from benchmarks.output import save_figures
from common.errors import UserError
from compute.memory import keep_freed_memory
from config import Config

MILLISECONDS = 1000.0


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code."""
    options, training_options = _parser().parse_known_args(arguments)
    keep_freed_memory()
    plan = BlockPlan(options.steps_per_block, options.alternations)
    try:
        with tempfile.TemporaryDirectory() as folder:
            overhead = measure_overhead(plan, Path(folder), training_options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    maximum_layers = Config.model_fields["PARAMETER_TRACKING_MAX_LAYERS"].default
    machine = machine_line()
    print("\n".join([machine, MEMORY_NOTE, *_overhead_lines(overhead, plan)]))
    comparisons = []
    for number in options.tensors:
        comparison = compare(number, maximum_layers, options.alternations)
        comparisons.append(comparison)
        print("\n".join(_comparison_lines(comparison, maximum_layers, options.alternations)))
    passes = [dataclasses.asdict(comparison) for comparison in comparisons]
    try:
        save_figures(options.json, {"machine": machine, "overhead": dataclasses.asdict(overhead), "passes": passes})
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logging_overhead", description=__doc__)
    parser.add_argument(
        "--alternations", type=at_least_one, metavar="N", default=6, help="pairs of blocks, and passes of each kind"
    )
    parser.add_argument("--steps-per-block", type=partial(at_least, 3), metavar="N", default=20)
    parser.add_argument("--tensors", type=partial(at_least, 2), nargs="+", default=[200, 2000], help="even numbers")
    parser.add_argument("--json", type=output_file, metavar="PATH", help="also write the figures to this file")
    return parser


def _overhead_lines(overhead: Overhead, plan: BlockPlan) -> list[str]:
    rows = {
        "a step without logging": overhead.step_without,
        "a step with logging": overhead.step_with,
        "  of it: what every step does": overhead.observing,
        "  more in a step with scalar points": overhead.point,
        "more in a step with diagnostics": overhead.diagnostics,
        "a flush": overhead.flush,
        "a reading of the system (own thread)": overhead.system_reading,
    }
    total = sum(overhead.amortised_percent.values())
    parts = ", ".join(f"{name} {percent:.3f}" for name, percent in overhead.amortised_percent.items())
    return [
        f"Training, {plan.alternations} pairs of blocks of {plan.steps_per_block} steps; median (smallest to largest)",
        *(f"  {name:38} {spread.text(2, 'ms', MILLISECONDS)}" for name, spread in rows.items()),
        f"  step with / without, by pair of blocks {overhead.ratio.text(4)}  (diagnostics and flushes left out)",
        f"  the same in processor time             {overhead.processor_ratio.text(4)}",
        f"  amortised at config.py's cadences: {total:.3f} % of a step without logging ({parts})",
        f"  this run, diagnostics in every logged block: {overhead.percent_of_this_run:.2f} %; its own "
        f"Logging_Overhead_Percent, start included: {overhead.live_percent:.2f} %",
        f"  videos apart: {overhead.videos_seconds:.2f} s a round, {overhead.videos_percent:.1f} % at config.py's "
        "cadence (their encoding, on a thread beside training, left out)",
    ]


def _comparison_lines(comparison: Comparison, maximum_layers: int, alternations: int) -> list[str]:
    rows = {
        f"at most {maximum_layers} layers": comparison.merged,
        "a layer a module": comparison.unmerged,
        "one number at a time": comparison.naive,
    }
    return [
        f"One diagnostic pass over {comparison.tensors} parameter tensors, {alternations} alternations",
        *(
            f"  {name:38} {cost.seconds.text(1, 'ms', MILLISECONDS)}, {cost.transfers} transfers to the host"
            for name, cost in rows.items()
        ),
        f"  one number at a time / at most {maximum_layers} layers  {comparison.naive_to_merged.text(1)}",
        f"  one number at a time / a layer a module {comparison.naive_to_unmerged.text(1)}",
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
