"""How many frames clips have, and which pass through a network together."""

import random

import pytest

from config import Config
from data.lengths import FRAME_STEP, ClipLengths, clip_lengths, equal_lengths

NATURAL = ClipLengths(frames_per_second=12.0, min_frames=8, max_frames=32, is_natural=True)


@pytest.mark.parametrize(
    ("seconds", "frames"),
    [
        (0.001, 8),
        (8 / 12, 8),
        (9.99 / 12, 8),
        (10 / 12, 12),  # as near to 8 as to 12
        (13.9 / 12, 12),
        (2.0, 24),
        (32 / 12, 32),
        (33.9 / 12, 32),
        (600.0, 32),
    ],
)
def test_a_clip_has_the_frames_that_are_nearest_to_its_own_duration(seconds: float, frames: int) -> None:
    assert NATURAL.of(seconds) == frames


def test_no_clip_within_the_bounds_is_stretched_by_more_than_half_a_step() -> None:
    for hundredths in range(67, 267):
        frames = NATURAL.of(hundredths / 100)
        assert frames % FRAME_STEP == 0
        assert abs(frames - 12 * hundredths / 100) <= FRAME_STEP / 2


def test_what_is_asked_for_may_last_longer_than_any_in_training() -> None:
    assert NATURAL.asked(5.0) == 60
    assert NATURAL.asked(0.1) == 8
    assert ClipLengths(12.0, 4, 20, is_natural=False).asked(5.0) == 20


@pytest.mark.parametrize("seconds", [0.01, 1.0, 100.0])
def test_stretched_clips_all_have_as_many_frames_and_none_counts_as_shortened(seconds: float) -> None:
    stretched = ClipLengths(12.0, 4, 20, is_natural=False)
    assert stretched.of(seconds) == 20
    assert not stretched.is_shortened(seconds)


def test_a_clip_counts_as_shortened_from_where_the_next_length_would_be_nearer() -> None:
    assert not NATURAL.is_shortened(33.9 / 12)
    assert NATURAL.is_shortened(34.1 / 12)
    wider = ClipLengths(12.0, 8, 36, is_natural=True)
    for seconds in (33.9 / 12, 34.1 / 12):
        assert NATURAL.is_shortened(seconds) == (wider.of(seconds) > 32)


def test_the_lengths_are_those_of_the_constants() -> None:
    config = Config(FRAMES_PER_SECOND=25, MIN_FRAMES=8, MAX_FRAMES=48)
    assert clip_lengths(config) == ClipLengths(25, 8, 48, is_natural=True)
    assert clip_lengths(Config(CLIP_TIMING="stretched")).is_natural is False


def test_clips_pass_together_only_with_their_equals_and_only_as_many_as_may() -> None:
    assert equal_lengths([8, 4, 8, 8, 4], 16) == [[0, 2], [3], [1, 4]]
    assert equal_lengths([40, 4, 40], 16) == [[0], [2], [1]]  # each longer than may pass at once
    assert equal_lengths([], 16) == []


def test_every_clip_is_in_exactly_one_group() -> None:
    drawn = random.Random(0)
    for _ in range(50):
        lengths = [drawn.choice([4, 8, 12, 100]) for _ in range(drawn.randrange(1, 40))]
        most = drawn.choice([1, 8, 30, 1000])
        groups = equal_lengths(lengths, most)
        assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
        for group in groups:
            assert len({lengths[place] for place in group}) == 1
            assert len(group) == 1 or sum(lengths[place] for place in group) <= most
        for frames in set(lengths):  # and no more groups than it takes
            size = max(1, most // frames)
            assert sum(lengths[group[0]] == frames for group in groups) == -(-lengths.count(frames) // size)
