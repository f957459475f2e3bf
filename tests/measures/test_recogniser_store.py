"""The recogniser is trained once, kept, and trained again where what is kept is not its own."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, WordSplit
from measures.recogniser_training import RecogniserWords, open_recogniser


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


@pytest.mark.parametrize("change", ["steps", "seed", "max_letters", "word_fraction", "image_size", "num_frames"])
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
