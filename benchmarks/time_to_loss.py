"""How much sooner the U-Net gets to a loss than other libraries' networks: python -m benchmarks.time_to_loss

Trains three networks of the same size on the same clips with the same objective and optimizer, each for the same time
in a process of its own, in turn, once per seed, in float32. The figure is the ratio of two times: what the best peer
took to its lowest validation loss, and what the U-Net took to that loss. Rendering, set-up, warm-up and validations do
not count as training time. The learning rate is constant after a warm-up over the first 5 % of the time, and the raw
weights are validated. Ctrl-C reports the complete seeds.
"""

import argparse
import dataclasses
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks import runner
from benchmarks.loss_curve_worker import LossCurve, LossCurvePlan, LossPoint, curve_from_json
from benchmarks.networks import NETWORK_NAMES, OURS, NetworkName
from benchmarks.worker_process import WorkerError, run_worker, worker_command
from common.console import program
from common.errors import UserError
from measures.text_use import TIMESTEP_BINS

SET_UP_SECONDS = 300.0  # imports, rendering, the first validation
TIMES_TRAINING = 6.0  # a run may take with its validations; slow networks validate after each of their first steps
HEAD = (
    *("network", "runs", "parameters", "s a step", "steps", "loss before", "lowest loss", "loss at the end"),
    "text gap at the end",
)
LEAD_HEAD = ("seed", "best peer", "its lowest loss", "reached after", f"{OURS} there after", "ratio")


@dataclass(frozen=True)
class Lead:
    """How much sooner our network had the lowest loss that the best peer reached, for one seed."""

    seed: int
    peer: NetworkName
    loss: float
    peer_seconds: float  # of training, when the peer was first measured at that loss
    our_seconds: float | None  # when ours was there; None if it never was
    is_bound: bool  # ours was there at its first validation after a step, so that `our_seconds` is an upper bound

    @property
    def ratio(self) -> float | None:
        """How many times sooner; None where ours never got there."""
        return None if self.our_seconds is None else self.peer_seconds / self.our_seconds


@program
def main(arguments: Sequence[str]) -> int:
    """Train, compare and print; return the exit code."""
    parser = runner.build_parser("time_to_loss", __doc__, quick="16 px, a few seconds a run, one seed")
    parser.add_argument("--seeds", type=runner.seed, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="of training, a run (default 5)")
    parser.add_argument("--networks", nargs="+", choices=NETWORK_NAMES, default=list(NETWORK_NAMES))
    options = parser.parse_args(arguments)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    if not 0 < options.minutes < math.inf:
        raise UserError(f"--minutes must be a finite number above 0, not {options.minutes}")
    machine = runner.machine_line(*(name for name in NETWORK_NAMES if name in options.networks and name != OURS))
    seeds = list(dict.fromkeys(options.seeds))
    with tempfile.TemporaryDirectory() as folder:
        cache = f"--cache-dir={folder}"
        clips = f"--validation-clips={2 * TIMESTEP_BINS}"
        plan = LossCurvePlan(OURS, 0, 60 * options.minutes, 5_000_000, (cache, clips))
        if options.quick:
            seeds = seeds[:1]
            small = ("--batch-size=2", "--epoch-size=64", "--validation-clips=8", cache)
            seconds = min(4.0, plan.training_seconds)
            plan = LossCurvePlan(OURS, 0, seconds, 300_000, (*runner.SMALL_NETWORK, *small))
        rounds = runner.alternate(
            list(dict.fromkeys(options.networks)),
            len(seeds),
            lambda network, number: train(dataclasses.replace(plan, network=network, seed=seeds[number])),
        )
    curves = [curve for found in rounds.results.values() for curve in found]
    found = leads(curves)
    figures = {
        "plan": dataclasses.asdict(plan),
        "runs": [dataclasses.asdict(curve) for curve in curves],
        "leads": [dataclasses.asdict(lead) | {"ratio": lead.ratio} for lead in found],
    }
    runner.publish(machine, report(plan, curves, rounds.failures), figures, options.json)
    return rounds.exit_code


def train(plan: LossCurvePlan) -> LossCurve:
    """Carry out a plan in a process of its own."""
    runner.say(f"{plan.network}, seed {plan.seed}")
    limit = SET_UP_SECONDS + TIMES_TRAINING * plan.training_seconds
    command = worker_command("benchmarks.loss_curve_worker", dataclasses.asdict(plan))
    return curve_from_json(run_worker(command, seconds=limit))


