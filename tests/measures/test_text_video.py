"""The judge of text and video: its loss by hand, what it depends on, that it is kept, and that it learns."""

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from common.randomness import numpy_generator
from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit, letters_of
from data.lengths import ClipLengths
from data.records import ClipRow
from measures.fitting import SmallClips, small_clips
from measures.text_video import (
    TextDistances,
    TextVideoJudge,
    embed_clips,
    embed_texts,
    text_agreement,
    text_distances,
)
from measures.text_video_training import (
    SpelledCaptions,
    StoredCaptions,
    contrastive_loss,
    open_judge,
    spelled_captions,
    train_judge,
)


def square_clip(place: int, frames: int = 4, size: int = 16) -> torch.Tensor:
    """A bright square that stays at one side, uint8."""
    clip = torch.full((frames, size, size, 3), 40, dtype=torch.uint8)
    clip[:, 4:12, 8 * place : 8 * place + 8] = 220
    return clip


def two_captions(seed: int = 0) -> StoredCaptions:
    captions = ["left", "right", "Left", "right"]
    rows = tuple(ClipRow(str(index), caption, 4 + index, 1.0) for index, caption in enumerate(captions))
    return StoredCaptions(SmallClips(rows, tuple(square_clip(row.frames % 2, row.frames) for row in rows)), seed)


def weights(judge: TextVideoJudge) -> list[torch.Tensor]:
    return list(judge.state_dict().values())


def test_the_loss_is_that_of_a_hand_computation_and_equal_captions_are_no_negatives() -> None:
    generator = numpy.random.default_rng(0)
    video, text = (each / numpy.linalg.norm(each, axis=1, keepdims=True) for each in generator.normal(size=(2, 4, 5)))
    captions, scale = ["A", "b", "a", "C"], 3.0
    score = [[scale * float(video[row] @ text[column]) for column in range(4)] for row in range(4)]
    ignored = {(0, 2), (2, 0)}
    losses = []
    for own in range(4):
        of_video = sum(math.exp(score[own][other]) for other in range(4) if (own, other) not in ignored)
        of_text = sum(math.exp(score[other][own]) for other in range(4) if (other, own) not in ignored)
        losses += [math.log(of_video) - score[own][own], math.log(of_text) - score[own][own]]
    found = contrastive_loss(torch.tensor(video), torch.tensor(text), captions, torch.tensor(scale))
    assert found.item() == pytest.approx(sum(losses) / 8, rel=1e-9)


def test_thirty_steps_tell_two_captions_apart_and_depend_on_the_seed_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    judge = train_judge(two_captions(), 30)
    assert torch.equal(torch.rand(1), expected)
    clips = [(square_clip(place, frames).permute(3, 0, 1, 2) / 127.5 - 1) for place, frames in ((0, 5), (1, 8))]
    distance = text_distances(judge, clips, ["left", "RIGHT"]).distance_NM
    assert distance.argmin(dim=1).tolist() == [0, 1]
    first, again, other = (train_judge(two_captions(seed), 2) for seed in (0, 0, 1))
    assert all(map(torch.equal, weights(first), weights(again)))
    assert not all(map(torch.equal, weights(first), weights(other)))


def test_it_is_trained_once_and_again_for_other_clips_or_where_it_is_damaged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, steps = two_captions(), []
    first = open_judge(data, 1, tmp_path, lambda step, loss: steps.append(step))
    second = open_judge(data, 1, tmp_path, lambda step, loss: steps.append(step))
    assert steps == [1]
    assert all(map(torch.equal, weights(first), weights(second)))
    (path,) = (tmp_path / "recognisers").iterdir()
    path.write_bytes(path.read_bytes()[:-8])
    with caplog.at_level(logging.WARNING):
        open_judge(data, 1, tmp_path, lambda step, loss: steps.append(step))
    assert steps == [1, 1]
    assert "cannot be used and is trained again" in caplog.text
    data.clips.pixels[0][0, 0, 0, 0] += 1
    changed = StoredCaptions(SmallClips(data.clips.rows, data.clips.pixels), 0)
    open_judge(changed, 1, tmp_path, lambda step, loss: steps.append(step))
    assert steps == [1, 1, 1]


def test_embeddings_have_length_1_and_do_not_depend_on_their_neighbours() -> None:
    torch.manual_seed(0)
    judge = TextVideoJudge(tuple("ab ")).eval()
    clips = [torch.rand(3, frames, 16, 16) for frames in (1, 40, 7)]
    together = embed_clips(judge, clips)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))
    alone = torch.cat([embed_clips(judge, [clip]) for clip in clips])
    assert torch.allclose(together, alone, atol=1e-5)
    captions = ["a", "ab", "ba", "a b ab", "日本"]
    together = embed_texts(judge, captions)
    alone = torch.cat([embed_texts(judge, [caption]) for caption in captions])
    assert torch.allclose(together, alone, atol=1e-5)
    assert (together[1] - together[2]).norm() > 0.01
    assert torch.equal(embed_texts(judge, ["AB "]), embed_texts(judge, ["ab"]))


