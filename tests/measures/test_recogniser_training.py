"""The recogniser is trained once and kept, on clips of which some letters are spoiled."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, WordSplit
from measures.recogniser_training import SPOILED_SHARE, RecogniserWords, open_recogniser, shown_frames, spoil_letters
from tests.grids import mostly_slow


class Counter:
    """Counts the training steps."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, step: int, loss: float) -> None:
        self.steps += 1


@pytest.fixture
def words(tmp_path: Path) -> RecogniserWords:
    _, letters = load_letters("ase")
    alphabet = Alphabet(("A", "B"), "en", "ase")
    split = WordSplit(alphabet, 2, 0.2, 0.1, seed=0)
    return RecogniserWords(WordRenderer(alphabet, letters, 4, 16, ClipCache(tmp_path / "clips", 10**6)), split, seed=0)


def test_a_second_run_gets_the_stored_one(words: RecogniserWords, tmp_path: Path) -> None:
    first, second = Counter(), Counter()
    trained = open_recogniser(words, 2, tmp_path, first)
    stored = open_recogniser(words, 2, tmp_path, second)
    assert (first.steps, second.steps) == (2, 0)
    clip = torch.rand(1, 3, 4, 16, 16) * 2 - 1
    assert torch.equal(trained(clip).ctc_BTK, stored(clip).ctc_BTK)
    assert not stored.training
    assert not any(parameter.requires_grad for parameter in stored.parameters())


@pytest.mark.parametrize(
    "change", mostly_slow(["steps", "seed", "max_letters", "word_fraction", "image_size", "num_frames"], fast=2)
)
def test_anything_that_matters_makes_another_one(words: RecogniserWords, tmp_path: Path, change: str) -> None:
    open_recogniser(words, 2, tmp_path, Counter())
    changed = {
        "seed": dataclasses.replace(words, seed=1),
        "max_letters": dataclasses.replace(words, split=dataclasses.replace(words.split, max_word_letters=3)),
        "word_fraction": dataclasses.replace(words, split=dataclasses.replace(words.split, held_out_word_fraction=0.3)),
        "image_size": dataclasses.replace(words, renderer=dataclasses.replace(words.renderer, image_size=18)),
        "num_frames": dataclasses.replace(words, renderer=dataclasses.replace(words.renderer, num_frames=5)),
    }.get(change, words)
    counter = Counter()
    open_recogniser(changed, 3 if change == "steps" else 2, tmp_path, counter)
    assert counter.steps > 0


@pytest.mark.parametrize("damage", [b"", b"no weights", None])
def test_a_damaged_one_is_trained_again_and_said(
    words: RecogniserWords, tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    open_recogniser(words, 2, tmp_path, Counter())
    (path,) = (tmp_path / "recognisers").iterdir()
    path.write_bytes(path.read_bytes()[:-8] if damage is None else damage)
    counter = Counter()
    with caplog.at_level(logging.WARNING):
        open_recogniser(words, 2, tmp_path, counter)
    assert counter.steps == 2
    assert "cannot be used and is trained again" in caplog.text
    again = Counter()
    open_recogniser(words, 2, tmp_path, again)
    assert again.steps == 0


def test_a_cache_that_cannot_be_written_costs_the_next_run_its_time_alone(
    words: RecogniserWords, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert open_recogniser(words, 2, tmp_path / "file", Counter()).read(torch.zeros(1, 3, 4, 16, 16)) is not None
    assert "the next run trains it again" in caplog.text


@pytest.mark.parametrize(
    ("letters", "frames", "expected"),
    [
        (1, 4, [(0, 4)]),
        (2, 4, [(0, 2), (2, 4)]),
        (2, 5, [(0, 2), (2, 5)]),  # the middle frame's centre is on the border: it belongs to what follows
        (3, 16, [(0, 5), (5, 11), (11, 16)]),
        (4, 4, [(0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_a_letter_has_the_frames_whose_centres_are_in_its_share(letters, frames, expected):
    assert [shown_frames(letter, letters, frames) for letter in range(letters)] == expected


@pytest.mark.parametrize("letters", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("frames", [8, 13, 16])
def test_every_frame_belongs_to_one_letter(letters, frames):
    edges = [shown_frames(letter, letters, frames) for letter in range(letters)]
    assert [frame for first, last in edges for frame in range(first, last)] == list(range(frames))


def anything(word):
    return True


def striped_clips(count, frames=12, size=16):
    """Clips with a bright stripe at a place of its own in every clip, on a flat dark ground."""
    video = torch.full((count, 3, frames, size, size), -0.8)
    for index in range(count):
        video[index, :, :, :, index % size] = 0.9
    return video


def test_only_the_frames_of_one_letter_change_and_about_the_wanted_share_of_clips():
    clips, words = striped_clips(300), [("A", "B", "C")] * 300
    before = clips.clone()
    spoiled = spoil_letters(clips, words, anything, torch.Generator().manual_seed(0))
    assert torch.equal(clips, before)  # the caller's clips stay as they are
    share = sum(place is not None for place in spoiled.spoiled_B) / 300
    assert share == pytest.approx(SPOILED_SHARE, abs=0.08)
    assert {place for place in spoiled.spoiled_B if place is not None} == {0, 1, 2}
    for index, place in enumerate(spoiled.spoiled_B):
        changed = (spoiled.video_BCTHW[index] != before[index]).any(dim=0).flatten(1).any(dim=1)
        expected = torch.zeros(12, dtype=torch.bool)
        if place is not None:
            expected[slice(*shown_frames(place, 3, 12))] = True
        assert torch.equal(changed, expected)


def test_what_is_spoiled_has_lost_most_of_its_contrast():
    clips = striped_clips(200)
    spoiled = spoil_letters(clips, [("A",)] * 200, anything, torch.Generator().manual_seed(1))
    hit = [index for index, place in enumerate(spoiled.spoiled_B) if place is not None]
    stripes = torch.tensor([spoiled.video_BCTHW[index, :, :, :, index % 16].mean() for index in hit])
    assert (stripes < 0.3).float().mean() > 0.9  # 0.9 before; a smear may hold the clip itself once or twice


def test_the_same_generator_spoils_the_same_way():
    words = [("A", "B")] * 20
    one, other = (spoil_letters(striped_clips(20), words, anything, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.spoiled_B == other.spoiled_B
    assert torch.equal(one.video_BCTHW, other.video_BCTHW)


def test_what_may_not_be_read_is_never_left_over():
    words = [("A", "X", "B")] * 200
    spoiled = spoil_letters(
        striped_clips(200), words, lambda rest: rest != ("A", "B"), torch.Generator().manual_seed(0)
    )
    assert {place for place in spoiled.spoiled_B if place is not None} == {0, 2}