def first_time_at(points: Sequence[LossPoint], loss: float) -> tuple[float, int] | None:
    """Return when a curve first was at or below a loss, and the number of that point; None if it never was.

    The time is interpolated linearly between that validation and the one before.
    """
    for index, point in enumerate(points):
        if point.loss <= loss:
            if index == 0 or not math.isfinite(points[index - 1].loss):
                return point.seconds, index
            before = points[index - 1]
            share = (before.loss - loss) / (before.loss - point.loss)
            return before.seconds + share * (point.seconds - before.seconds), index
    return None


def lead_over(ours: LossCurve, peers: Sequence[LossCurve]) -> Lead | None:
    """Compare ours with the peer of the lowest loss; None if training improved no peer. All have one seed."""
    improved = [peer for peer in peers if peer.best.step > 0]
    if not improved:
        return None
    peer = min(improved, key=lambda candidate: candidate.best.loss)
    # From the first step on: what the initial weights score is no matter of speed.
    reached = first_time_at([point for point in ours.points if point.step > 0], peer.best.loss)
    return Lead(
        seed=ours.seed,
        peer=peer.network,
        loss=peer.best.loss,
        peer_seconds=peer.best.seconds,
        our_seconds=None if reached is None else reached[0],
        is_bound=reached is not None and reached[1] == 0,
    )


def leads(curves: Sequence[LossCurve]) -> list[Lead]:
    """Return the leads of all seeds for which ours and a peer have a curve."""
    peers = [curve for curve in curves if curve.network != OURS]
    ours = [curve for curve in curves if curve.network == OURS]
    found = [lead_over(curve, [peer for peer in peers if peer.seed == curve.seed]) for curve in ours]
    return [lead for lead in found if lead is not None]


def report(plan: LossCurvePlan, curves: Sequence[LossCurve], failures: Mapping[NetworkName, WorkerError]) -> list[str]:
    """Return the tables, in Markdown; `plan` is that of any run, for what they have in common."""
    networks = dict.fromkeys(curve.network for curve in curves)
    rows = [_network_row(name, [curve for curve in curves if curve.network == name]) for name in networks]
    rows += [[name, f"failed: {error}"] for name, error in failures.items()]
    found, config = leads(curves), plan.config()
    height, width = config.IMAGE_SIZE
    return [
        f"{plan.training_seconds:g} s of training a run, clips of 3 x {config.MAX_FRAMES} x {height} x {width}, batch "
        f"{config.BATCH_SIZE}, float32. {runner.MEMORY_NOTE} Validation on {config.VALIDATION_CLIPS} clips: the same "
        "for all networks of a seed, others for every seed. Median (smallest to largest):",
        "",
        *runner.table(HEAD, rows),
        *runner.table(LEAD_HEAD, _leads(found)),
        *_conclusion(found, len({curve.seed for curve in curves})),
    ]


def _network_row(network: str, curves: Sequence[LossCurve]) -> list[str]:
    gaps = [curve.text_gap for curve in curves if curve.text_gap is not None]
    columns = (
        ([curve.last.seconds / curve.last.step for curve in curves], 3),
        ([curve.last.step for curve in curves], 0),
        ([curve.points[0].loss for curve in curves], 4),
        ([curve.best.loss for curve in curves], 4),
        ([curve.last.loss for curve in curves], 4),
    )
    cells = [runner.spread_of(values).text(digits) for values, digits in columns]
    gap = runner.spread_of(gaps).text(4) if gaps else "all captions are the same"
    return [network, str(len(curves)), f"{curves[0].parameters / 1e6:.2f} M", *cells, gap]


def _leads(found: Sequence[Lead]) -> list[list[str]]:
    rows = []
    for lead in found:
        row = [str(lead.seed), lead.peer, f"{lead.loss:.4f}", f"{lead.peer_seconds:.1f} s"]
        if lead.our_seconds is None or lead.ratio is None:
            rows.append([*row, "not reached", "not reached"])
        else:
            most, least = ("at most ", "at least ") if lead.is_bound else ("", "")
            rows.append([*row, f"{most}{lead.our_seconds:.1f} s", f"{least}{lead.ratio:.1f}"])
    return rows


def _conclusion(found: Sequence[Lead], seeds: int) -> list[str]:
    """Say how many times sooner; a headline only where ours got there with every seed that can be compared."""
    ratios = [lead.ratio for lead in found if lead.ratio is not None]
    bound = "at least " if any(lead.is_bound for lead in found) else ""
    lines = []
    if len(found) < seeds:
        lines.append(f"{seeds - len(found)} of {seeds} seeds have nothing to compare.")
    if ratios and len(ratios) == len(found):
        sooner = f"{bound}{runner.spread_of(ratios).text(1)} times sooner"
        lines.append(f"**{OURS} was there {sooner}**, over {len(ratios)} of {seeds} seeds.")
    elif found:
        lines.append(f"{OURS} reached the best peer's lowest loss in {len(ratios)} of {len(found)} compared seeds.")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
