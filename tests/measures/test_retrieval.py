"""Which caption a clip is nearest to: against a plain double loop, ranks made by hand, and clips that move."""

import math
from collections.abc import Sequence

import numpy
import pytest
import torch
from torch import Tensor

from measures.clips import moving_frames
from measures.retrieval import (
    Ranking,
    another_look,
    clip_features,
    frame_distances,
    frame_pictures,
    rank_captions,
    shuffled_floor_interval,
    top_k_interval,
    warped_distances,
)

PATHS = ("right", "down", "circle", "still")


def moving_square(path: str, frames: int = 12, side: int = 32) -> Tensor:
    """Return a clip [3, T, side, side] of a light square before a dark wall, and a dark bar that stays."""
    clip = torch.full((3, frames, side, side), -0.8)
    clip[:, :, -3:, 4:20] = 0.1
    for frame in range(frames):
        share = frame / (frames - 1)
        down, right = {
            "right": (0.5, share),
            "down": (share, 0.5),
            "circle": (0.5 + 0.5 * math.sin(2 * math.pi * share), 0.5 + 0.5 * math.cos(2 * math.pi * share)),
            "still": (0.5, 0.5),
        }[path]
        top, left = round(4 + down * (side - 16)), round(3 + right * (side - 12))
        clip[:, frame, top : top + 6, left : left + 5] = 0.7
    return clip


def by_plain_loops(first: Tensor, second: Tensor) -> float:
    """The recurrence of Sakoe and Chiba (1978), symmetric, as they write it."""
    best = numpy.full((len(first) + 1, len(second) + 1), math.inf)
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            cost = float((first[i - 1] - second[j - 1]).norm())
            start = 2 * cost if i == j == 1 else math.inf
            best[i, j] = min(start, best[i - 1, j] + cost, best[i, j - 1] + cost, best[i - 1, j - 1] + 2 * cost)
    return float(best[-1, -1]) / (len(first) + len(second))


