"""All rules applied to one run."""

from collections.abc import Callable
from dataclasses import dataclass

from logging_system.doctor.finding import Constants, Finding, Healthy, Opinion, Unknown
from logging_system.doctor.rules_generalisation import memorisation, overfitting
from logging_system.doctor.rules_loss import LOSS_TAG, diverged, not_learning, plateau
from logging_system.doctor.rules_machine import data_bound, logging_and_disk, memory_growth, straggler
from logging_system.doctor.rules_optimizer import gradients_exploding, gradients_vanishing, learning_rate_too_high
from logging_system.doctor.rules_samples import blurred_samples, frozen_samples, noisy_samples
from logging_system.doctor.rules_spelling import misspelled
from logging_system.doctor.rules_text import text_ignored
from logging_system.files.scalar_history import ScalarHistory

RULES: tuple[Callable[[ScalarHistory, Constants], Opinion], ...] = (
    diverged,
    not_learning,
    learning_rate_too_high,
    gradients_vanishing,
    gradients_exploding,
    plateau,
    text_ignored,
    misspelled,
    memorisation,
    overfitting,
    frozen_samples,
    blurred_samples,
    noisy_samples,
    data_bound,
    straggler,
    memory_growth,
    logging_and_disk,
)


@dataclass(frozen=True)
class Diagnosis:
    """What the rules say about a run."""

    step: int  # of the newest point of the training loss; 0 before the first
    problems: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    healthy: tuple[Healthy, ...]
    unknown: tuple[Unknown, ...]

    @property
    def verdict(self) -> str:
        """The whole in one line."""
        if not (self.problems or self.warnings or self.healthy):
            return f"Step {self.step}: too early to judge."
        counts = [
            f"{len(found)} {what}{'s' if len(found) > 1 else ''} ({', '.join(each.rule.lower() for each in found)})"
            for found, what in ((self.problems, "problem"), (self.warnings, "warning"))
            if found
        ]
        rest = f"{len(self.healthy)} of {len(RULES)} checks {'is' if len(self.healthy) == 1 else 'are'} healthy"
        if self.unknown:
            rest += f", {len(self.unknown)} cannot be judged yet"
        return f"Step {self.step}: {' and '.join(counts) or 'nothing wrong was found'}; {rest}."


def diagnose(history: ScalarHistory, config: Constants) -> Diagnosis:
    """Apply every rule.

    Args:
        history: every scalar of the run so far.
        config: the run's constants by name, as in its config.json. A rule whose constant is missing says so or does
            without.
    """
    opinions = [rule(history, config) for rule in RULES]
    findings = [opinion for opinion in opinions if isinstance(opinion, Finding)]
    steps = history.series(LOSS_TAG).steps
    return Diagnosis(
        step=int(steps[-1]) if len(steps) else 0,
        problems=tuple(finding for finding in findings if finding.severity == "problem"),
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        healthy=tuple(opinion for opinion in opinions if isinstance(opinion, Healthy)),
        unknown=tuple(opinion for opinion in opinions if isinstance(opinion, Unknown)),
    )
