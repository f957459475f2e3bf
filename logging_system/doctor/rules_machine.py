"""Is the computer the trouble: slow data, growing memory, a full disk, failing logging?"""

import numpy
from numpy.typing import NDArray

from logging_system.doctor.finding import (
    RECENT_POINTS,
    Constants,
    Finding,
    Healthy,
    Opinion,
    Signs,
    Unknown,
    last_point,
    launch_start,
    of_this_launch,
    points,
    recent_median,
)
from logging_system.files.scalar_history import ScalarHistory, ScalarSeries

SPREAD_TAG = "05_Performance/Rank_Spread_Percent"
SLOWEST_TAG = "05_Performance/Slowest_Rank"
WAIT_TAG = "05_Performance/Data_Wait_Percent"
UTILISATION_TAG = "14_System/GPU_Utilization_Percent"
OVERHEAD_TAG = "05_Performance/Logging_Overhead_Percent"
FAILURES_TAG = "05_Performance/Logging_Failures"
DROPPED_TAG = "05_Performance/Dropped_Videos"
DISK_TAG = "14_System/Disk_Free_GB"
MEMORY_TAGS = (
    "14_System/Process_RSS_GB",
    "14_System/Loader_RSS_GB",
    "14_System/GPU_Memory_Allocated_GB",
    "14_System/MPS_Memory_Allocated_GB",
    "14_System/MPS_Driver_Memory_GB",
)

# Data. A tenth of the time lost is worth an afternoon of anybody's work in a run of days.
WAIT_PERCENT = 10.0
LEAST_WAIT_POINTS = 3
# A GPU works through a queue, so the host may wait for data while the GPU has not noticed.
BUSY_PERCENT = 90.0

# Several processes. A process that is slower by chance is not the same one most of the time.
SPREAD_PERCENT = 10.0
LEAST_SPREAD_POINTS = 5
SAME_RANK_SHARE = 0.5

# Memory. Allocators settle during the first half of a launch; what still climbs through the second half by a tenth, and
# by more than the size of a few batches, does not settle.
LEAST_READINGS = 20
GROWTH_SHARE = 0.1
GROWTH_GIGABYTES = 0.2
MOST_READINGS = 200  # for the slope, whose cost grows with the square

# Logging and disk. The first steps are dominated by what is written once.
OVERHEAD_PERCENT = 2.0
LEAST_OVERHEAD_STEPS = 200
DISK_GIGABYTES = 2.0  # a few checkpoints of a middling model


def data_bound(history: ScalarHistory, config: Constants) -> Opinion:
    """Training that waits for its data."""
    wait = of_this_launch(history, WAIT_TAG)
    if len(wait) < LEAST_WAIT_POINTS:
        return _needs_points(wait, LEAST_WAIT_POINTS)
    percent = recent_median(wait)
    if percent <= WAIT_PERCENT:
        return Healthy(f"{percent:.1f} % of the time is spent waiting for data.")
    busy = recent_median(of_this_launch(history, UTILISATION_TAG))
    if busy >= BUSY_PERCENT:
        return Healthy(f"the host waits for data {percent:.0f} % of the time, but the GPU is busy {busy:.0f} %.")
    explanation = (
        f"{percent:.0f} % of the time is spent waiting for data (median of the recent points); a few percent are usual."
    )
    remedy = (
        "Raise NUM_WORKERS up to the number of CPU cores. Raise CACHE_LIMIT_GB if the clips do not fit, and put "
        "CACHE_DIR on a fast disk; smaller source videos decode faster."
    )
    return Finding("warning", "Training waits for data.", explanation, (last_point(wait),), remedy)


def straggler(history: ScalarHistory, config: Constants) -> Opinion:
    """One of several processes that the others wait for."""
    spread = of_this_launch(history, SPREAD_TAG)
    if len(spread) == 0 and len(history.series(WAIT_TAG).since(launch_start(history))) > 0:
        return Healthy("one process trains alone, and waits for no other.")
    if len(spread) < LEAST_SPREAD_POINTS:
        return _needs_points(spread, LEAST_SPREAD_POINTS)
    percent = recent_median(spread)
    ranks = history.series(SLOWEST_TAG).finite().newest(RECENT_POINTS).values.astype(int)
    rank = int(numpy.bincount(ranks).argmax())
    share = float((ranks == rank).mean())
    if percent <= SPREAD_PERCENT or share <= SAME_RANK_SHARE:
        return Healthy(f"the slowest process costs the others {percent:.1f} % of a step, and it is not one alone.")
    explanation = (
        f"the others wait for rank {rank} during {percent:.0f} % of a step (median of the recent points); it was the "
        f"slowest at {100 * share:.0f} % of them."
    )
    remedy = (
        "Look at that process's machine: another program on it, a hot or throttled GPU, a slow disk under CACHE_DIR. "
        "torchrun gives ranks machine by machine."
    )
    return Finding("warning", f"Rank {rank} is slower than the others.", explanation, (last_point(spread),), remedy)


