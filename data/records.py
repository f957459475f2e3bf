"""What the data sets give to the trainer."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol, get_args

import numpy
import torch
from torch import Tensor

from data.rows import Notice, Topic


@dataclass(frozen=True)
class ClipRow:
    """Everything that is needed to make or load one clip."""

    id: str  # unique within its source, the same in every run
    caption: str
    frames: int  # that it has (`data.lengths`)
    seconds: float  # that it lasts, in life
    style_seed: int = 0  # of the randomness of this one clip; sources without any leave it at 0


@dataclass(frozen=True)
class Batch:
    """Clips of one length, ready for training. All tensors are on the CPU."""

    clips_BTHWC: Tensor  # uint8, C = 3 (red, green, blue): a quarter of what float32 would cost on every way
    seconds_B: Tensor  # float32, how long each clip lasts in life
    tokens_BL: Tensor  # int64, from the tokenizer
    captions: tuple[str, ...]
    ids: tuple[str, ...]
    epoch: int  # 0-based
    index_in_epoch: int  # 0-based number of the batch within its epoch
    clips_in_step: int  # those of other processes included

    @property
    def video_BCTHW(self) -> Tensor:
        """The clips as a network takes them (`as_video`), made anew at each call."""
        return as_video(self.clips_BTHWC)


@dataclass(frozen=True)
class FixedClips:
    """A few clips of any lengths that stay in memory. All tensors are on the CPU."""

    rows: tuple[ClipRow, ...]
    pixels: tuple[Tensor, ...]  # uint8 [T, H, W, 3] each
    tokens_BL: Tensor  # int64, of all captions

    @cached_property
    def videos(self) -> tuple[Tensor, ...]:
        """The clips as a network takes them, float32 [3, T, H, W] in [-1, 1] each."""
        return tuple(map(as_video, self.pixels))

    @property
    def captions(self) -> tuple[str, ...]:
        """The captions, clip by clip."""
        return tuple(row.caption for row in self.rows)

    def first(self, most_clips: int) -> "FixedClips":
        """Return the first clips, at most so many."""
        return FixedClips(self.rows[:most_clips], self.pixels[:most_clips], self.tokens_BL[:most_clips])


def as_video(pixels: Tensor) -> Tensor:
    """Turn uint8 [..., T, H, W, 3] into float32 [..., 3, T, H, W] in [-1, 1], with the same values on every device."""
    # A tensor on the device, because CUDA multiplies by the reciprocal of a number of the host's, which rounds
    # otherwise (PyTorch's BinaryDivTrueKernel.cu).
    half_range = torch.full((), 127.5, device=pixels.device)
    return pixels.movedim(-1, -4).to(torch.float32).div_(half_range).sub_(1.0).contiguous()


def to_pixels(video: Tensor) -> numpy.ndarray:
    """Turn [..., 3, T, H, W] in [-1, 1] into uint8 [..., T, H, W, 3]; values outside are clipped."""
    pixels = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.movedim(-4, -1).cpu().numpy()


class ClipSource(Protocol):
    """A numbered set of clips. `row` is cheap and pure; `load` does the work, and is called from loader workers."""

    def __len__(self) -> int:
        """Clips in one epoch."""
        ...

    def row(self, epoch: int, index: int) -> ClipRow:
        """Return clip `index` of an epoch, a pure function of its arguments.

        Raises:
            IndexError: the index is not in `range(len(self))`.
        """
        ...

    def lengths(self) -> numpy.ndarray:
        """Return the frames of each clip, int64 [len(self)]: the same in every epoch, and as `row` says."""
        ...

    def groups(self) -> Sequence[Sequence[int]] | None:
        """Return the indices of clips that one process should read soon after each other, such as those of a tar file.

        Each index is in one group. None: it does not matter which process reads which clips, and when.
        """
        ...

    def load(self, row: ClipRow) -> numpy.ndarray:
        """Return the clip as uint8 [T, H, W, 3] (red, green, blue).

        Raises:
            UserError: the clip's file has gone or changed since the data set was opened.
        """
        ...


@dataclass(frozen=True)
class FixedRows:
    """What clips are like that are the same in every epoch; see `ClipSource` for the methods."""

    rows: tuple[ClipRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def row(self, epoch: int, index: int) -> ClipRow:
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        return self.rows[index]

    def lengths(self) -> numpy.ndarray:
        return numpy.array([row.frames for row in self.rows], dtype=numpy.int64)

    def groups(self) -> None:
        return None


@dataclass(frozen=True)
class DataSummary:
    """What is said of a data set and how it was divided."""

    description: str  # one line for the console
    report: Mapping[str, object]  # the split in full, as JSON-compatible values
    notices: tuple[Notice, ...] = ()
    details: str = ""  # where there is more to read than the notices
    measures: Mapping[str, float] = field(default_factory=dict)  # by the names of their tags

    def lines(self) -> list[str]:
        """Return at most eight lines for people: the description, one for each topic, and where the details are."""
        lines = [self.description]
        for topic in get_args(Topic):
            if texts := [notice.text for notice in self.notices if notice.topic == topic]:
                lines.append(f"{topic}: {'; '.join(texts)}")
        return [*lines, self.details] if self.notices and self.details else lines


@dataclass(frozen=True)
class DataSplits(ABC):
    """A data set, divided into what is trained on and what is held out."""

    summary: DataSummary
    training: ClipSource
    validation: ClipSource  # fixed clips: row(0, index)
    validation_of_trained: ClipSource | None  # fixed training clips; None where most held-out captions can be known
    symbols: tuple[str, ...] | None  # what captions are made of, where the data set fixes it; may hold digraphs
    default_prompts: tuple[str, ...]  # what to sample when the user names nothing

    @abstractmethod
    def is_held_out(self, caption: str) -> bool:
        """Return whether no training clip can have this caption."""

    @abstractmethod
    def real_clips(self, caption: str, most: int) -> list[numpy.ndarray]:
        """Return different real clips that show the caption, uint8 [T, H, W, 3] each: at most so many, perhaps none.

        Those that training does not show come first.
        """

    def real_clip(self, caption: str) -> numpy.ndarray | None:
        """Return the first of the real clips that show the caption; None where there is none."""
        clips = self.real_clips(caption, 1)
        return clips[0] if clips else None
