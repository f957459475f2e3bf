"""How much sooner the U-Net gets to a loss than other libraries' networks: python -m benchmarks.time_to_loss

Trains three networks of the same size on the same clips with the same objective and optimizer, each for the same time
in a process of its own, in turn, once a seed; float32. The figure is the ratio of two times: what the best peer took to
its lowest validation loss, and what the U-Net took to that loss.
Rendering, set-up, a warm-up pass and validations do not count as training time. Words, clips and noise differ from
seed to seed and are the same for all networks of a seed. All networks have one learning rate, constant after a warm-up
over the first 5 % of the time; --peer-learning-rate gives another one to the peers. What the raw weights score is what
counts; nothing is averaged. Ctrl-C ends the comparison with a report of the runs so far.
"""

import argparse
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence

from benchmarks.allocation import ALLOCATION_HELP, ALLOCATIONS
from benchmarks.limited_process import MEMORY_LIMIT_GIB, LimitError, run_limited
from benchmarks.loss_curves import FailedRun, LossCurve, LossCurvePlan, curve_from_json, leads
from benchmarks.loss_report import report
from benchmarks.machine import machine_line
from benchmarks.networks import NETWORK_NAMES, OURS, NetworkName
from benchmarks.option_types import above_zero, output_file, picture_file, seed
from benchmarks.output import INTERRUPTED, save_figures, save_progress, say
from common.errors import UserError
from config import Config
from measures.text_use import TIMESTEP_BINS

SET_UP_SECONDS = 300.0  # imports, rendering, the first validation
TIMES_TRAINING = 6.0  # a run may take with its validations; slow networks validate after each of their first steps
DEFAULTS = Config()


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What all runs have in common."""

    training_seconds: float
    parameters: int = 5_000_000
    image_size: int = DEFAULTS.IMAGE_SIZE
    num_frames: int = DEFAULTS.NUM_FRAMES
    batch_size: int = DEFAULTS.BATCH_SIZE
    training_clips: int = DEFAULTS.EPOCH_SIZE
    validation_clips: int = 2 * TIMESTEP_BINS


def main(arguments: Sequence[str]) -> int:
    """Train, compare and print; return the exit code."""
    options = _parser().parse_args(arguments)
    sizes, seeds = Sizes(60 * options.minutes), list(dict.fromkeys(options.seeds))
    if options.quick:
        sizes, seeds = Sizes(min(4.0, sizes.training_seconds), 300_000, 16, 4, 2, 64, 8), seeds[:1]
    runs: list[LossCurve | FailedRun] = []
    interrupted = False
    try:
        machine = machine_line(*(name for name in NETWORK_NAMES if name in options.networks and name != OURS))
        with tempfile.TemporaryDirectory() as folder:
            plans = _plans(sizes, seeds, options, folder)
            try:
                for plan in plans:
                    say(f"{plan.network}, seed {plan.seed} ({len(runs) + 1} of {len(plans)})")
                    runs.append(train(plan))
                    save_progress(options.json, _as_json(machine, plans, runs))
            except KeyboardInterrupt:
                interrupted = True
                say("interrupted: the report is of the runs so far")
        print(machine)
        print("\n".join(report(plans[0], runs)))
        save_figures(options.json, _as_json(machine, plans, runs))
        if options.plot is not None:
            from benchmarks.loss_plot import plot_loss_curves  # matplotlib is needed for this alone

            plot_loss_curves(runs, leads(runs), options.plot)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if interrupted:
        return INTERRUPTED
    return 1 if any(isinstance(run, FailedRun) and run.is_crash for run in runs) else 0


def train(plan: LossCurvePlan) -> LossCurve | FailedRun:
    """Carry out a plan in a process of its own, within limits of memory and time."""
    command = [sys.executable, "-m", "benchmarks.loss_curve_worker", json.dumps(dataclasses.asdict(plan))]
    limit = SET_UP_SECONDS + TIMES_TRAINING * plan.training_seconds
    result = run_limited(command, memory_gib=MEMORY_LIMIT_GIB, seconds=limit)
    if isinstance(result, LimitError):
        return FailedRun(plan.network, plan.seed, str(result), result.is_crash)
    return curve_from_json(result)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.time_to_loss",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--minutes", type=above_zero, default=5.0, metavar="M", help="of training, a run (default 5)")
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=list(NETWORK_NAMES))
    rate = DEFAULTS.LEARNING_RATE
    parser.add_argument("--learning-rate", type=above_zero, default=rate, help=f"of AdamW (default {rate:g})")
    parser.add_argument("--peer-learning-rate", type=above_zero, help="of the peers (default: the same)")
    parser.add_argument("--allocation", choices=ALLOCATIONS, default="same", help=ALLOCATION_HELP)
    parser.add_argument("--quick", action="store_true", help="a small try: 16 px, 4 frames, 4 seconds a run, one seed")
    parser.add_argument(
        "--json", type=output_file, metavar="PATH", help="also write all figures to this file, after each run"
    )
    parser.add_argument(
        "--plot", type=picture_file, metavar="PATH", help="also draw loss against seconds (png, svg or pdf)"
    )
    return parser


def _plans(sizes: Sizes, seeds: Sequence[int], options: argparse.Namespace, folder: str) -> list[LossCurvePlan]:
    """Return all runs in order: every network in turn, then the next seed."""
    own: float = options.learning_rate
    peers: float = own if options.peer_learning_rate is None else options.peer_learning_rate
    networks: list[NetworkName] = list(dict.fromkeys(options.networks))
    return [
        LossCurvePlan(
            network=network,
            seed=seed,
            learning_rate=own if network == OURS else peers,
            cache_folder=folder,
            allocation=options.allocation,
            **dataclasses.asdict(sizes),
        )
        for seed in seeds
        for network in networks
    ]


def _as_json(machine: str, plans: Sequence[LossCurvePlan], runs: Sequence[LossCurve | FailedRun]) -> dict[str, object]:
    return {
        "machine": machine,
        "plans": [dataclasses.asdict(plan) for plan in plans],
        "runs": [dataclasses.asdict(run) for run in runs],
        "leads": [dataclasses.asdict(lead) | {"ratio": lead.ratio} for lead in leads(runs)],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
