"""Misspelled: letters that a recogniser cannot read, and a recogniser that cannot read."""

from collections.abc import Callable

import pytest

from logging_system.doctor.finding import Evidence, Finding, Healthy, Unknown
from logging_system.doctor.rules_text import misspelled
from logging_system.files.scalar_history import ScalarHistory

Build = Callable[..., ScalarHistory]
RATE = "12_Generated_Samples/Letter_Error_Rate"
CEILING = "12_Generated_Samples/Real_Ceiling"
FLOOR = "12_Generated_Samples/Shuffled_Floor"


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({300: 0.9, 600: 0.11}, Healthy),  # ten points above the ceiling of 0.01
        ({300: 0.12, 600: 0.12}, Finding),
        ({300: 0.5, 600: 0.46}, Finding),
        ({300: 0.5, 600: 0.44}, Unknown),  # still falling
        ({300: 0.1, 600: 0.6}, Finding),  # was better
        ({300: 0.9}, Unknown),  # one point shows no direction
        ({300: 0.02}, Healthy),
    ],
)
def test_letters_are_judged_against_real_ones_once_they_no_longer_get_better(
    rates: dict[int, float], expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = misspelled(history_with({RATE: rates}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        last = max(rates)
        assert opinion.severity == "warning"
        assert opinion.evidence[0] == Evidence(RATE, last, rates[last])


@pytest.mark.parametrize(("ceiling", "expected"), [(0.1, Healthy), (0.11, Finding)])
def test_a_recogniser_that_cannot_read_real_clips_is_said(
    ceiling: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = misspelled(history_with({CEILING: dict.fromkeys((300, 600, 900, 1200), ceiling)}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence == (Evidence(CEILING, 1200, ceiling),)
        assert "RECOGNISER_STEPS" in opinion.remedy


def test_other_data_is_not_judged(history_with: Build, config: dict[str, object]) -> None:
    opinion = misspelled(history_with({RATE: None, CEILING: None, FLOOR: None}), config)
    assert isinstance(opinion, Unknown)
    assert "RECOGNISER_STEPS" in opinion.missing
