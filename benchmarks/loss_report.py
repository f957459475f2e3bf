"""The tables of benchmarks.time_to_loss, as Markdown."""

from collections.abc import Sequence

from benchmarks.loss_curves import OURS, FailedRun, Lead, LossCurve, LossCurvePlan, leads
from benchmarks.spread import Spread, spread_of


def report(plan: LossCurvePlan, runs: Sequence[LossCurve | FailedRun]) -> list[str]:
    """Return the lines of the report.

    Args:
        plan: any of the runs' plans, for what they have in common.
    """
    found = leads(runs)
    size = f"3 x {plan.num_frames} x {plan.image_size} x {plan.image_size}"
    return [
        "",
        f"{plan.training_seconds:g} s of training a run, clips of {size}, batch {plan.batch_size}; "
        f"validation on {plan.validation_clips} fixed clips. Median over the seeds (smallest to largest):",
        "",
        *_network_table(runs),
        "",
        *_lead_table(found),
        *_conclusion(found, runs),
    ]


def _network_table(runs: Sequence[LossCurve | FailedRun]) -> list[str]:
    lines = [
        "| network | runs | parameters | learning rate | s a step | steps | loss before | lowest loss "
        "| loss at the end | text gap at the end |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for network in dict.fromkeys(run.network for run in runs):
        curves = [run for run in runs if isinstance(run, LossCurve) and run.network == network]
        failures = [run for run in runs if isinstance(run, FailedRun) and run.network == network]
        if curves:
            lines.append(_network_row(network, curves))
        lines += [f"| {network} | seed {run.seed}: {run.reason} |{' |' * 8}" for run in failures]
    return lines


def _network_row(network: str, curves: Sequence[LossCurve]) -> str:
    gaps = [curve.text_gap for curve in curves if curve.text_gap is not None]
    columns = (
        network,
        str(len(curves)),
        f"{curves[0].parameters / 1e6:.2f} M",
        f"{curves[0].learning_rate:g}",
        _text(spread_of([curve.last.seconds / curve.last.step for curve in curves]), 3),
        _text(spread_of([curve.last.step for curve in curves]), 0),
        _text(spread_of([curve.points[0].loss for curve in curves]), 4),
        _text(spread_of([curve.best.loss for curve in curves]), 4),
        _text(spread_of([curve.last.loss for curve in curves]), 4),
        _text(spread_of(gaps), 4) if gaps else "all captions are the same",
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
    seeds = len({run.seed for run in runs})
    ratios = [lead.ratio for lead in found if lead.ratio is not None]
    lines = []
    if ratios:
        bound = "at least " if any(lead.is_bound for lead in found) else ""
        lines.append(
            f"**{OURS} was there {bound}{_text(spread_of(ratios), 1)} times sooner**, "
            f"over {len(ratios)} of {seeds} seeds."
        )
    not_reached = [str(lead.seed) for lead in found if lead.ratio is None]
    if not_reached:
        lines.append(f"{OURS} did not reach the best peer's lowest loss with seed {', '.join(not_reached)}.")
    if len(found) < seeds:
        lines.append(
            f"{seeds - len(found)} of {seeds} seeds have nothing to compare: no curve, or no peer that learned."
        )
    return lines


def _text(spread: Spread, digits: int) -> str:
    return spread.text(digits, "").replace("  ", " ")  # the head of the column names the unit
