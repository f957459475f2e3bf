"""Text ignored; misspelled; frozen, blurred and noisy samples; memorisation; overfitting."""

import math
from collections.abc import Callable

import pytest

from logging_system.doctor.diagnosis import RULES, diagnose
from logging_system.doctor.finding import Evidence, Finding, Healthy, Unknown
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
from logging_system.files.scalar_history import ScalarHistory

Build = Callable[..., ScalarHistory]
UNREAD = "15_Configuration/Captions_Unread_Percent"
ALIKE = "15_Configuration/Captions_Alike_Percent"
VALIDATION = "02_Loss_Components/Validation/Loss"
GAP = "02_Loss_Components/Validation/Text_Gap_Shuffled"
TRAINED = "02_Loss_Components/Validation/Trained_Loss"
TRAINED_GAP = "02_Loss_Components/Validation/Trained_Text_Gap_Shuffled"
ZERO = "02_Loss_Components/Validation/Predict_Zero_Baseline"
SENSITIVITY = "12_Generated_Samples/Text_Sensitivity"
MOTION = "12_Generated_Samples/Motion_Energy_Ratio"
TOP1 = "12_Generated_Samples/Retrieval_Top1"
TOP1_CEILING = "12_Generated_Samples/Retrieval_Real_Ceiling"
TOP1_FLOOR = "12_Generated_Samples/Retrieval_Shuffled_Floor"
MOVING = "12_Generated_Samples/Moving_Sharpness_Ratio"
SHARPNESS = "12_Generated_Samples/Sharpness_Ratio"
GENERATED = "12_Generated_Samples/Nearest_Training_Distance"
REAL = "12_Generated_Samples/Nearest_Training_Distance_Real"
PLAIN_VALIDATION = "01_Training/Validation_Loss"
EMA = "01_Training/Loss_EMA"


def _validations(
    gaps: tuple[float, ...], losses: tuple[float, ...] = (0.2, 0.2, 0.2), zero: float = 0.672
) -> dict[str, dict[int, float] | None]:
    steps = range(100, 100 * len(gaps) + 1, 100)
    return {
        TOP1: None,
        VALIDATION: dict(zip(steps, losses, strict=True)),
        GAP: dict(zip(steps, gaps, strict=True)),
        ZERO: dict.fromkeys(steps, zero),
    }


@pytest.mark.parametrize(
    ("unread", "alike", "severity"),
    [(0.0, 0.0, None), (2.5, 17.0, "warning"), (3.0, 17.0, "problem"), (0.0, 40.0, "problem"), (2.0, 0.0, "warning")],
)
def test_captions_that_the_model_cannot_tell_apart(
    unread: float, alike: float, severity: str | None, history_with: Build, config: dict[str, object]
) -> None:
    opinion = captions_not_read(history_with({UNREAD: {0: unread}, ALIKE: {0: alike}}), config)
    if severity is None:
        assert isinstance(opinion, Healthy)
        return
    assert isinstance(opinion, Finding)
    assert opinion.severity == severity
    assert opinion.evidence == (Evidence(UNREAD, 0, unread), Evidence(ALIKE, 0, alike))
    assert f"cannot tell {unread + alike:g} % of the captions apart" in opinion.verdict
    assert f"no character of {unread:g} % of the captions, and {alike:g} % differ" in opinion.explanation
    assert ("multilingual" in opinion.remedy, "MAX_CAPTION_LENGTH" in opinion.remedy) == (unread > 0, alike > 0)


