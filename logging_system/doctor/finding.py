"""What a rule may say about a run, and what several rules read from its history."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy
from numpy.typing import NDArray

from logging_system.files.scalar_history import ScalarHistory, ScalarSeries

Severity = Literal["problem", "warning"]
Constants = Mapping[str, object]  # the run's config, by constant name; only JSON's types

RECENT_POINTS = 10  # "now", for curves whose single points are noisy
EMA_MEMORY_STEPS = 100  # of 01_Training/Loss_EMA: 1 / (1 - 0.99)
LAUNCH_TAG = "08_Model_Architecture/Total_Parameters"  # written once at the start of every launch
LOSS_EMA_TAG = "01_Training/Loss_EMA"
LEARNING_RATE_TAG = "01_Training/Learning_Rate"


@dataclass(frozen=True)
class Evidence:
    """A point of the dashboard that a finding rests on."""

    tag: str
    step: int
    value: float


@dataclass(frozen=True)
class Finding:
    """Something is wrong, or looks so."""

    rule: str = field(default="", kw_only=True)  # its name; filled in by `diagnose`
    severity: Severity
    verdict: str  # one sentence
    explanation: str  # the figures, and what they were compared with
    evidence: tuple[Evidence, ...]
    remedy: str  # names constants of config.py


@dataclass(frozen=True)
class Healthy:
    """Nothing is wrong."""

    rule: str = field(default="", kw_only=True)
    verdict: str  # one sentence with the figure


@dataclass(frozen=True)
class Unknown:
    """It cannot be judged yet, or in this run."""

    rule: str = field(default="", kw_only=True)
    missing: str  # what would be needed, as a sentence


Opinion = Finding | Healthy | Unknown


def last_point(series: ScalarSeries) -> Evidence:
    """Return the newest point of a series that has one."""
    return Evidence(series.tag, int(series.steps[-1]), float(series.values[-1]))


@dataclass
class Signs:
    """What speaks for one finding, gathered sign by sign; the worst sign decides the severity."""

    sentences: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    severity: Severity = "warning"

    def add(self, severity: Severity, sentence: str, *evidence: Evidence) -> None:
        self.sentences.append(sentence)
        self.evidence.extend(evidence)
        if severity == "problem":
            self.severity = severity

    def finding(self, verdict: str, remedy: str) -> Finding:
        """Return the finding; only for signs of which there is at least one."""
        return Finding(self.severity, verdict, " ".join(self.sentences), tuple(self.evidence), remedy)


def launch_start(history: ScalarHistory) -> int:
    """Return the first step of the newest launch: 0 for a run that was never resumed."""
    starts = history.series(LAUNCH_TAG).steps
    return int(starts[-1]) if len(starts) else 0


def of_this_launch(history: ScalarHistory, tag: str) -> ScalarSeries:
    """Return the finite points that the newest launch logged: an earlier one may have had other data or weighting."""
    return history.series(tag).finite().since(launch_start(history))


def settled_loss(history: ScalarHistory) -> ScalarSeries:
    """Return the finite points of Loss_EMA, without EMA_MEMORY_STEPS after each resume: they are noisy."""
    series = history.series(LOSS_EMA_TAG).finite()
    for start in history.series(LAUNCH_TAG).steps:
        if start > 0:
            series = series.where((series.steps < start) | (series.steps >= start + EMA_MEMORY_STEPS))
    return series


def recent_median(series: ScalarSeries, count: int = RECENT_POINTS) -> float:
    """Return the median of the newest finite points; NaN where there is none."""
    values = series.finite().newest(count).values
    return float(numpy.median(values)) if len(values) else math.nan


@dataclass(frozen=True)
class LayerValues:
    """The values of a per-layer tag at one step."""

    pattern: str
    step: int
    values: Mapping[str, float]  # by layer, finite, at least one

    def evidence(self, layer: str) -> Evidence:
        return Evidence(self.pattern.format(layer=layer), self.step, self.values[layer])


def per_layer(history: ScalarHistory, pattern: str, after: float) -> LayerValues | None:
    """Return the values of a tag pattern with {layer} at its latest step beyond `after`; None where there are none."""
    found = [series.finite() for series in history.matching(pattern)]
    step = max((int(series.steps[-1]) for series in found if len(series)), default=0)
    here = {series.tag.split("/")[1]: series.at(step) for series in found}
    values = {layer: value for layer, value in here.items() if value is not None}
    return LayerValues(pattern, step, values) if values and step > after else None


def aligned(history: ScalarHistory, *tags: str) -> tuple[NDArray[numpy.int64], NDArray[numpy.float64]]:
    """Return the steps at which all tags are finite, [N], and their values there, [tags, N]."""
    all_series = [history.series(tag).finite() for tag in tags]
    steps = all_series[0].steps
    for series in all_series[1:]:
        steps = numpy.intersect1d(steps, series.steps)
    return steps, numpy.stack([series.values[numpy.isin(series.steps, steps)] for series in all_series])


def rate_fraction(history: ScalarHistory, config: Constants) -> float:
    """Return the newest learning rate as a share of the launch's peak; NaN where that is unknown."""
    rates = of_this_launch(history, LEARNING_RATE_TAG)
    if not len(rates):
        return math.nan
    peak = max(float(rates.values.max()), number(config, "LEARNING_RATE") or 0.0)
    return float(rates.values[-1]) / peak if peak > 0 else math.nan


def number(config: Constants, name: str) -> float | None:
    """Return a constant that is a number; None where the config lacks it or holds something else."""
    value = config.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
