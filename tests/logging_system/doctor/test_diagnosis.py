"""All rules together: the default run, young runs, damaged numbers, and the tags and constants that are named."""

import ast
import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import logging_system.doctor
from config import Config
from logging_system.doctor.diagnosis import RULES, as_json, as_markdown, as_text, diagnose
from logging_system.doctor.finding import Finding, Unknown
from logging_system.files.scalar_history import ScalarHistory, tag_expression
from tests.dashboard_tags import TAG_TABLE

Build = Callable[..., ScalarHistory]
SOURCES = sorted(Path(logging_system.doctor.__file__).parent.glob("*.py"))
MOTION = "12_Generated_Samples/Motion_Energy_Ratio"
GAP = "02_Loss_Components/Validation/Text_Gap_Shuffled"


def _texts(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_the_default_run_has_noisy_samples_and_nothing_else(history_with: Build, config: dict[str, object]) -> None:
    diagnosis = diagnose(history_with({}), config)
    assert [finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings)] == ["Noisy samples"]
    assert diagnosis.problems == ()
    # Whether the clips stand still cannot be seen behind so much grain.
    assert [opinion.rule for opinion in diagnosis.unknown] == ["Frozen samples"]
    assert len(diagnosis.healthy) == len(RULES) - 2
    assert (
        diagnosis.verdict
        == "Step 1200: 1 warning (noisy samples); 18 of 20 checks are healthy, 1 cannot be judged yet."
    )


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.__name__)
def test_no_rule_judges_a_run_without_metrics(rule: Callable[..., object], config: dict[str, object]) -> None:
    for constants in (config, {}):
        opinion = rule(ScalarHistory(), constants)
        assert isinstance(opinion, Unknown)
        assert opinion.missing.endswith(".")


@pytest.mark.parametrize("until", range(10, 1200, 30))
def test_no_false_alarm_while_the_default_run_goes_on(
    until: int, curves: dict[str, dict[int, float]], history_of: Build, config: dict[str, object]
) -> None:
    young = {tag: {step: value for step, value in curve.items() if step <= until} for tag, curve in curves.items()}
    diagnosis = diagnose(history_of(young), config)
    found = {finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings)}
    assert found == ({"Noisy samples"} if until >= 300 else set())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, -1.0, 1e308])
@pytest.mark.parametrize("which", ["all", "last", "every other"])
def test_no_value_crashes_a_rule(
    value: float,
    which: str,
    curves: dict[str, dict[int, float]],
    history_of: Build,
    config: dict[str, object],
) -> None:
    for tag, curve in curves.items():
        steps = list(curve)
        spoilt = {"all": steps, "last": steps[-1:], "every other": steps[::2]}[which]
        curves[tag] = {**curve, **dict.fromkeys(spoilt, value)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "overflow encountered")  # sums of the largest numbers may be infinite
        for constants in (config, {}):
            diagnosis = diagnose(history_of(curves), constants)
            json.dumps(as_json(diagnosis), allow_nan=False)
            assert as_markdown(diagnosis)
            assert as_text(diagnosis)


@pytest.mark.parametrize("dropped", range(0, 40, 3))
def test_an_absent_metric_is_never_a_finding(
    dropped: int, curves: dict[str, dict[int, float]], history_of: Build, config: dict[str, object]
) -> None:
    kept = {
        tag: curve for number, (tag, curve) in enumerate(curves.items()) if number % 40 not in (dropped, dropped + 1)
    }
    diagnosis = diagnose(history_of(kept), {**config, "LR_WARMUP_STEPS": None})
    assert {finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings)} <= {"Noisy samples"}


def test_problems_come_before_warnings_and_carry_everything(history_with: Build, config: dict[str, object]) -> None:
    no_gap = {GAP: dict.fromkeys(range(100, 1201, 100), 0.0), "12_Generated_Samples/Retrieval_Top1": None}
    history = history_with({**no_gap, "01_Training/Loss": {1200: math.nan}})
    diagnosis = diagnose(history, config)
    assert diagnosis.verdict.startswith("Step 1200: 2 problems (diverged, text ignored) and 1 warning (noisy samples);")
    for words in (as_text(diagnosis), as_markdown(diagnosis).replace("\\", "")):
        parts = [words.lower().index(part) for part in (": diverged", ": text ignored", ": noisy samples", "healthy\n")]
        assert parts == sorted(parts)
        for finding in (*diagnosis.problems, *diagnosis.warnings):
            for part in (finding.verdict, finding.explanation, finding.remedy, *(at.tag for at in finding.evidence)):
                assert part in words
    written = json.loads(json.dumps(as_json(diagnosis), allow_nan=False))
    assert [finding["rule"] for finding in written["findings"]] == ["Diverged", "Text ignored", "Noisy samples"]
    assert written["findings"][0]["evidence"] == [{"tag": "01_Training/Loss", "step": 1200, "value": "NaN"}]
    assert written["verdict"] == diagnosis.verdict


def test_young_runs_are_said_to_be_young(history_of: Build, config: dict[str, object]) -> None:
    assert diagnose(ScalarHistory(), config).verdict == "Step 0: too early to judge."
    diagnosis = diagnose(history_of({"01_Training/Loss": {10: 0.5}}), config)
    assert diagnosis.verdict == "Step 10: nothing wrong was found; 1 of 20 checks is healthy, 19 cannot be judged yet."


def test_every_tag_that_is_named_exists() -> None:
    expressions = [tag_expression(tag) for tag in TAG_TABLE]
    named = {
        tag for path in SOURCES for text in _texts(path) for tag in re.findall(r"\d\d_[A-Z]\w+/[\w/{}]*[\w}]", text)
    }
    assert len(named) > 25
    unknown = [tag for tag in named if not any(expression.fullmatch(tag) for expression in expressions)]
    assert unknown == []


def test_every_constant_that_is_named_exists() -> None:
    named = {
        name for path in SOURCES for text in _texts(path) for name in re.findall(r"\b[A-Z]{2,}(?:_[A-Z0-9]+)+\b", text)
    }
    assert len(named) > 25
    assert named - Config.model_fields.keys() == {"EMA_MEMORY_STEPS"}


def test_every_finding_has_evidence_and_a_remedy(
    curves: dict[str, dict[int, float]], history_of: Build, config: dict[str, object]
) -> None:
    bad = {tag: {step: 1e3 * (1 + step) for step in curve} for tag, curve in curves.items()}
    still = {tag: {step: value * 1e-9 for step, value in curve.items()} for tag, curve in curves.items()}
    opinions = [rule(history_of(run), config) for run in (bad, still) for rule in RULES.values()]
    findings = [opinion for opinion in opinions if isinstance(opinion, Finding)]
    assert len(findings) >= 8
    for finding in findings:
        assert finding.evidence
        assert finding.verdict.endswith(".")
        assert re.search(r"[A-Z]{2,}_[A-Z]|logging_errors", finding.remedy), finding.rule