def test_captions_that_are_not_read_are_named_before_the_network(
    history_with: Build, config: dict[str, object]
) -> None:
    history = history_with({**_validations((0.0, 0.0, 0.0)), SENSITIVITY: None, UNREAD: {0: 40.0}})
    assert [finding.rule for finding in diagnose(history, config).problems] == ["Captions not read", "Text ignored"]


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ((0.00005, 0.00005, 0.00005), Finding),  # what captions of other clips give
        ((-0.01, -0.01, -0.01), Finding),
        ((0.0, 0.0, 0.0119), Finding),  # the mean of three, 1.98 percent of 0.2
        ((0.0, 0.0, 0.0121), Healthy),
        ((0.004, 0.009, 0.017), Healthy),  # the default run after three validations
    ],
)
def test_a_loss_that_does_not_care_for_the_caption(
    gaps: tuple[float, ...], expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = text_ignored(history_with({**_validations(gaps), SENSITIVITY: None}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert (RULES["Text ignored"], opinion.severity) == (text_ignored, "problem")
        assert opinion.evidence == (Evidence(GAP, 300, gaps[-1]), Evidence(VALIDATION, 300, 0.2))


@pytest.mark.parametrize(("trained_gap", "expected"), [(0.0019, Finding), (0.0021, Healthy)])
def test_where_validation_captions_cannot_be_known_the_captions_of_training_clips_count(
    trained_gap: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    steps = (100, 200, 300)
    of_trained = {TRAINED: dict.fromkeys(steps, 0.1), TRAINED_GAP: dict.fromkeys(steps, trained_gap)}
    opinion = text_ignored(history_with({**_validations((0.0, 0.0, 0.0)), **of_trained, SENSITIVITY: None}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence == (Evidence(TRAINED_GAP, 300, trained_gap), Evidence(TRAINED, 300, 0.1))
    said = opinion.explanation if isinstance(opinion, Finding) else opinion.verdict
    assert "raises the loss of training clips by" in said


def test_training_clips_count_only_while_the_newest_validation_asks_for_them(
    history_with: Build, config: dict[str, object]
) -> None:
    """A resumed run may have clips whose words are known."""
    before = {TRAINED: dict.fromkeys((100, 200, 300), 0.1), TRAINED_GAP: dict.fromkeys((100, 200, 300), 0.0)}
    healthy = _validations((0.1,) * 6, (0.2,) * 6)
    opinion = text_ignored(history_with({**healthy, **before, SENSITIVITY: None}), config)
    assert isinstance(opinion, Healthy)
    assert "training clips" not in opinion.verdict


def test_training_clips_of_one_caption_say_nothing_of_the_text(history_with: Build, config: dict[str, object]) -> None:
    of_trained = {TRAINED: dict.fromkeys((100, 200, 300), 0.1)}
    opinion = text_ignored(history_with({**_validations((0.0, 0.0, 0.0)), **of_trained}), config)
    assert isinstance(opinion, Unknown)
    assert "All clips have the same caption" in opinion.missing


@pytest.mark.parametrize(("gap", "said"), [(0.00006, "by 0.03 %"), (0.0125, "by 6.25 %"), (0.262, "by 131 %")])
def test_the_gap_is_said_in_plain_numbers(
    gap: float, said: str, history_with: Build, config: dict[str, object]
) -> None:
    opinion = text_ignored(history_with(_validations((gap,) * 3)), config)
    assert said in (opinion.explanation if isinstance(opinion, Finding) else opinion.verdict)


def test_only_the_last_three_validations_count(history_with: Build, config: dict[str, object]) -> None:
    forgot = _validations((0.1, 0.1, 0.0, 0.0, 0.0), (0.2,) * 5)
    assert isinstance(text_ignored(history_with(forgot), config), Finding)


@pytest.mark.parametrize(("share", "expected"), [(0.51, Unknown), (0.49, Finding)])
def test_text_is_judged_once_noise_is_removed(
    share: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    curves = _validations((0.0, 0.0, 0.0), (0.3, 0.3, share), zero=1.0)
    opinion = text_ignored(history_with(curves), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Unknown):
        assert "51 %" in opinion.missing


def test_text_needs_three_validations_that_can_be_read(history_with: Build, config: dict[str, object]) -> None:
    two = text_ignored(history_with(_validations((0.0, 0.0, math.nan))), config)
    assert isinstance(two, Unknown)
    assert "so far 2 validations" in two.missing
    equal_captions = text_ignored(history_with({GAP: None}), config)
    assert isinstance(equal_captions, Unknown)
    assert "All clips have the same caption" in equal_captions.missing
    none = text_ignored(history_with({GAP: None, "02_Loss_Components/Validation/Loss": None}), config)
    assert isinstance(none, Unknown)
    assert "so far 0 validations" in none.missing


@pytest.mark.parametrize(("last", "expected"), [(240, Unknown), (260, Finding)])
def test_a_young_model_need_not_read_yet(
    last: int, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    steps = (last - 40, last - 20, last)  # with a warm-up of 100 steps
    curves = {
        "02_Loss_Components/Validation/Loss": dict.fromkeys(steps, 0.28),
        "02_Loss_Components/Validation/Predict_Zero_Baseline": dict.fromkeys(steps, 0.67),
        GAP: dict.fromkeys(steps, 0.004),
        SENSITIVITY: None,
        TOP1: None,
    }
    assert isinstance(text_ignored(history_with(curves), config), expected)


@pytest.mark.parametrize(("sensitivity", "expected"), [(0.19, Finding), (0.21, Healthy)])
def test_samples_that_ignore_the_text(
    sensitivity: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = text_ignored(history_with({SENSITIVITY: {300: 2.0, 600: sensitivity}, TOP1: None}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.severity == "warning"
        assert opinion.evidence[-1] == Evidence(SENSITIVITY, 600, sensitivity)
        assert "GUIDANCE_SCALE" in opinion.remedy


def test_sensitivity_supports_the_finding(history_with: Build, config: dict[str, object]) -> None:
    opinion = text_ignored(history_with({**_validations((0.0, 0.0, 0.0)), SENSITIVITY: {300: 0.01}}), config)
    assert isinstance(opinion, Finding)
    assert opinion.evidence[-1] == Evidence(SENSITIVITY, 300, 0.01)


@pytest.mark.parametrize(
    ("rule", "motion", "sharpness", "severity"),
    [
        (frozen_samples, 0.29, 1.0, "problem"),
        (frozen_samples, 0.31, 1.0, None),
        (blurred_samples, 1.0, 0.59, "warning"),
        (blurred_samples, 1.0, 0.61, None),
        (noisy_samples, 1.99, 1.49, None),
        (noisy_samples, 2.01, 1.49, "warning"),
        (noisy_samples, 1.99, 1.51, "warning"),
    ],
)
def test_samples_at_their_limits(
    rule: Callable[..., object],
    motion: float,
    sharpness: float,
    severity: str | None,
    history_with: Build,
    config: dict[str, object],
) -> None:
    # What came before the latest sampling point would turn every verdict round.
    other = 0.1 if severity is None or rule is noisy_samples else 1.0
    earlier = {300: 9.0 if rule is noisy_samples and severity is None else other}
    history = history_with({MOTION: {**earlier, 600: motion}, SHARPNESS: {**earlier, 600: sharpness}})
    opinion = rule(history, config)
    assert isinstance(opinion, Healthy if severity is None else Finding)
    if isinstance(opinion, Finding):
        assert opinion.severity == severity
        assert {point.step for point in opinion.evidence} == {600}
        assert "step 600" in opinion.explanation


@pytest.mark.parametrize(("error", "expected"), [(0.51, Unknown), (0.49, Finding)])
def test_noise_of_a_model_that_has_not_learned_yet_is_no_finding(
    error: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    steps = range(10, 610, 10)
    tags = {
        "02_Loss_Components/Unweighted_MSE": dict.fromkeys(steps, error),
        "02_Loss_Components/Predict_Zero_Baseline": dict.fromkeys(steps, 1.0),
    }
    assert isinstance(noisy_samples(history_with({**tags, MOTION: {600: 50.0}}), config), expected)


def test_grain_hides_whether_clips_stand_still_or_are_blurred(history_with: Build, config: dict[str, object]) -> None:
    assert isinstance(frozen_samples(history_with({MOTION: {600: 2.01}}), config), Unknown)
    assert isinstance(frozen_samples(history_with({MOTION: {600: 1.99}}), config), Healthy)
    assert isinstance(blurred_samples(history_with({SHARPNESS: {600: 1.51}}), config), Unknown)
    assert isinstance(blurred_samples(history_with({SHARPNESS: {600: 1.49}}), config), Healthy)


def test_both_measures_of_noise_are_named(history_with: Build, config: dict[str, object]) -> None:
    opinion = noisy_samples(history_with({MOTION: {600: 3.0}, SHARPNESS: {600: 2.0}}), config)
    assert isinstance(opinion, Finding)
    assert [point.tag for point in opinion.evidence] == [MOTION, SHARPNESS]


def test_noise_is_judged_by_the_measure_there_is(history_with: Build, config: dict[str, object]) -> None:
    assert isinstance(noisy_samples(history_with({SHARPNESS: None}), config), Finding)  # 2.59 of motion
    assert isinstance(noisy_samples(history_with({MOTION: None}), config), Healthy)
    assert isinstance(noisy_samples(history_with({MOTION: None, SHARPNESS: None}), config), Unknown)


@pytest.mark.parametrize(("generated", "expected"), [(0.11, Healthy), (0.09, Finding), (0.0, Finding)])
def test_copies_of_training_clips(
    generated: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = memorisation(history_with({GENERATED: {300: 0.2, 600: generated}, REAL: {300: 0.2, 600: 0.2}}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.severity == "problem"
        assert opinion.evidence == (Evidence(GENERATED, 600, generated), Evidence(REAL, 600, 0.2))


@pytest.mark.parametrize("real", [None, {600: 0.0}, {600: math.nan}])
def test_memorisation_needs_the_distance_of_real_clips(
    real: dict[int, float] | None, history_with: Build, config: dict[str, object]
) -> None:
    assert isinstance(memorisation(history_with({GENERATED: {600: 0.01}, REAL: real}), config), Unknown)


@pytest.mark.parametrize(
    ("last_three", "training_end", "expected"),
    [
        ((0.2212, 0.2212, 0.2212), 0.05, Finding),
        ((0.23, 0.219, 0.23), 0.05, Healthy),  # one of them within 10 percent
        ((0.23, 0.23, 0.23), 0.15, Healthy),  # training does not fall either
    ],
)
def test_validation_rises_while_training_falls(
    last_three: tuple[float, ...],
    training_end: float,
    expected: type,
    history_with: Build,
    config: dict[str, object],
) -> None:
    validation = {100: 0.5, 200: 0.2, **dict(zip((300, 400, 500), last_three, strict=True))}
    training = {100: 0.3, 200: 0.1, 500: training_end}
    opinion = overfitting(history_with({PLAIN_VALIDATION: validation, EMA: training}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert opinion.evidence[0] == Evidence(PLAIN_VALIDATION, 200, 0.2)
        assert "11 %" in opinion.explanation


def test_overfitting_needs_four_validations(history_with: Build, config: dict[str, object]) -> None:
    three = {100: 0.1, 200: 0.5, 300: 0.5}
    assert isinstance(overfitting(history_with({PLAIN_VALIDATION: three}), config), Unknown)
    assert isinstance(overfitting(history_with({PLAIN_VALIDATION: {**three, 400: 0.5}}), config), Finding)


@pytest.mark.parametrize(
    ("top1", "gap", "expected", "said"),
    [
        (0.1, 0.0, "problem", "The model ignores the text."),
        (0.06, 0.1, "warning", "The loss depends on the text, but generated clips hardly do."),
        (0.20, 0.1, None, "20 % of generated clips"),  # 0.15 of the way: no proof of either
        (0.54, 0.0, None, "54 % of generated clips"),  # a hand is a small part of the loss
        (0.52, 0.0, "problem", "The model ignores the text."),
    ],
)
def test_text_that_clips_show_is_not_ignored_however_small_the_gap(
    top1: float, gap: float, expected: str | None, said: str, history_with: Build, config: dict[str, object]
) -> None:
    changed = {**_validations((gap, gap, gap)), SENSITIVITY: None, TOP1: {1200: top1}}
    opinion = text_ignored(history_with(changed), config)
    if expected is None:
        assert isinstance(opinion, Healthy)
    else:
        assert isinstance(opinion, Finding)
        assert opinion.severity == expected
    assert said in opinion.verdict  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("top1", "ceiling", "expected"),
    [
        ({600: 0.2, 1200: 0.54}, 1.0, Healthy),  # half of the way from 1 / 16
        ({600: 0.5, 1200: 0.52}, 1.0, Finding),
        ({600: 0.46, 1200: 0.52}, 1.0, Unknown),  # still rising
        ({1200: 0.1}, 1.0, Unknown),  # one point shows no direction
        ({600: 0.1, 1200: 0.1}, 0.36, Unknown),  # real clips are hardly found either
        ({600: 0.1, 1200: 0.1}, 0.37, Finding),
        (None, 1.0, Unknown),
    ],
)
def test_signs_are_judged_against_real_ones_where_the_data_can_tell(
    top1: dict[int, float] | None, ceiling: float, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    opinion = misread(history_with({TOP1: top1, TOP1_CEILING: dict.fromkeys((600, 1200), ceiling)}), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert RULES["Misread"] is misread
        assert opinion.evidence[1] == Evidence(TOP1_CEILING, 1200, ceiling)
    if ceiling == 0.36:
        assert isinstance(opinion, Unknown)
        assert opinion.missing.startswith("This data set cannot tell: of real clips 36 %")


@pytest.mark.parametrize(
    ("moving", "whole", "expected"),
    [
        (0.59, 1.1, Finding),
        (0.61, 1.1, Healthy),
        (0.59, None, Finding),
        (0.59, 0.5, Unknown),  # everything is blurred
        (0.59, 1.6, Unknown),  # grain
        (None, 1.1, Unknown),  # real clips that do not move
    ],
)
def test_hands_that_dissolve_before_a_person_who_does_not(
    moving: float | None, whole: float | None, expected: type, history_with: Build, config: dict[str, object]
) -> None:
    changed = {tag: None if value is None else {1200: value} for tag, value in ((MOVING, moving), (SHARPNESS, whole))}
    opinion = dissolving_hands(history_with(changed), config)
    assert isinstance(opinion, expected)
    if isinstance(opinion, Finding):
        assert (RULES["Hands dissolve"], opinion.severity) == (dissolving_hands, "warning")
        assert opinion.evidence[0] == Evidence(MOVING, 1200, 0.59)
    if moving is None:
        assert isinstance(opinion, Unknown)
        assert "this data set cannot tell" in opinion.missing


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
