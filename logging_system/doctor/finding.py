"""What a rule may say about a run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from logging_system.files.scalar_history import ScalarSeries

Severity = Literal["problem", "warning"]
Constants = Mapping[str, object]  # the run's config, by constant name; only JSON's types


@dataclass(frozen=True)
class Evidence:
    """A point of the dashboard that a finding rests on."""

    tag: str
    step: int
    value: float


@dataclass(frozen=True)
class Finding:
    """Something is wrong, or looks so."""

    rule: str
    severity: Severity
    verdict: str  # one sentence
    explanation: str  # the figures, and what they were compared with
    evidence: tuple[Evidence, ...]
    remedy: str  # names constants of config.py


@dataclass(frozen=True)
class Healthy:
    """Nothing is wrong."""

    rule: str
    verdict: str  # one sentence with the figure


@dataclass(frozen=True)
class Unknown:
    """It cannot be judged yet, or in this run."""

    rule: str
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

    def finding(self, rule: str, verdict: str, remedy: str) -> Finding:
        """Return the finding; only for signs of which there is at least one."""
        return Finding(rule, self.severity, verdict, " ".join(self.sentences), tuple(self.evidence), remedy)
