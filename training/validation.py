"""Validation on fixed clips, fixed noise and fixed timesteps, with the averaged weights."""

import math
import statistics
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.randomness import torch_generator
from compute.device import ComputeDevice
from data.batches import Tokenize
from data.records import ClipSource, FixedClips
from diffusion.loss import DiffusionObjective
from distributed.models import undivided
from distributed.processes import Processes
from logging_system.records import ValidationRecord
from measures.bootstrap import Interval
from measures.text_use import GaugeClips, TextUse, measure_text_use, other_captions
from models.tokens import as_read, pad_tokens
from sampling.sampler import expected_seconds


class Validator:
    """Measures how well the model fits clips that it is not trained on, and whether it uses their captions."""

    def __init__(
        self,
        *,
        clips: GaugeClips,
        seconds: Sequence[float],
        trained_clips: GaugeClips | None,
        objective: DiffusionObjective,
        compute: ComputeDevice,
        processes: Processes,
        most_frames: int,
        seed: int,
    ) -> None:
        """`seconds`: how long each of the clips lasts in life."""
        self._clips = clips
        self._seconds = seconds
        self._trained_clips = trained_clips
        self._objective = objective
        self._compute = compute
        self._processes = processes
        self._most_frames = most_frames
        self._seed = seed

    def run(self, step: int, model: nn.Module, best_loss: float | None) -> ValidationRecord:
        """Validate, without side effects. Several processes share the clips, and get the same result.

        Args:
            step: the last step that was done.
            model: the averaged model, in evaluation mode.
            best_loss: the lowest loss before this validation; None if there is none.
        """

        def predict(video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor) -> Tensor:
            with self._compute.autocast():
                return model(video, timestep, tokens, drop_caption)

        def measure(clips: GaugeClips, *, without_caption: bool) -> TextUse:
            return measure_text_use(
                predict,
                self._objective,
                clips,
                self._most_frames,
                self._seed,
                self._processes.part,
                self._processes.gather_clips,
                without_caption=without_caption,
            )

        start = time.perf_counter()
        use = measure(self._clips, without_caption=True)
        assert use.null is not None
        of_trained = None if self._trained_clips is None else measure(self._trained_clips, without_caption=False)
        with undivided(model):
            expected = expected_seconds(model, self._clips.tokens_BL, self._compute)
        best_so_far = math.inf if best_loss is None else best_loss
        return ValidationRecord(
            step=step,
            loss=use.correct,
            loss_shuffled=use.shuffled,
            loss_null=use.null,
            predict_zero=use.predict_zero,
            gap_shuffled_interval=_ends(use.shuffled_gap),
            loss_by_bin=use.correct_by_bin,
            gap_shuffled_by_bin=use.shuffled_gap_by_bin,
            trained_loss=None if of_trained is None else of_trained.correct,
            trained_loss_shuffled=None if of_trained is None else of_trained.shuffled,
            duration_error=median_error(expected, self._seconds),
            best_loss=min(best_so_far, use.correct) if math.isfinite(use.correct) else best_so_far,
            seconds=time.perf_counter() - start,
        )


def median_error(expected: Sequence[float], real: Sequence[float]) -> float:
    """Return how far durations are from the real ones, as a share of these: the median over at least one clip."""
    return statistics.median(abs(one / other - 1) for one, other in zip(expected, real, strict=True))


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    if interval is None or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def gauge_clips(
    fixed: FixedClips, shuffled_tokens_BL: Tensor | None, device: torch.device, seed: int, purpose: str
) -> GaugeClips:
    """Return clips on the device, with the noise that every validation gives them.

    Args:
        fixed: the clips.
        shuffled_tokens_BL: see `wrong_tokens`.
        device: where they are kept.
        seed: of the run.
        purpose: selects the noise, which differs between sets of clips.
    """
    generator = torch_generator(seed, purpose)
    return GaugeClips(
        clips=tuple(clip.to(device) for clip in fixed.videos),
        noises=tuple(torch.randn(clip.shape, generator=generator).to(device) for clip in fixed.videos),
        tokens_BL=fixed.tokens_BL.to(device),
        shuffled_tokens_BL=None if shuffled_tokens_BL is None else shuffled_tokens_BL.to(device),
    )


def load_fixed_clips(source: ClipSource, tokenize: Tokenize, most_clips: int | None = None) -> FixedClips:
    """Load all clips of a source, or the first ones. They are few, and stay in memory."""
    rows = tuple(source.row(0, index) for index in range(len(source)))[:most_clips]
    pixels = tuple(torch.from_numpy(source.load(row)) for row in rows)
    return FixedClips(rows, pixels, tokenize([row.caption for row in rows]))


def wrong_tokens(fixed: FixedClips, training: ClipSource, tokenize: Tokenize) -> Tensor | None:
    """Return the tokens of another clip's caption for each clip; None if all captions are one to the model."""
    candidates = (as_read(tokenize, training.row(0, index).caption) for index in range(len(training)))
    readings = other_captions([as_read(tokenize, row.caption) for row in fixed.rows], candidates)
    return None if readings is None else pad_tokens(readings)
