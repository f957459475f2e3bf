"""The tables of benchmarks.time_to_loss, as Markdown."""

from collections.abc import Sequence

from benchmarks.allocation import allocation_note
from benchmarks.loss_curves import FailedRun, Lead, LossCurve, LossCurvePlan, leads
from benchmarks.networks import OURS
from benchmarks.spread import spread_of


def report(plan: LossCurvePlan, runs: Sequence[LossCurve | FailedRun]) -> list[str]:
    """Return the lines of the report.

    Args:
        plan: any of the runs' plans, for what they have in common.
    """
    found = leads(runs)
    size = f"3 x {plan.num_frames} x {plan.image_size} x {plan.image_size}"
    return [
        "",
        f"{plan.training_seconds:g} s of training a run, clips of {size}, batch {plan.batch_size}, float32. "
        f"{allocation_note(plan.allocation)} Validation on {plan.validation_clips} clips: the same for all networks "
        f"of a seed, others for every seed. Median over {len({run.seed for run in runs})} seeds (smallest to largest):",
        "",
        *_network_table(runs),
        "",
        *_lead_table(found),
        *_conclusion(found, runs),
    ]


def _network_table(runs: Sequence[LossCurve | FailedRun]) -> list[str]:
    lines = [
        "| network | runs | parameters | learning rate | s a step | steps | always answering 0 | loss before "
        "| lowest loss | loss at the end | text gap at the end |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(run.network for run in runs):
        curves = [run for run in runs if isinstance(run, LossCurve) and run.network == network]
        failures = [run for run in runs if isinstance(run, FailedRun) and run.network == network]
        if curves:
            lines.append(_network_row(network, curves))
        lines += [f"| {network} | seed {run.seed}: {run.reason} |{' |' * 9}" for run in failures]
    return lines


def _network_row(network: str, curves: Sequence[LossCurve]) -> str:
    gaps = [curve.text_gap for curve in curves if curve.text_gap is not None]
    columns = (
        network,
        str(len(curves)),
        f"{curves[0].parameters / 1e6:.2f} M",
        f"{curves[0].learning_rate:g}",
        spread_of([curve.last.seconds / curve.last.step for curve in curves]).text(3),
        spread_of([curve.last.step for curve in curves]).text(0),
        spread_of([curve.predict_zero for curve in curves]).text(4),
        spread_of([curve.points[0].loss for curve in curves]).text(4),
        spread_of([curve.best.loss for curve in curves]).text(4),
        spread_of([curve.last.loss for curve in curves]).text(4),
        spread_of(gaps).text(4) if gaps else "all captions are the same",
    )
    return f"| {' | '.join(columns)} |"


def _lead_table(found: Sequence[Lead]) -> list[str]:
    if not found:
        return []
    return [
        f"| seed | best peer | its lowest loss | reached after | {OURS} there after | ratio |",
        "|---|---|---|---|---|---|",
        *(
            f"| {lead.seed} | {lead.peer} | {lead.loss:.4f} | {lead.peer_seconds:.1f} s | {_our_time(lead)} "
            f"| {_ratio(lead)} |"
            for lead in found
        ),
        "",
    ]


def _our_time(lead: Lead) -> str:
    if lead.our_seconds is None:
        return "not reached"
    return f"{'at most ' if lead.is_bound else ''}{lead.our_seconds:.1f} s"


def _ratio(lead: Lead) -> str:
    if lead.ratio is None:
        return "not reached"
    return f"{'at least ' if lead.is_bound else ''}{lead.ratio:.1f}"


def _conclusion(found: Sequence[Lead], runs: Sequence[LossCurve | FailedRun]) -> list[str]:
    """Say how many times sooner; a headline only where ours got there with every seed that can be compared."""
    seeds = len({run.seed for run in runs})
    ratios = [lead.ratio for lead in found if lead.ratio is not None]
    bound = "at least " if any(lead.is_bound for lead in found) else ""
    lines = []
    if ratios and len(ratios) == len(found):
        lines.append(
            f"**{OURS} was there {bound}{spread_of(ratios).text(1)} times sooner**, "
            f"over {len(ratios)} of {seeds} seeds."
        )
    elif found:
        sooner = f": {bound}{spread_of(ratios).text(1)} times sooner with these" if ratios else ""
        lines.append(
            f"{OURS} reached the best peer's lowest loss in {len(ratios)} of {len(found)} compared seeds{sooner}."
        )
        not_reached = ", ".join(str(lead.seed) for lead in found if lead.ratio is None)
        lines.append(f"{OURS} did not reach it with seed {not_reached}.")
    if len(found) < seeds:
        lines.append(
            f"{seeds - len(found)} of {seeds} seeds have nothing to compare: no curve, or no peer that learned."
        )
    return lines