def test_characters_stand_where_their_word_does_and_unknown_ones_have_a_class_of_their_own() -> None:
    read = TextVideoJudge(tuple("abc")).read(["ab c", "x"])
    assert read.class_BL.tolist() == [[1, 2, 0, 3], [0, 0, 0, 0]]
    assert read.is_one_BL.tolist() == [[True] * 4, [True, False, False, False]]
    assert read.by_character_BL[0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert read.by_word_BL[0].tolist() == [0.125, 0.375, 0.5, 0.75]
    assert (read.by_character_BL[1, 0].item(), read.by_word_BL[1, 0].item()) == (0.5, 0.5)


def test_mean_distances_are_those_of_own_and_of_other_captions() -> None:
    distance = torch.tensor([[0.1, 0.9, 0.8], [0.3, 0.7, 0.6], [0.5, 0.2, 1.0], [0.4, 0.6, 0.0]])
    found = text_agreement(TextDistances(("a", "a", "b", "c"), ("a", "b", "c"), distance), 0)
    assert found is not None
    assert found.distance.value == pytest.approx((0.1 + 0.3 + 0.2 + 0.0) / 4)
    assert found.distance_shuffled.value == pytest.approx((0.9 + 0.8 + 0.7 + 0.6 + 0.5 + 1.0 + 0.4 + 0.6) / 8)
    assert text_agreement(TextDistances(("a",), ("a",), distance[:1, :1]), 0) is None


def test_r_precision_is_1_of_perfect_and_chance_of_shuffled_embeddings() -> None:
    captions = tuple(f"{index:03}" for index in range(320))
    embeddings = torch.nn.functional.normalize(torch.randn(320, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    shuffled = embeddings[torch.randperm(320, generator=torch.Generator().manual_seed(1))]
    perfect, chance = (
        text_agreement(TextDistances(captions, captions, 1 - videos @ embeddings.T), 0)
        for videos in (embeddings, shuffled)
    )
    assert perfect is not None
    assert chance is not None
    for k in (1, 5, 10):
        assert perfect.r_precision[k].value == 1
        assert perfect.r_precision_shuffled[k].value == pytest.approx(k / 32, abs=0.02)
        assert chance.r_precision[k].value == pytest.approx(k / 32, abs=0.08)


@dataclass(frozen=True)
class Source:
    """Plain clips of any shape."""

    clips: tuple[numpy.ndarray, ...]
    captions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def row(self, epoch: int, index: int) -> ClipRow:
        return ClipRow(str(index), self.captions[index], len(self.clips[index]), 1.0)

    def lengths(self) -> numpy.ndarray:
        return numpy.array(list(map(len, self.clips)))

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        return self.clips[int(row.id)]


def test_clips_of_a_source_are_averaged_down_and_each_comes_once_before_any_comes_again() -> None:
    clips = tuple(numpy.full((4, 64, 32, 3), 5 * index, dtype=numpy.uint8) for index in range(40))
    source = Source(clips, tuple(f"sign {index}" for index in range(40)))
    small = small_clips(source, seed=0)
    assert sorted(row.caption for row in small.rows) == sorted(source.captions)
    for row, clip in zip(small.rows, small.pixels, strict=True):
        assert clip.shape == (4, 32, 32, 3)
        assert (clip == 5 * int(row.id)).all()
    data = StoredCaptions(small, 0)
    assert data.characters == tuple(sorted(set("sign 0123456789")))
    seen = [caption for step in range(1, 6) for caption in data[step].captions]
    assert {seen.count(caption) for caption in source.captions} == {4}
    assert data[3].captions == data[3].captions != data[4].captions


def test_spelled_words_are_none_that_are_held_out_and_many_differ_in_a_letter_or_the_order(tmp_path: Path) -> None:
    _, letters = load_letters("ase")
    alphabets = Alphabets((Alphabet(tuple("ABCDEF"), "en", "ase"),))
    split = WordSplit(alphabets, 3, held_out_word_fraction=0.2, held_out_bigram_fraction=0.1, seed=0)
    renderer = WordRenderer(alphabets, letters, ClipLengths(12.0, 4, 16, True), (96, 128), ClipCache(tmp_path, 10**6))
    data = spelled_captions(SimpleNamespace(renderer=renderer, split=split), 0)
    assert data.characters == (" ", *"abcdef")
    assert data.words.renderer.image_size == (64, 85)
    alike = 0
    for step in range(20):
        words = data.drawn(numpy_generator(0, "test", step))
        assert len(words) == 32
        assert not any(map(split.is_held_out, words))
        for word, other in zip(words[:16], map(letters_of, words[16:]), strict=True):
            own = letters_of(word)
            differing = sum(one != two for one, two in zip(own, other, strict=False))
            alike += len(own) == len(other) and (differing == 1 or (differing == 2 and sorted(own) == sorted(other)))
    assert alike > 20 * 16 / 2
    small = SpelledCaptions(replace(data.words, renderer=replace(renderer, image_size=(16, 16))))
    drawn, again = small[3], small[3]
    assert drawn.captions == again.captions
    assert all(map(torch.equal, drawn.clips, again.clips))
    assert {clip.shape[1:] for clip in drawn.clips} == {(16, 16, 3)}
    assert len({len(clip) for clip in drawn.clips}) > 1
