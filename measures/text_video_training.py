"""Trains the judge of text and video, on real clips only."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from common.randomness import derive_seed, numpy_generator, torch_generator
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.source import RENDERING_VERSION
from data.fingerspelling.timing import random_speed
from data.fingerspelling.words import SPACE, Word, letters_of
from data.records import as_video
from measures.fitting import CPU, SmallClips, first_weights, fit, key_of, open_fitted
from measures.recogniser import LARGEST_SIDE
from measures.recogniser_training import RecogniserWords
from measures.retrieval import another_look
from measures.text_video import UNKNOWN, Characters, Frames, TextVideoJudge, frames_of, text_key

VERSION = 1  # raised when the same clips would give another judge: stored ones then do not count
CLIPS = 32  # a step
ALIKE_SHARE = 0.5  # of the spelled words, which differ from another one of the step in a letter or the order of two
UNKNOWN_SHARE = 0.02  # of the characters: those that training lacks must mean something


@dataclass(frozen=True)
class CaptionedClips:
    """What a step is trained on."""

    clips: tuple[Tensor, ...]  # uint8 [T, H, W, 3] each, of one size and of any lengths
    captions: tuple[str, ...]


class CaptionedData(Dataset[CaptionedClips], ABC):
    """Real clips with their captions."""

    seed: int

    @property
    @abstractmethod
    def characters(self) -> tuple[str, ...]:
        """Those of all captions (`text_key`), each once."""

    @abstractmethod
    def depends_on(self) -> tuple[object, ...]:
        """Return all that the clips depend on but RENDERING_VERSION, as JSON-compatible values."""

    @abstractmethod
    def __getitem__(self, step: int) -> CaptionedClips:
        """Return the clips of a step, a pure function of it."""


@dataclass(frozen=True)
class SpelledCaptions(CaptionedData):
    """Finger-spelled words that the generator may train on too, in looks of their own, none of them held out."""

    words: RecogniserWords

    @property
    def seed(self) -> int:  # type: ignore[override]
        return self.words.seed

    @property
    def characters(self) -> tuple[str, ...]:
        alphabets = self.words.split.alphabets
        return _characters([alphabets.caption((symbol,)) for symbol in alphabets.symbols])

    def depends_on(self) -> tuple[object, ...]:
        return self.words.depends_on()

    def drawn(self, generator: numpy.random.Generator) -> list[Word]:
        """Draw the words of a step."""
        split, count = self.words.split, int(CLIPS * (1 - ALIKE_SHARE))
        words = [split.draw_training_word(generator) for _ in range(count)]
        while len(words) < CLIPS:
            words.append(self._alike(words[len(words) - count], generator))
        return words

    def _alike(self, word: Word, generator: numpy.random.Generator) -> Word:
        """Return another training word that is hard to tell from this one, or any other where there is none."""
        split, letters = self.words.split, list(letters_of(word))
        place = int(generator.integers(len(letters)))
        symbols = split.alphabets.of(word).symbols
        if place and generator.random() < 0.5:
            letters[place - 1 : place + 1] = letters[place], letters[place - 1]
        else:
            letters[place] = symbols[int(generator.integers(len(symbols)))]
        found = tuple(letters)
        if found != word and not split.is_held_out(found) and split.alphabets.of(found).is_unambiguous(found):
            return found
        return split.draw_training_word(generator)

    def __getitem__(self, step: int) -> CaptionedClips:
        renderer, generator = self.words.renderer, numpy_generator(self.seed, "judge_words", step)
        clips = []
        words = self.drawn(generator)
        for index, word in enumerate(words):
            frames = renderer.lengths.of(renderer.seconds(word) / random_speed(generator))
            clip = renderer.render(word, derive_seed(self.seed, "judge_style", step, index), frames)
            clips.append(torch.from_numpy(clip))
        return CaptionedClips(tuple(clips), tuple(map(self.words.split.alphabets.caption, words)))


def spelled_captions(splits: FingerspellingSplits, seed: int) -> SpelledCaptions:
    """Return a finger-spelled training's words, drawn in pictures of the same shape, but no larger than needed."""
    height, width = splits.renderer.image_size
    shrink = min(1.0, LARGEST_SIDE / min(height, width))
    renderer = replace(splits.renderer, image_size=(round(height * shrink), round(width * shrink)))
    return SpelledCaptions(RecogniserWords(renderer, splits.split, seed))


