"""All rules applied to one run, and the result in words: for the dashboard, the terminal and scripts."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from common.console import counted
from logging_system.doctor.finding import Constants, Evidence, Finding, Healthy, Opinion, Unknown
from logging_system.doctor.rules_machine import data_bound, logging_and_disk, memory_growth, straggler
from logging_system.doctor.rules_samples import (
    blurred_samples,
    captions_not_read,
    dissolving_hands,
    frozen_samples,
    memorisation,
    misread,
    misspelled,
    noisy_samples,
    overfitting,
    text_ignored,
)
from logging_system.doctor.rules_training import (
    LOSS_TAG,
    diverged,
    gradients_exploding,
    gradients_vanishing,
    learning_rate_too_high,
    not_learning,
    plateau,
)
from logging_system.files.scalar_history import ScalarHistory, json_number
from logging_system.files.summaries import escape

RULES: dict[str, Callable[[ScalarHistory, Constants], Opinion]] = {
    "Captions not read": captions_not_read,  # the first, because it explains others
    "Diverged": diverged,
    "Not learning": not_learning,
    "Learning rate too high": learning_rate_too_high,
    "Gradients vanishing": gradients_vanishing,
    "Gradients exploding": gradients_exploding,
    "Plateau": plateau,
    "Text ignored": text_ignored,
    "Misread": misread,
    "Misspelled": misspelled,
    "Memorisation": memorisation,
    "Overfitting": overfitting,
    "Frozen samples": frozen_samples,
    "Blurred samples": blurred_samples,
    "Hands dissolve": dissolving_hands,
    "Noisy samples": noisy_samples,
    "Data-bound": data_bound,
    "Straggler": straggler,
    "Memory growth": memory_growth,
    "Logging and disk": logging_and_disk,
}

HEALTHY = "Healthy"
UNKNOWN = "Cannot be judged yet"


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
        """The result in one line."""
        if not (self.problems or self.warnings or self.healthy):
            return f"Step {self.step}: too early to judge."
        counts = [
            f"{counted(len(found), what)} ({', '.join(each.rule.lower() for each in found)})"
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
    opinions = [dataclasses.replace(rule(history, config), rule=name) for name, rule in RULES.items()]
    findings = [opinion for opinion in opinions if isinstance(opinion, Finding)]
    steps = history.series(LOSS_TAG).steps
    return Diagnosis(
        step=int(steps[-1]) if len(steps) else 0,
        problems=tuple(finding for finding in findings if finding.severity == "problem"),
        warnings=tuple(finding for finding in findings if finding.severity == "warning"),
        healthy=tuple(opinion for opinion in opinions if isinstance(opinion, Healthy)),
        unknown=tuple(opinion for opinion in opinions if isinstance(opinion, Unknown)),
    )


def as_markdown(diagnosis: Diagnosis) -> str:
    """Return the diagnosis for TensorBoard's Text tab."""
    blocks = [f"**{escape(diagnosis.verdict)}**"]
    for finding in (*diagnosis.problems, *diagnosis.warnings):
        evidence = "\n".join(f"- `{_evidence(point)}`" for point in finding.evidence)
        blocks += [
            f"### {finding.severity.capitalize()}: {escape(finding.rule)}",
            f"{escape(finding.verdict)} {escape(finding.explanation)}",
            f"**What to do:** {escape(finding.remedy)}",
            f"**Evidence**\n\n{evidence}",
        ]
    for heading, lines in _closing_lists(diagnosis):
        blocks += [f"### {heading}", "\n".join(f"- **{escape(rule)}:** {escape(text)}" for rule, text in lines)]
    return "\n\n".join(blocks)


def as_text(diagnosis: Diagnosis) -> str:
    """Return the diagnosis for a terminal."""
    blocks = [diagnosis.verdict]
    for finding in (*diagnosis.problems, *diagnosis.warnings):
        lines = [
            f"{finding.severity.upper()}: {finding.rule}",
            f"  {finding.verdict} {finding.explanation}",
            f"  What to do: {finding.remedy}",
            *(f"  Evidence: {_evidence(point)}" for point in finding.evidence),
        ]
        blocks.append("\n".join(lines))
    for heading, entries in _closing_lists(diagnosis):
        blocks.append("\n".join([heading, *(f"  {rule}: {text}" for rule, text in entries)]))
    return "\n\n".join(blocks)


def as_json(diagnosis: Diagnosis) -> dict[str, object]:
    """Return the diagnosis for `json.dumps`. Numbers that are not finite are "NaN", "Infinity" or "-Infinity"."""
    findings = [dataclasses.asdict(finding) for finding in (*diagnosis.problems, *diagnosis.warnings)]
    for finding in findings:
        finding["evidence"] = [{**point, "value": json_number(point["value"])} for point in finding["evidence"]]
    return {
        "step": diagnosis.step,
        "verdict": diagnosis.verdict,
        "findings": findings,
        "healthy": [dataclasses.asdict(opinion) for opinion in diagnosis.healthy],
        "unknown": [dataclasses.asdict(opinion) for opinion in diagnosis.unknown],
    }


def _closing_lists(diagnosis: Diagnosis) -> list[tuple[str, list[tuple[str, str]]]]:
    lists = [
        (HEALTHY, [(opinion.rule, opinion.verdict) for opinion in diagnosis.healthy]),
        (UNKNOWN, [(opinion.rule, opinion.missing) for opinion in diagnosis.unknown]),
    ]
    return [(heading, entries) for heading, entries in lists if entries]


def _evidence(point: Evidence) -> str:
    return f"{point.tag} = {point.value:.5g} at step {point.step}"
