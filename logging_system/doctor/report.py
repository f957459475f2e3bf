"""A diagnosis in words: Markdown for the dashboard, plain text for the terminal, JSON for scripts."""

import dataclasses

from logging_system.doctor.diagnosis import Diagnosis
from logging_system.doctor.finding import Evidence, Finding
from logging_system.files.scalar_history import json_number
from logging_system.pictures.markdown import escape

HEALTHY = "Healthy"
UNKNOWN = "Cannot be judged yet"


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
    return {
        "step": diagnosis.step,
        "verdict": diagnosis.verdict,
        "findings": [_finding_as_json(finding) for finding in (*diagnosis.problems, *diagnosis.warnings)],
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


def _finding_as_json(finding: Finding) -> dict[str, object]:
    evidence = [{**dataclasses.asdict(point), "value": json_number(point.value)} for point in finding.evidence]
    return {**dataclasses.asdict(finding), "evidence": evidence}