@dataclass(frozen=True)
class StoredCaptions(CaptionedData):
    """Clips of any source (`measures.fitting.small_clips`), each about as often as any other."""

    clips: SmallClips
    seed: int

    @property
    def characters(self) -> tuple[str, ...]:
        return _characters([row.caption for row in self.clips.rows])

    def depends_on(self) -> tuple[object, ...]:
        return (self.clips.digest, self.seed)

    def __getitem__(self, step: int) -> CaptionedClips:
        count = len(self.clips.rows)
        places = range((step - 1) * CLIPS, (step - 1) * CLIPS + min(CLIPS, count))
        orders = {turn: self._order(turn) for turn in {place // count for place in places}}
        chosen = [int(orders[place // count][place % count]) for place in places]
        rows = [self.clips.rows[index] for index in chosen]
        return CaptionedClips(tuple(self.clips.pixels[index] for index in chosen), tuple(row.caption for row in rows))

    def _order(self, turn: int) -> numpy.ndarray:
        return numpy_generator(self.seed, "judge_order", turn).permutation(len(self.clips.rows))


def _characters(captions: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({SPACE}.union(*map(text_key, captions))))


def contrastive_loss(video_BE: Tensor, text_BE: Tensor, captions: Sequence[str], scale: Tensor) -> Tensor:
    """Return the symmetric InfoNCE loss (van den Oord et al. 2018; Radford et al. 2021), a scalar.

    Each clip is to be nearer to its caption than to the other ones, and each caption to its clip. What has an equal
    caption is neither right nor wrong.

    Args:
        video_BE: embeddings of length 1.
        text_BE: those of the clips' captions.
        captions: of the clips.
        scale: of the cosines.
    """
    keys = list(map(text_key, captions))
    place = {key: index for index, key in enumerate(keys)}
    kind_B = torch.tensor([place[key] for key in keys], device=video_BE.device)
    own_BB = torch.eye(len(keys), dtype=torch.bool, device=video_BE.device)
    same_BB = (kind_B[:, None] == kind_B) & ~own_BB
    score_BB = (scale * video_BE @ text_BE.T).masked_fill(same_BB, -torch.inf)
    right_B = torch.arange(len(keys), device=video_BE.device)
    return (functional.cross_entropy(score_BB, right_B) + functional.cross_entropy(score_BB.T, right_B)) / 2


def train_judge(
    data: CaptionedData,
    steps: int,
    on_step: Callable[[int, float], None] | None = None,
    *,
    device: torch.device = CPU,
    num_workers: int = 0,
) -> TextVideoJudge:
    """Train one from scratch and return it in evaluation mode, on the device; on the CPU a pure function of the data.

    Args:
        data: what it is trained on.
        steps: how long.
        on_step: receives (step, loss), step 1 first.
        device: where it is.
        num_workers: processes that draw the clips of the next steps; the clips do not depend on it.
    """
    characters = data.characters

    def loss(judge: TextVideoJudge, step: int, drawn: CaptionedClips) -> Tensor:
        looks = [derive_seed(data.seed, "judge_look", step, index) for index in range(len(drawn.clips))]
        clips = [another_look(as_video(clip), look) for clip, look in zip(drawn.clips, looks, strict=True)]
        frames, read = frames_of(clips), judge.read(drawn.captions)
        generator = torch_generator(data.seed, "judge_unknown", step)
        unknown_BL = torch.rand(read.class_BL.shape, generator=generator) < UNKNOWN_SHARE
        read = read._replace(class_BL=read.class_BL.masked_fill(unknown_BL, UNKNOWN))
        video_BE = judge.video(Frames(frames.images_FCHW.to(device), frames.lengths))
        text_BE = judge.text(Characters(*(each.to(device) for each in read)))
        return contrastive_loss(video_BE, text_BE, drawn.captions, judge.scale)

    judge = first_weights(lambda: TextVideoJudge(characters), data.seed, "judge_weights").to(device)
    return fit(judge, data, loss, steps, data.seed, on_step, num_workers=num_workers)


def open_judge(
    data: CaptionedData,
    steps: int,
    cache_folder: Path,
    on_step: Callable[[int, float], None] | None = None,
    *,
    device: torch.device = CPU,
    num_workers: int = 0,
) -> TextVideoJudge:
    """Return the judge in evaluation mode on the device, from the cache or freshly trained (`open_fitted`).

    Args:
        data: what it is trained on.
        steps: how long.
        cache_folder: CACHE_DIR.
        on_step: receives (step, loss) while it is trained.
        device: where it is trained and used.
        num_workers: processes that draw clips ahead.
    """
    return open_fitted(
        "judge of text and video",
        key_of("text_video", VERSION, RENDERING_VERSION, steps, *data.depends_on()),
        lambda: TextVideoJudge(data.characters),
        lambda: train_judge(data, steps, on_step, device=device, num_workers=num_workers),
        cache_folder,
        device,
    )