def test_warped_distances_are_those_of_a_plain_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, references = (
        [torch.randn(frames, 3, generator=generator) for frames in lengths] for lengths in ((1, 4, 7), (5, 1, 7, 3))
    )
    expected = torch.tensor([[by_plain_loops(query, reference) for reference in references] for query in queries])
    torch.testing.assert_close(warped_distances(queries, references), expected, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr("measures.retrieval.MOST_COSTS", 1)  # one query at a time
    torch.testing.assert_close(warped_distances(queries, references), expected, atol=1e-5, rtol=1e-5)


def test_a_clip_is_near_itself_at_half_the_speed_and_far_from_others() -> None:
    described = {path: clip_features(moving_square(path)) for path in PATHS}
    slower = {path: clip_features(moving_square(path).repeat_interleave(2, dim=1)) for path in PATHS}
    distance = warped_distances(list(slower.values()), list(described.values()))
    assert distance.diagonal().max() < 2e-3
    assert distance.masked_fill(torch.eye(len(PATHS), dtype=torch.bool), math.inf).min() > 0.05


def test_features_forgive_place_size_light_and_contrast() -> None:
    clip, other = clip_features(moving_square("circle")), clip_features(moving_square("right"))
    large = torch.nn.functional.interpolate(moving_square("circle").transpose(0, 1), scale_factor=2).transpose(0, 1)
    shown = {
        "moved": moving_square("circle").roll((-2, 3), dims=(2, 3)),
        "enlarged": large,
        "darkened": 0.5 * moving_square("circle") - 0.3,
        "negative": -moving_square("circle"),
    }
    for name, changed in shown.items():
        same, different = warped_distances([clip_features(changed)], [clip, other])[0].tolist()
        assert same < 0.5 * different, name


def test_features_of_clips_that_say_nothing_are_finite() -> None:
    flat = clip_features(torch.zeros(3, 4, 16, 24))
    assert bool(flat.isfinite().all())
    assert clip_features(torch.randn(3, 200, 8, 8)).shape[0] == 64  # however long the clip is
    shapes = clip_features(moving_square("right"))[:, :-2]
    torch.testing.assert_close(shapes.norm(dim=1), torch.ones(len(shapes)))


def test_another_look_is_another_clip_nearest_to_its_own() -> None:
    clips = [moving_square(path) for path in PATHS]
    looks = [another_look(clip, seed) for seed, clip in enumerate(clips)]
    assert torch.equal(looks[0], another_look(clips[0], 0))
    assert len({look.shape[1] for look in looks}) > 1
    for clip, look in zip(clips, looks, strict=True):
        assert -1 <= look.min() < look.max() <= 1
        assert 12 / 1.18 - 1 < look.shape[1] < 12 / 0.85 + 1
        frames = min(clip.shape[1], look.shape[1])
        assert (look[:, :frames] - clip[:, :frames]).abs().mean() > 0.02
    distance = warped_distances([clip_features(look) for look in looks], [clip_features(clip) for clip in clips])
    assert distance.argmin(dim=1).tolist() == [0, 1, 2, 3]


def ranked(distance: list[list[float]], asked: list[str], captions: list[str], pool: int = 100) -> Ranking:
    ranking = rank_captions(torch.tensor(distance), asked, captions, pool, seed=0)
    assert ranking is not None
    return ranking


def test_ranks_are_counted_in_captions() -> None:
    captions = ["cat", "dog", "Cat", "cow"]  # "cat" has two clips, of which one is written otherwise
    ranking = ranked(
        [[5.0, 2.0, 1.0, 3.0], [0.1, 3.0, 0.2, 2.0], [0.1, 0.3, 0.2, 0.4]], ["cat", "DOG", "cow"], captions
    )
    assert ranking.rank_N.tolist() == [0, 2, 2]
    assert ranking.captions == ("cat", "cow", "dog")
    assert ranking.rank_NW.tolist() == [[0, 2, 1], [0, 1, 2], [0, 2, 1]]
    assert top_k_interval(ranking, 1, seed=0).value == pytest.approx(1 / 3)
    assert top_k_interval(ranking, 3, seed=0).value == 1.0
    assert shuffled_floor_interval(ranking, 1, seed=0).value == pytest.approx(1 / 3)


def test_a_pool_holds_the_caption_asked_for_and_the_same_others() -> None:
    captions = [str(number) for number in range(50)]
    distance = torch.arange(50.0).expand(50, -1)  # caption i is nearer than all after it, to every query
    ranking = rank_captions(distance, captions, captions, 10, seed=3)
    assert ranking is not None
    ranks = dict(zip(captions, ranking.rank_N.tolist(), strict=True))
    # Ten captions are everybody's pool but for one; below are the nine that most are ranked among.
    below = sorted(set(ranks.values()))
    assert below == list(range(10))
    values = [ranks[caption] for caption in captions]
    assert values == sorted(values)
    assert rank_captions(distance, captions, captions, 10, seed=4).rank_N.tolist() != values  # type: ignore[union-attr]


def test_one_caption_alone_cannot_be_ranked() -> None:
    assert rank_captions(torch.zeros(2, 2), ["Cat", "cat"], ["cat", "CAT"], 10, seed=0) is None


def test_a_caption_without_a_reference_is_named() -> None:
    with pytest.raises(ValueError, match="'cow'"):
        rank_captions(torch.zeros(1, 2), ["cow"], ["cat", "dog"], 10, seed=0)


@pytest.mark.parametrize("value", [1.0, math.nan, math.inf])
def test_clips_without_information_are_right_by_chance_alone(value: float) -> None:
    captions = [str(number) for number in range(20)]
    ranking = rank_captions(torch.full((400, 20), value), captions * 20, captions, 20, seed=0)
    assert ranking is not None
    share = top_k_interval(ranking, 1, seed=0)
    assert share.value == pytest.approx(1 / 20, abs=3 * (0.05 * 0.95 / 400) ** 0.5)
    assert shuffled_floor_interval(ranking, 1, seed=0).value == pytest.approx(1 / 20)


def test_the_floor_is_that_of_captions_dealt_out_by_lot() -> None:
    distance = torch.rand(12, 12, generator=torch.Generator().manual_seed(0))
    captions = [str(number) for number in range(12)]
    ranking = rank_captions(distance, captions, captions, 6, seed=0)
    assert ranking is not None
    generator = numpy.random.default_rng(0)
    dealt = []
    for _ in range(1000):
        shuffled = [captions[index] for index in generator.permutation(12)]
        again = rank_captions(distance, shuffled, captions, 6, seed=0)
        assert again is not None
        dealt.append((again.rank_N < 1).mean())
    assert shuffled_floor_interval(ranking, 1, seed=0).value == pytest.approx(numpy.mean(dealt), abs=0.01)


def _hands(paths: Sequence[tuple[int, int]], fingers: Sequence[int], side: int = 48) -> Tensor:
    """Return a clip [3, T, side, side] of a hand of coloured fingers at these places."""
    clip = torch.full((3, len(paths), side, side), -0.8)
    for frame, (top, left) in enumerate(paths):
        for place, colour in enumerate(fingers):
            clip[:, frame, top : top + 12, left + 4 * place : left + 4 * place + 3] = -0.5
            clip[colour, frame, top : top + 12, left + 4 * place : left + 4 * place + 3] = 0.9
    return clip


HELD = [(16, 10)] * 6
MOVED = [*HELD, *((16, 10 + 3 * step) for step in range(1, 6)), *[(16, 25)] * 6]


def test_frames_are_compared_wherever_and_in_whatever_light_they_are() -> None:
    real = _hands(MOVED, (0, 1, 2))
    references = frame_pictures(real)
    assert references.shape == (len(MOVED), 3, 32, 32)
    assert references.mean(dim=(0, 2, 3)) == pytest.approx(torch.zeros(3), abs=1e-5)
    assert references.std(dim=(0, 2, 3), correction=0) == pytest.approx(torch.ones(3), abs=1e-5)
    assert frame_distances(references, references) == pytest.approx(torch.zeros(len(MOVED)), abs=1e-3)
    elsewhere = _hands([(top + 9, left + 5) for top, left in MOVED], (0, 1, 2)) * 0.8 + 0.1
    other_fingers = _hands(MOVED, (0, 2, 1))
    same, other = (frame_distances(frame_pictures(clip), references) for clip in (elsewhere, other_fingers))
    assert same.max() < 0.25 * other.min()


def test_a_hand_that_is_a_smear_while_it_moves_is_farther_from_real_frames_where_it_moves() -> None:
    real = _hands(MOVED, (0, 1, 2))
    smear = torch.stack([real[:, max(0, frame - 1) : frame + 2].mean(dim=1) for frame in range(len(MOVED))], dim=1)
    moves = moving_frames(real)
    assert moves.tolist() == [False] * 5 + [True] * 6 + [False] * 6
    distance = frame_distances(frame_pictures(smear), frame_pictures(real))
    assert distance[moves].mean() > 3 * distance[~moves].mean()
