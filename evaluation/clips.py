"""What is asked of a trained run, the clips that it makes of that, and the real clips beside them."""

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy
import torch
from torch import Tensor

from common.console import with_progress
from common.errors import UserError
from common.randomness import derive_seed
from data.batches import BatchOrder
from data.captions import decode_text
from data.clip_splits import caption_key
from data.records import ClipRow, ClipSource, as_video, to_pixels
from measures.bootstrap import Interval
from measures.clips import at_equal_moments
from sampling.trained_run import TrainedRun

SENSITIVITY_NOISES = 2
MOST_CAPTIONS = 2000  # of a file: each is compared with all others
COMPARED_CLIPS = 8192  # of the training, for memorisation
REFERENCE_CLIPS = 256  # real ones that training did not show
FEWEST_REAL_CLIPS = 5  # for memorisation: of fewer, half of all clips are nearer by chance in more than 1 of 30 runs
REFERENCES_A_CAPTION = 3
SAMPLE_NOISE, SENSITIVITY_NOISE = 3, 4  # streams of ClipSampler.initial_noise; 0 to 2 are the dashboard's

TRAINED, NEW = "captions in training", "captions not in training"

Figures = Mapping[str, Interval | None]
Part = Literal["held_out", "trained"]


@dataclass(frozen=True)
class Asked:
    """A caption that a clip is asked for."""

    text: str
    in_training: bool  # a training clip showed it

    @property
    def group(self) -> str:
        """What it is averaged with."""
        return TRAINED if self.in_training else NEW


AnyAsked = TypeVar("AnyAsked", bound=Asked, covariant=True)


@dataclass(frozen=True)
class TrainingHistory:
    """What the steps of a training showed."""

    captions: frozenset[str]
    rows: tuple[ClipRow, ...]  # to compare generated clips with: first those of asked ones, then others spread evenly
    clips: int  # how many there were


class Labelled(NamedTuple):
    """A clip and what it shows, or was asked to show."""

    caption: str
    clip: numpy.ndarray  # uint8 [T, H, W, 3]


@dataclass(frozen=True)
class RealClips:
    """The real clips that judges see. No clip is in both, nor a frame of one."""

    references: tuple[Labelled, ...]  # that the others are compared with: of asked captions, and of more of the pool
    queries: tuple[Labelled, ...]  # of asked captions, through the same figures as generated ones: the ceiling
    in_another_look: int  # of the queries: a reference shown as if filmed anew, because its caption has no other clip

    @cached_property
    def by_caption(self) -> dict[str, numpy.ndarray]:
        """The first reference of each caption, by `caption_key`."""
        found: dict[str, numpy.ndarray] = {}
        for each in self.references:
            found.setdefault(caption_key(each.caption), each.clip)
        return found

    def comparable(self, clips: Iterable[Labelled]) -> list[Labelled]:
        """Return those clips of whose caption there is a reference."""
        return [each for each in clips if caption_key(each.caption) in self.by_caption]


@dataclass(frozen=True)
class Subject:
    """What a run is asked for, and the real clips that its own are compared with."""

    asked: Sequence[Asked]  # each once
    history: TrainingHistory
    beside: tuple[numpy.ndarray, ...]  # a real clip for each that is generated, all of a caption in a row
    judged: RealClips
    unseen: Sequence[numpy.ndarray]  # real clips that training did not show
    notes: tuple[str, ...]


def read_captions(path: Path, check: Callable[[str, str], str]) -> list[str]:
    """Read a file with one caption a line; a repeated one counts once, capitals or not, and blank lines do not.

    `check`: receives where a caption comes from and its text; returns the caption, or raises a UserError.

    Raises:
        UserError: the file cannot be read or has no captions, or the check of one.
    """
    try:
        lines = unicodedata.normalize("NFC", decode_text(path.read_bytes())).splitlines()
    except OSError as error:
        raise UserError(f"--captions {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--captions {path}: is not UTF-8: save it again as UTF-8") from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(f"--captions {path}: the file has no captions; write one a line")
    first: dict[str, str] = {}
    for number, line in numbered:
        caption = check(f"--captions {path}, line {number}:", line)
        first.setdefault(caption_key(caption), caption)
    if len(first) > MOST_CAPTIONS:
        raise UserError(
            f"--captions {path}: {len(first)} captions, and an evaluation takes at most {MOST_CAPTIONS}: take some of "
            "them, or make several files"
        )
    return list(first.values())


