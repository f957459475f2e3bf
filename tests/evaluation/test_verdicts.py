"""Right, text-blind, copied, frozen and dissolved clips get five different verdicts from the evaluation's own code."""

from collections.abc import Callable, Sequence

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from data.records import ClipRow, FixedRows, as_video, to_pixels
from evaluation.clips import Asked, EvaluationClips, Figures, Labelled, RealClips, TrainingHistory
from evaluation.report import (
    agreement_figures,
    frame_figures,
    judge,
    likeness_figures,
    look_figures,
    memorisation_figures,
    moving_figures,
    retrieval_figures,
)
from evaluation.verdict import RIGHT, verdicts
from measures.bootstrap import Interval
from measures.text_video import TextVideoJudge, embed_clips, embed_texts

FRAMES, SIDE = 16, 32
CAPTIONS = tuple(f"sign {number}" for number in range(10))


def signed(caption: str, take: int) -> numpy.ndarray:
    """Return a clip, uint8 [16, 32, 32, 3], of a patterned body before which a hand of four fingers moves."""
    number = CAPTIONS.index(caption)
    body = numpy.random.default_rng(take).integers(40, 90, (8, 8, 3)).repeat(4, 0).repeat(4, 1)
    clip = numpy.repeat(body[None], FRAMES, 0).astype(numpy.uint8)
    hand = numpy.full((8, 8, 3), 20, numpy.uint8)
    hand[:, [0, 2, 4, 6]] = 240
    if number % 2:
        hand = hand.transpose(1, 0, 2)
    moments = numpy.linspace(0, 2 * numpy.pi, FRAMES)
    across, down = 12 + 8 * numpy.sin((1 + number // 4) * moments), 12 + 8 * numpy.cos((1 + number % 4) * moments)
    for frame in range(FRAMES):
        top, left = round(down[frame]), round(across[frame])
        clip[frame, top : top + 8, left : left + 8] = hand
    return clip


def changed(clip: numpy.ndarray, change: Callable[[Tensor], Tensor]) -> numpy.ndarray:
    return to_pixels(change(as_video(torch.from_numpy(clip))))


def dissolved(clip: Tensor) -> Tensor:
    """Blur what moves alone, and make up for the motion that this takes."""
    still = clip.mean(dim=1, keepdim=True)
    haze = functional.avg_pool2d((clip - still).transpose(0, 1), 3, 1, 1).transpose(0, 1)
    return still + 1.25 * haze


REAL = RealClips(
    tuple(Labelled(caption, signed(caption, 1)) for caption in CAPTIONS),
    tuple(Labelled(caption, signed(caption, 2)) for caption in CAPTIONS),
    0,
)


class Stored(FixedRows):
    """The references as training clips."""

    def load(self, row: ClipRow) -> numpy.ndarray:
        return signed(row.caption, 1)


def all_figures(generated: Sequence[numpy.ndarray]) -> Figures:
    asked = tuple(Asked(caption, in_training=True) for caption in CAPTIONS)
    clips = EvaluationClips(asked, tuple(generated), tuple(each.clip for each in REAL.references))
    judged = judge(CAPTIONS, generated, REAL)
    rows = tuple(ClipRow(caption, caption, FRAMES, 1.0) for caption in CAPTIONS)
    history = TrainingHistory(frozenset(CAPTIONS), rows, len(rows))
    unseen = [signed(caption, take) for caption in CAPTIONS for take in (3, 4)]
    return {
        **retrieval_figures(judged, range(len(CAPTIONS)), 0),
        **likeness_figures(judged, 0),
        **moving_figures(clips, REAL, 0),
        **frame_figures(clips, REAL, 0),
        **look_figures(clips, 0),
        **memorisation_figures(clips, history, Stored(rows), unseen, 0),
    }


RUNS = {
    "right": ([signed(caption, 5) for caption in CAPTIONS], RIGHT),
    "text-blind": ([signed(caption, 5) for caption in (*CAPTIONS[1:], CAPTIONS[0])], "The text is ignored: 0%"),
    "copies": ([signed(caption, 1) for caption in CAPTIONS], "Clips are copies: 100%"),
    "noise": (
        [numpy.random.default_rng(place).integers(0, 256, (FRAMES, SIDE, SIDE, 3), numpy.uint8) for place in range(10)],
        "Clips are noisy: they have",
    ),
    "frozen": ([signed(caption, 5)[[3] * FRAMES] for caption in CAPTIONS], "Clips hardly move: they have 0.00 times"),
    "dissolved": (
        [changed(signed(caption, 5), dissolved) for caption in CAPTIONS],
        "Hands dissolve: what moves has",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_each_fault_has_its_own_verdict(name: str) -> None:
    generated, expected = RUNS[name]
    found = verdicts(all_figures(generated), len(CAPTIONS))
    assert any(verdict.startswith(expected) for verdict in found), found
    others = [other.split(":")[0] for kind, (_, other) in RUNS.items() if kind != name]
    if name not in ("frozen", "noise"):  # a frozen clip says nothing, and noise is noise
        assert not any(verdict.startswith(other) for verdict in found for other in others), found


def test_real_clips_in_place_of_generated_ones_reach_the_ceiling() -> None:
    figures = all_figures([each.clip for each in REAL.queries])
    assert figures["retrieval_top1"] == figures["retrieval_real_ceiling"]
    assert figures["retrieval_top5"] == figures["retrieval_real_ceiling_top5"]
    assert figures["kernel_distance"] == figures["kernel_distance_real"]
    of_frames = ("moving_frame_distance", "held_frame_distance", "moving_frame_ratio")
    for name in ("motion_map_agreement", "moving_sharpness_ratio", "moving_error", "density", "coverage", *of_frames):
        assert figures[name] == figures[f"{name}_real"]


def test_real_clips_in_place_of_generated_ones_reach_the_ceiling_of_the_judge_that_learns_too() -> None:
    torch.manual_seed(0)
    text_video = TextVideoJudge("sign 0123456789").eval()  # whatever it says
    clips = [each.clip for each in REAL.queries]
    judged = judge(CAPTIONS, clips, REAL)
    figures = agreement_figures(text_video, judged, clips, REAL, 0)
    for k in (1, 5, 10):
        assert figures[f"r_precision_{k}"] == figures[f"r_precision_{k}_real_ceiling"]
    assert figures["text_distance"] == figures["text_distance_real"]
    frames = embed_clips(text_video, [as_video(torch.from_numpy(clip)) for clip in clips])
    nearest = (frames @ embed_texts(text_video, CAPTIONS).T).argmax(dim=1)
    right = (nearest == torch.arange(len(CAPTIONS))).double()  # the other judge knows all of them
    assert figures["judges_agree"] is not None
    assert figures["judges_agree"].value == pytest.approx(right.mean().item())


def test_a_set_whose_clips_look_alike_cannot_tell() -> None:
    same = RealClips(
        tuple(Labelled(caption, signed("sign 0", 1)) for caption in CAPTIONS),
        tuple(Labelled(caption, signed("sign 0", 2)) for caption in CAPTIONS),
        0,
    )
    judged = judge(CAPTIONS, [each.clip for each in same.queries], same)
    (verdict,) = verdicts(retrieval_figures(judged, range(len(CAPTIONS)), 0), len(CAPTIONS))
    assert verdict.startswith("This data set cannot tell whether clips show what was asked for: ")


def test_one_caption_alone_cannot_be_told_from_others() -> None:
    alone = RealClips(REAL.references[:1], REAL.queries[:1], 0)
    figures = retrieval_figures(judge(CAPTIONS[:1], [signed(CAPTIONS[0], 5)], alone), [0], 0)
    assert set(figures.values()) == {None}
    (verdict,) = verdicts(figures, 1)
    assert verdict.startswith("Too few captions to tell")


def test_a_difference_that_few_captions_make_by_chance_is_none() -> None:
    figures = {
        "retrieval_top1": Interval(0.0, 0.0, 0.0),
        "retrieval_real_ceiling": Interval(0.5, 0.0, 1.0),
        "retrieval_shuffled_floor": Interval(0.0, 0.0, 0.0),
    }
    (verdict,) = verdicts(figures, 10)
    assert verdict.startswith("This data set cannot tell")
    assert verdict.endswith("more captions may tell.")
    figures["retrieval_real_ceiling"] = Interval(0.5, 0.2, 0.8)
    assert verdicts(figures, 10)[0].startswith("The text is ignored: 0%")


@pytest.mark.parametrize(("captions", "can_tell"), [(2, False), (4, False), (5, True)])
def test_a_few_captions_that_are_all_right_may_be_chance(captions: int, can_tell: bool) -> None:
    """Of two captions a clip shows the right one every other time; the interval of two right ones has no width."""
    figures = {
        "retrieval_top1": Interval(1.0, 1.0, 1.0),
        "retrieval_real_ceiling": Interval(1.0, 1.0, 1.0),
        "retrieval_shuffled_floor": Interval(1 / captions, 1 / captions, 1 / captions),
    }
    (verdict,) = verdicts(figures, captions)
    assert (verdict == RIGHT) == can_tell
    assert can_tell or verdict.endswith("it takes 5.")
    figures["retrieval_top1"] = figures["retrieval_shuffled_floor"] = Interval(0.0, 0.0, 0.0)
    (verdict,) = verdicts(figures, captions)
    assert verdict.startswith("The text is ignored: 0%" if can_tell else "Too few captions")


def test_captions_that_only_make_retrieval_harder_are_no_part_of_what_clips_should_be_like() -> None:
    """Three captions are asked for, and the references of seven more are there."""
    asked, wanted = CAPTIONS[:3], slice(0, 3)
    more = RealClips(REAL.references, REAL.queries[wanted], 0)
    alone = RealClips(REAL.references[wanted], REAL.queries[wanted], 0)
    generated = [signed(caption, 5) for caption in asked]
    found, expected = (likeness_figures(judge(asked, generated, real), 0) for real in (more, alone))
    assert found == expected
    assert found["kernel_distance"] is not None
    torch.manual_seed(0)
    text_video = TextVideoJudge("sign 0123456789").eval()
    found, expected = (
        agreement_figures(text_video, judge(asked, generated, real), generated, real, 0) for real in (more, alone)
    )
    assert found == expected
    of_one = agreement_figures(text_video, judge(asked[:1], generated[:1], more), generated[:1], more, 0)
    assert of_one["judges_agree"] is None  # with nothing to choose from, both are always right


def test_a_clip_that_the_training_has_twice_says_nothing_of_how_near_is_too_near() -> None:
    """Ten of forty takes are there twice: to the last bit, and yet a matrix product finds them a little apart."""
    rows = tuple(ClipRow(f"{sign}|{number}", sign, FRAMES, 1.0) for sign in CAPTIONS for number in range(1, 5))
    twice = tuple(ClipRow(f"again|{sign}|1", sign, FRAMES, 1.0) for sign in CAPTIONS)
    asked = tuple(Asked(caption, in_training=True) for caption in CAPTIONS)
    generated = tuple(signed(caption, 2) for caption in CAPTIONS)  # copies
    clips = EvaluationClips(asked, generated, generated)
    history = TrainingHistory(frozenset(CAPTIONS), (*rows, *twice), 50)
    found = memorisation_figures(clips, history, Takes(history.rows), [], 0)
    assert found["memorisation"] is not None
    assert found["memorisation"].value == 1
    assert found["memorisation_chance"] == Interval((1 + 0.05 * 29) / 31, None, None)  # 30 takes are there once


def test_a_handful_of_real_clips_cannot_say_how_near_is_too_near() -> None:
    rows = tuple(ClipRow(f"{sign}|1", sign, FRAMES, 1.0) for sign in CAPTIONS)
    asked = tuple(Asked(caption, in_training=False) for caption in CAPTIONS)
    clips = EvaluationClips(asked, tuple(signed(caption, 1) for caption in CAPTIONS), ())
    history = TrainingHistory(frozenset(), rows, 10)
    unseen = [signed(caption, 3) for caption in CAPTIONS]
    few, some = (memorisation_figures(clips, history, Takes(rows), unseen[:count], 0) for count in (4, 5))
    assert few == {"memorisation": None}
    assert some["memorisation"] is not None
    assert some["memorisation"].value == 1


class Takes(FixedRows):
    """Several takes of each sign, numbered behind the bar of a row's name."""

    def load(self, row: ClipRow) -> numpy.ndarray:
        return signed(row.caption, int(row.id.rpartition("|")[2]))


@pytest.mark.parametrize(("take", "expected"), [(9, 0.0), (2, 1.0)])
def test_a_new_take_of_a_trained_sign_is_no_copy_however_far_other_signs_are(take: int, expected: float) -> None:
    rows = tuple(ClipRow(f"{sign}|{number}", sign, FRAMES, 1.0) for sign in CAPTIONS for number in range(1, 5))
    asked = tuple(Asked(caption, in_training=True) for caption in CAPTIONS)
    generated = tuple(signed(caption, take) for caption in CAPTIONS)
    clips = EvaluationClips(asked, generated, generated)
    history = TrainingHistory(frozenset(CAPTIONS), rows, len(rows))
    far = [255 - signed(caption, 7) for caption in CAPTIONS]  # unseen, and nearly everything is nearer
    found = memorisation_figures(clips, history, Takes(rows), far, 0)["memorisation"]
    assert found is not None
    assert found.value == pytest.approx(expected, abs=0.2)
