"""The tables of benchmarks.scaling, in Markdown."""

from collections.abc import Sequence

from benchmarks.scaling_measure import AxisResult, Growth, Point
from benchmarks.scaling_profile import Profile
from benchmarks.spread import Spread

LINEAR_AXES = ("frames", "pixels")


def axis_table(result: AxisResult) -> list[str]:
    """Return one row a setting."""
    first = result.axis.settings[0].label
    return [
        f"| {result.axis.name} | parameters | step | ratio to {first} | peak memory above the start |",
        "|---|---|---|---|---|",
        *(_row(point) for point in result.points),
        "",
    ]


def _row(point: Point) -> str:
    if point.ratio is None:
        return f"| {point.setting.label} | skipped: {point.skipped} | | | |"
    parameters = f"{point.measurements[0].parameters / 1e6:.2f} M"
    memory = point.memory_gib.text(2, "GiB")
    return f"| {point.setting.label} | {parameters} | {_step(point.seconds)} | {point.ratio.text(2)} | {memory} |"


def growth_table(results: Sequence[AxisResult]) -> list[str]:
    """Return the exponents of all axes."""
    return [
        "| size | seconds a step | exponent | of the two largest | memory: exponent | of the two largest |",
        "|---|---|---|---|---|---|",
        *(f"| {result.axis.quantity} | {_law(result)} |" for result in results),
        "",
    ]


def _law(result: AxisResult) -> str:
    seconds, memory = result.seconds, result.memory
    if seconds is None or memory is None:
        return "fewer than two settings could be measured | | | | "
    law = f"{seconds.factor.median:.3g} x size^{seconds.exponent.median:.2f}"
    return f"{law} | {_exponents(seconds)} | {_exponents(memory)}"


def _exponents(growth: Growth) -> str:
    return f"{growth.exponent.text(2)} | {growth.exponent_of_largest_two.text(2)}"


def verdicts(results: Sequence[AxisResult]) -> list[str]:
    """Say of frames and pixels, where they were measured, whether step time grows no faster than they do.

    Neither over the whole axis nor, beyond what the alternations scatter, between the two largest settings, where
    growth that constant costs hide elsewhere would show. A skipped setting is no answer: the largest are what matters.
    """
    lines = []
    for result in results:
        if result.axis.name not in LINEAR_AXES:
            continue
        claim = f"Step time grows no faster than linearly with {result.axis.quantity}"
        if result.seconds is None or any(point.skipped is not None for point in result.points):
            lines.append(f"{claim}: not known, because settings were skipped.")
            continue
        first, last = result.points[0], result.points[-1]
        assert last.ratio is not None
        growth, sizes = last.ratio.median, last.setting.size / first.setting.size
        largest_two = result.seconds.exponent_of_largest_two
        kept = round(growth, 2) <= round(sizes, 2) and round(largest_two.smallest, 2) <= 1
        lines.append(
            f"{claim}: {'kept' if kept else 'missed'} ({growth:.2f} times the time for {sizes:g} times the size; "
            f"exponent {largest_two.text(2)} between the two largest)."
        )
    return lines


def profile_table(profiles: Sequence[Profile]) -> list[str]:
    """Return one column a profile, then the costliest operators of each rest; nothing without a profile."""
    if not profiles:
        return []
    groups = profiles[0].percent_by_group
    return [
        f"| share of the operators' own time | {' | '.join(profile.title for profile in profiles)} |",
        f"|---|{'---|' * len(profiles)}",
        *(
            f"| {group} | {' | '.join(f'{profile.percent_by_group[group]:.1f} %' for profile in profiles)} |"
            for group in groups
        ),
        f"| that time, a step, with the profiler | {' | '.join(f'{profile.seconds:.2f} s' for profile in profiles)} |",
        "",
        *(f"Most of the rest, {profile.title}: {_rest(profile)}." for profile in profiles),
    ]


def _rest(profile: Profile) -> str:
    named = (f"`{name}` {percent:.2f} %" for name, percent in profile.percent_by_rest_operator.items())
    return ", ".join(named) or "nothing"


def _step(spread: Spread) -> str:
    return spread.text(2, "s") if spread.median >= 1 else spread.text(0, "ms", 1000)