def training_history(
    run: TrainedRun, training: ClipSource, wanted: AbstractSet[str], most_rows: int
) -> TrainingHistory:
    """Go through the clips that the run was trained on again, without drawing them.

    Args:
        training: the run's training clips.
        wanted: captions that are asked for, by `caption_key`; at most half of `rows` show these.
        most_rows: of `rows`.
    """
    every = max(1, -(-2 * run.samples_seen // most_rows))
    captions: set[str] = set()
    same: dict[str, ClipRow] = {}
    spread: dict[str, ClipRow] = {}
    clips = 0
    keys = itertools.islice(BatchOrder(training, run.frames_per_step, run.config.SEED, 0), run.step)
    for key in with_progress(keys, "replaying the training's order", run.step):
        for epoch, index in key.clips:
            row = training.row(epoch, index)
            captions.add(row.caption)
            if caption_key(row.caption) in wanted and len(same) < most_rows // 2:
                same.setdefault(row.id, row)
            elif clips % every == 0:
                spread.setdefault(row.id, row)
            clips += 1
    return TrainingHistory(frozenset(captions), (*same.values(), *spread.values()), clips)


@dataclass(frozen=True)
class EvaluationClips(Generic[AnyAsked]):
    """Clip by clip, all of a caption in a row, as videos hold them."""

    asked: tuple[AnyAsked, ...]  # what each clip was asked to show
    generated: tuple[numpy.ndarray, ...]  # uint8 [T, H, W, 3] each, from noises of their own
    real: tuple[numpy.ndarray, ...]  # the same, of the same captions

    @property
    def labelled(self) -> list[Labelled]:
        """The generated clips, with what they were asked to show."""
        return [Labelled(asked.text, clip) for asked, clip in zip(self.asked, self.generated, strict=True)]

    def of(self, places: Sequence[int]) -> "EvaluationClips[AnyAsked]":
        """Return some of the clips."""
        return EvaluationClips(
            tuple(self.asked[place] for place in places),
            tuple(self.generated[place] for place in places),
            tuple(self.real[place] for place in places),
        )


def make_clips(run: TrainedRun, captions: Sequence[str], samples: int, seed: int) -> tuple[numpy.ndarray, ...]:
    """Generate `samples` clips of each caption, all of a caption in a row: uint8 [T, H, W, 3] each. All are kept.

    The clips of a caption depend on the seed, its place in the list and the sampler, not on how many others there are.
    (The sampler "ddpm" draws further noise for a whole batch of clips.)
    """
    places = [(index, sample) for index in range(len(captions)) for sample in range(samples)]
    texts = [captions[index] for index, _ in places]
    noises = [
        run.sampler.initial_noise(frames, seed, SAMPLE_NOISE, *place)
        for frames, place in zip(run.sampler.frames(run.model, texts), places, strict=True)
    ]
    return tuple(map(to_pixels, _generate(run, texts, noises, seed)))


def make_sensitivity_clips(run: TrainedRun, captions: Sequence[str], seed: int) -> Tensor:
    """Generate each caption from the same noises: [W, SENSITIVITY_NOISES, 3, T, H, W], see `at_equal_moments`."""
    noises = [
        run.sampler.initial_noise(frames, seed, SENSITIVITY_NOISE, index)
        for frames in run.sampler.frames(run.model, captions)
        for index in range(SENSITIVITY_NOISES)
    ]
    clips = _generate(run, [text for text in captions for _ in range(SENSITIVITY_NOISES)], noises, seed)
    return at_equal_moments(clips).unflatten(0, (len(captions), SENSITIVITY_NOISES))


def next_of_each(names: Iterable[str]) -> dict[str, str]:
    """Return for each of some different names the one after it, and for the last the first."""
    ordered = list(names)
    return dict(zip(ordered, [*ordered[1:], *ordered[:1]], strict=True))


def places_of_each(asked: Sequence[AnyAsked]) -> dict[AnyAsked, list[int]]:
    """Return the places of each caption's clips among those of all, captions in the order of their first clips."""
    places: dict[AnyAsked, list[int]] = {}
    for place, one in enumerate(asked):
        places.setdefault(one, []).append(place)
    return places


def in_unit_range(clips: Iterable[numpy.ndarray]) -> Iterator[Tensor]:
    """Yield uint8 clips [T, H, W, 3] as float32 [3, T, H, W] in [-1, 1]."""
    return (as_video(torch.from_numpy(clip)) for clip in clips)


def figures_as_json(figures: Figures) -> dict[str, object]:
    """Return the values by name, and under "intervals" their 95 % intervals; null where there is none."""
    return {
        **{name: None if figure is None else figure.value for name, figure in figures.items()},
        "intervals": {
            name: None if figure is None or figure.low is None else [figure.low, figure.high]
            for name, figure in figures.items()
        },
    }


def _generate(run: TrainedRun, texts: Sequence[str], noises: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Generate a clip of each text, with a progress bar."""
    return run.sampler.sample(
        run.model,
        texts,
        noises,
        derive_seed(seed, "evaluation"),
        watch=lambda groups: with_progress(groups, "generating batches of clips"),
    )