def _needs_points(series: ScalarSeries, least: int) -> Unknown:
    have = points(len(series), "point")
    return Unknown(f"It needs {least} points of {series.tag}; so far {have} (ENABLE_PERFORMANCE_PROFILING).")


def memory_growth(history: ScalarHistory, config: Constants) -> Opinion:
    """Memory that climbs through the second half of the current launch."""
    signs = Signs()
    healthy: list[str] = []
    for tag in MEMORY_TAGS:
        series = of_this_launch(history, tag)
        if len(series) < LEAST_READINGS:
            continue
        half = series.since(int(series.steps[0] + series.steps[-1]) // 2)
        if len(half) < LEAST_READINGS:
            continue
        level = float(numpy.median(half.values))
        chosen = numpy.linspace(0, len(half) - 1, min(len(half), MOST_READINGS)).astype(int)
        thinned = half.where(numpy.isin(numpy.arange(len(half)), chosen))
        growth = robust_slope(thinned) * float(half.steps[-1] - half.steps[0])
        if growth > GROWTH_SHARE * level and growth > GROWTH_GIGABYTES:
            first, last = half.steps[0], half.steps[-1]
            sentence = f"{tag} grew by {growth:.2f} GB from step {first} to {last}, to {half.values[-1]:.2f} GB."
            signs.add("warning", sentence, last_point(half))
        else:
            healthy.append(f"{tag} stays near {level:.2f} GB")
    if signs.sentences:
        remedy = (
            "If NUM_WORKERS 0 ends it, a loader process is the cause. Turning off ENABLE_VIDEO_LOGGING or "
            "ENABLE_NOISE_VISUALIZATION for a while tells whether logging is. Until it is found, stop and --resume "
            "now and then: no step is lost."
        )
        return signs.finding("Memory keeps growing.", remedy)
    if not healthy:
        return Unknown(f"It needs {2 * LEAST_READINGS} readings of memory in this launch (SYSTEM_SAMPLE_SECONDS).")
    return Healthy(f"{'; '.join(healthy)}.")


def logging_and_disk(history: ScalarHistory, config: Constants) -> Opinion:
    """Logging that fails or costs too much, and a disk that is nearly full."""
    failures, dropped = of_this_launch(history, FAILURES_TAG), of_this_launch(history, DROPPED_TAG)
    overhead, disk = of_this_launch(history, OVERHEAD_TAG), of_this_launch(history, DISK_TAG)
    if not (len(overhead) or len(disk) or len(failures) or len(dropped)):
        return Unknown(f"It needs {OVERHEAD_TAG} or {DISK_TAG} (LOG_EVERY_STEPS).")
    signs, healthy, remedies = Signs(), [], []
    if len(disk):
        if disk.values[-1] < DISK_GIGABYTES:
            signs.add("problem", f"Only {disk.values[-1]:.2f} GB of the disk are free.", last_point(disk))
            remedies.append("Free some space, lower KEEP_CHECKPOINTS or CACHE_LIMIT_GB, or move LOG_DIR.")
        healthy.append(f"{disk.values[-1]:.0f} GB are free")
    if len(failures) and failures.values[-1] > 0:
        signs.add("warning", f"Logging failed {failures.values[-1]:.0f} times in this launch.", last_point(failures))
        remedies.append("The console says what failed, and logging_errors.log in the run folder where a category did.")
    if len(dropped) and dropped.values[-1] > 0:
        signs.add("warning", f"{dropped.values[-1]:.0f} videos were given up.", last_point(dropped))
        remedies.append("Raise SAMPLE_EVERY_STEPS.")
    if len(overhead) and overhead.steps[-1] - launch_start(history) >= LEAST_OVERHEAD_STEPS:
        if overhead.values[-1] > OVERHEAD_PERCENT:
            signs.add("warning", f"Logging takes {overhead.values[-1]:.1f} % of the time.", last_point(overhead))
            remedies.append(
                "Raise LOG_EVERY_STEPS or DIAGNOSTIC_LOG_EVERY_STEPS, or turn ENABLE_GRADIENT_HISTOGRAMS off."
            )
        healthy.append(f"logging takes {overhead.values[-1]:.1f} % of the time")
    if signs.sentences:
        return signs.finding("Logging or the disk needs attention.", " ".join(remedies))
    return Healthy(f"{'; '.join([*healthy, 'nothing failed'])}.")


def robust_slope(series: ScalarSeries) -> float:
    """Return the median of the slopes between all pairs of points (Theil 1950, Sen 1968), per step; needs two points.

    Up to 29 percent of the points may be wild without moving it far.
    """
    first, second = numpy.triu_indices(len(series), k=1)
    steps: NDArray[numpy.float64] = series.steps.astype(numpy.float64)
    return float(numpy.median((series.values[second] - series.values[first]) / (steps[second] - steps[first])))
