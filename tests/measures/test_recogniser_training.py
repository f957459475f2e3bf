"""The recogniser is trained once and kept, on clips of which some letters are spoiled."""

import dataclasses
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from config import Config
from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit
from data.lengths import ClipLengths
from data.records import as_video
from measures import recogniser_training
from measures.recogniser import LetterRecogniser
from measures.recogniser_training import (
    SPOILED_SHARE,
    RecogniserWords,
    SpelledClips,
    build_recogniser,
    open_recogniser,
    spoil_letters,
    train_recogniser,
)
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
    alphabets = Alphabets((Alphabet(("A", "B"), "en", "ase"),))
    split = WordSplit(alphabets, 2, 0.2, 0.1, seed=0)
    lengths = ClipLengths(12.0, 4, 8, True)
    cache = ClipCache(tmp_path / "clips", 10**6)
    return RecogniserWords(WordRenderer(alphabets, letters, lengths, (16, 16), cache), split, seed=0)


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
    "change", mostly_slow(["steps", "seed", "max_letters", "word_fraction", "image_size", "lengths"], fast=2)
)
def test_anything_that_matters_makes_another_one(words: RecogniserWords, tmp_path: Path, change: str) -> None:
    open_recogniser(words, 2, tmp_path, Counter())
    changed = {
        "seed": dataclasses.replace(words, seed=1),
        "max_letters": dataclasses.replace(words, split=dataclasses.replace(words.split, max_word_letters=3)),
        "word_fraction": dataclasses.replace(words, split=dataclasses.replace(words.split, held_out_word_fraction=0.3)),
        "image_size": dataclasses.replace(words, renderer=dataclasses.replace(words.renderer, image_size=(18, 18))),
        "lengths": dataclasses.replace(
            words, renderer=dataclasses.replace(words.renderer, lengths=ClipLengths(10.0, 4, 8, True))
        ),
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


def anything(word):
    return True


def striped_clips(words, frames=12, size=16):
    """Clips of equal letters with a bright stripe at a place of its own in every clip, on a flat dark ground."""
    video = torch.full((len(words), frames, size, size, 3), 25, dtype=torch.uint8)
    for index in range(len(words)):
        video[index, :, :, index % size] = 242
    edges = [numpy.linspace(0, frames, len(word) + 1) for word in words]
    return SpelledClips(video, words, edges)


def test_only_the_frames_of_one_letter_change_and_about_the_wanted_share_of_clips():
    clips = striped_clips([("A", "B", "C")] * 300)
    before = as_video(clips.clips_BTHWC)
    spoiled = spoil_letters(clips, anything, torch.Generator().manual_seed(0))
    share = sum(place is not None for place in spoiled.spoiled_B) / 300
    assert share == pytest.approx(SPOILED_SHARE, abs=0.08)
    assert {place for place in spoiled.spoiled_B if place is not None} == {0, 1, 2}
    for index, place in enumerate(spoiled.spoiled_B):
        changed = (spoiled.video_BCTHW[index] != before[index]).any(dim=0).flatten(1).any(dim=1)
        expected = torch.zeros(12, dtype=torch.bool)
        if place is not None:
            expected[4 * place : 4 * place + 4] = True
        assert torch.equal(changed, expected)


def test_what_is_spoiled_has_lost_most_of_its_contrast():
    spoiled = spoil_letters(striped_clips([("A",)] * 200), anything, torch.Generator().manual_seed(1))
    hit = [index for index, place in enumerate(spoiled.spoiled_B) if place is not None]
    stripes = torch.tensor([spoiled.video_BCTHW[index, :, :, :, index % 16].mean() for index in hit])
    assert (stripes < 0.3).float().mean() > 0.9  # 0.9 before; a smear may hold the clip itself once or twice


def test_the_same_generator_spoils_the_same_way():
    clips = striped_clips([("A", "B")] * 20)
    one, other = (spoil_letters(clips, anything, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.spoiled_B == other.spoiled_B
    assert torch.equal(one.video_BCTHW, other.video_BCTHW)


def test_what_may_not_be_read_is_never_left_over():
    clips = striped_clips([("A", "X", "B")] * 200)
    spoiled = spoil_letters(clips, lambda rest: rest != ("A", "B"), torch.Generator().manual_seed(0))
    assert {place for place in spoiled.spoiled_B if place is not None} == {0, 2}


def test_clips_that_workers_draw_make_the_same_recogniser(words: RecogniserWords) -> None:
    alone, helped = (train_recogniser(words, 3, num_workers=count) for count in (0, 2))
    assert all(torch.equal(one, other) for one, other in zip(alone.parameters(), helped.parameters(), strict=True))


def test_one_from_a_gpu_is_not_used_on_the_cpu_and_one_from_the_cpu_is_used_on_a_gpu(
    words: RecogniserWords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is the device "meta" by name, as nothing is computed on it here."""
    gpu, trained_on = torch.device("meta"), []

    def train(words: RecogniserWords, *_: object, device: torch.device, num_workers: int) -> LetterRecogniser:
        trained_on.append(device.type)
        return LetterRecogniser(words.split.alphabets.symbols)

    monkeypatch.setattr(recogniser_training, "train_recogniser", train)
    open_recogniser(words, 2, tmp_path, Counter(), device=gpu)
    assert next(open_recogniser(words, 2, tmp_path, Counter(), device=gpu).parameters()).device == gpu
    assert trained_on == ["meta"]
    open_recogniser(words, 2, tmp_path, Counter())
    assert trained_on == ["meta", "cpu"]
    shutil.rmtree(tmp_path / "recognisers")
    open_recogniser(words, 2, tmp_path, Counter())
    open_recogniser(words, 2, tmp_path, Counter(), device=gpu)
    assert trained_on == ["meta", "cpu", "cpu"]


@pytest.mark.parametrize(
    ("device", "deterministic", "expected"),
    [("cuda", False, "cuda"), ("cuda", True, "cpu"), ("mps", False, "cpu"), ("cpu", False, "cpu")],
)
def test_it_is_trained_on_the_runs_device_if_that_is_cuda_and_may_vary(
    words: RecogniserWords, monkeypatch: pytest.MonkeyPatch, device: str, deterministic: bool, expected: str
) -> None:
    used: list[object] = []
    monkeypatch.setattr(
        recogniser_training, "open_recogniser", lambda *_, device, num_workers: used.append((device.type, num_workers))
    )
    build_recogniser(Config(DETERMINISTIC=deterministic, NUM_WORKERS=3), words, torch.device(device))
    assert used == [(expected, 3)]


def test_its_network_is_on_the_device_and_the_loss_on_the_host(
    words: RecogniserWords, imagined_cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[torch.Tensor] = []

    def backward(loss: torch.Tensor) -> None:
        losses.append(loss)

    monkeypatch.setattr(torch.autograd, "backward", backward)
    trained = train_recogniser(words, 2, device=torch.device(imagined_cuda.name))
    assert {parameter.device.type for parameter in trained.parameters()} == {"cuda"}
    assert [loss.device.type for loss in losses] == ["cpu", "cpu"]
    assert all(torch.isfinite(loss) for loss in losses)
    assert imagined_cuda.transfers == 2 * 2  # what the network says of the clips, and nothing else
