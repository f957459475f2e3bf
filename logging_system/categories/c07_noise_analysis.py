"""07_Noise_Analysis: the noise the model predicts, the noise that was there, and the clips themselves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from logging_system.cadence import Due
from logging_system.category import DIAGNOSTICS, Category, Tag
from logging_system.records import StepRecord
from logging_system.statistics.tensors import device_histograms, video_quality


@dataclass(frozen=True)
class ClipMoments:
    """Moments of one clip's predicted and actual noise over its values (population variances)."""

    predicted_mean: float
    actual_mean: float
    predicted_variance: float
    actual_variance: float
    covariance: float


def clip_moments(predicted_BX: Tensor, actual_BX: Tensor) -> Tensor:
    """Return float32 [B, 5] in the order of `ClipMoments`, on the device; any shapes that begin with B."""
    predicted = predicted_BX.detach().float().flatten(1)
    actual = actual_BX.detach().float().flatten(1)
    predicted_mean, actual_mean = predicted.mean(1), actual.mean(1)
    predicted_centred = predicted - predicted_mean[:, None]
    actual_centred = actual - actual_mean[:, None]
    squares = (predicted_centred.square(), actual_centred.square(), predicted_centred * actual_centred)
    return torch.stack([predicted_mean, actual_mean, *(square.mean(1) for square in squares)], dim=1)


def pooled_correlation(clips: Sequence[ClipMoments]) -> float | None:
    """Return Pearson's correlation over all values of all clips, which are equally long.

    None where it is not defined: no clip whose moments are finite, or one side is constant.
    """
    finite = [clip for clip in clips if all(map(math.isfinite, vars(clip).values()))]
    if not finite:
        return None
    number = len(finite)
    predicted_mean = sum(clip.predicted_mean for clip in finite) / number
    actual_mean = sum(clip.actual_mean for clip in finite) / number
    predicted_variance = actual_variance = covariance = 0.0
    for clip in finite:  # within clips plus between clips
        predicted_offset, actual_offset = clip.predicted_mean - predicted_mean, clip.actual_mean - actual_mean
        predicted_variance += (clip.predicted_variance + predicted_offset**2) / number
        actual_variance += (clip.actual_variance + actual_offset**2) / number
        covariance += (clip.covariance + predicted_offset * actual_offset) / number
    if predicted_variance <= 0 or actual_variance <= 0:
        return None
    return covariance / math.sqrt(predicted_variance * actual_variance)


BINS = 8
ALL_TERMINAL = "every clip of the micro-batch was pure noise (signal-to-noise ratio 0)"
PREDICTED = "the predicted noise of the step's last micro-batch, pure-noise clips left out"
ACTUAL = "the noise that was added in the step's last micro-batch"
VIDEO = "the clean clips of the step's last micro-batch, range -1 to 1"

TAGS = {
    "Predicted_Mean": Tag(f"Mean of {PREDICTED}; should be near 0.", ALL_TERMINAL),
    "Predicted_Std": Tag(
        f"Standard deviation of {PREDICTED}; near 1 is right, well below means timid answers.", ALL_TERMINAL
    ),
    "Predicted_Min": Tag(f"Smallest value of {PREDICTED}.", ALL_TERMINAL),
    "Predicted_Max": Tag(f"Largest value of {PREDICTED}.", ALL_TERMINAL),
    "Predicted_Abs_Mean": Tag(f"Mean absolute value of {PREDICTED}; 0.80 for standard normal noise.", ALL_TERMINAL),
    "Predicted_Non_Finite": Tag(
        f"Number of values that are NaN or infinite in {PREDICTED}. Should be 0; the other figures leave them out.",
        ALL_TERMINAL,
    ),
    "Actual_Mean": Tag(f"Mean of {ACTUAL}; near 0."),
    "Actual_Std": Tag(f"Standard deviation of {ACTUAL}; near 1."),
    "Actual_Min": Tag(f"Smallest value of {ACTUAL}."),
    "Actual_Max": Tag(f"Largest value of {ACTUAL}."),
    "Actual_Abs_Mean": Tag(f"Mean absolute value of {ACTUAL}; near 0.80."),
    "Video_Mean": Tag(f"Mean of {VIDEO}: their brightness."),
    "Video_Std": Tag(f"Standard deviation of {VIDEO}. Near 0: empty or grey clips."),
    "Video_Min": Tag(f"Smallest value of {VIDEO}; below -1 means wrong scaling."),
    "Video_Max": Tag(f"Largest value of {VIDEO}; above 1 means wrong scaling."),
    "Video_Abs_Mean": Tag(f"Mean absolute value of {VIDEO}."),
    "Noise_Correlation": Tag(
        "Pearson correlation of predicted and actual noise over all values of the last micro-batch, pure-noise clips "
        "left out. 0 is guessing, 1 is perfect.",
        ALL_TERMINAL,
    ),
    "Noise_Correlation_Bin_{number}": Tag(
        "Noise_Correlation of the clips in one eighth of the timesteps; bin 1 has the least noise and is the hardest.",
        "no clip of the micro-batch fell in the bin",
    ),
    "Timestep_Mean": Tag("Mean timestep of the step's whole batch; half of the range when even."),
    "Timestep_Std": Tag("Standard deviation of the timesteps of the step's whole batch; 0.29 of the range when even."),
    "Predicted_Noise": Tag(f"Histogram of {PREDICTED}.", ALL_TERMINAL),
    "Actual_Noise": Tag(f"Histogram of {ACTUAL}; a bell around 0."),
    "Video_Contrast": Tag(
        "Data quality: standard deviation of brightness within a frame, range -1 to 1, mean over the last micro-batch."
    ),
    "Video_Sharpness": Tag(
        "Data quality: mean absolute difference of neighbouring pixels' brightness. Falls when clips are blurred."
    ),
    "Video_Motion_Energy": Tag(
        "Data quality: mean absolute change of brightness from frame to frame.", "clips have a single frame"
    ),
    "Video_Frozen_Frame_Percent": Tag(
        "Data quality: share of frame pairs in which no pixel changes by more than one grey level of 255.",
        "clips have a single frame",
    ),
}


class NoiseAnalysis(Category):
    """Looks at the tensors of one micro-batch; one transfer for the figures and one for the histograms."""

    name = "07_Noise_Analysis"
    cadence = DIAGNOSTICS
    tags = TAGS

    def on_step(self, record: StepRecord, due: Due) -> None:
        if due.diagnostics:
            self._write(record)

    @torch.no_grad()
    def _write(self, record: StepRecord) -> None:
        tensors = record.tensors
        signal_B = (~tensors.is_terminal).nonzero().flatten()
        predicted, actual = tensors.predicted_noise[signal_B], tensors.actual_noise[signal_B]
        figures = _device_figures(record, predicted)
        pairs = torch.cat([clip_moments(predicted, actual), tensors.timestep[signal_B, None].float()], dim=1)
        values = torch.cat([torch.stack(list(figures.values())), pairs.flatten()]).tolist()  # the one transfer
        scalars = dict(zip(figures, values, strict=False))
        if "Video_Frozen_Frame_Percent" in scalars:
            scalars["Video_Frozen_Frame_Percent"] *= 100  # a share until here
        self.scalars(scalars, record.step)
        rows = [values[start : start + 6] for start in range(len(figures), len(values), 6)]
        self._write_correlations(rows, record.step)
        histograms = device_histograms([predicted, tensors.actual_noise], self.config.HISTOGRAM_BINS)
        for key, histogram in zip(("Predicted_Noise", "Actual_Noise"), histograms, strict=True):
            if histogram.count:
                self.write(self.writer.histogram, key, histogram, record.step)

    def _write_correlations(self, rows: list[list[float]], step: int) -> None:
        by_bin: dict[int, list[ClipMoments]] = {}
        for *moments, timestep in rows:
            number = int(timestep) * BINS // self.config.NUM_TRAIN_TIMESTEPS + 1
            by_bin.setdefault(number, []).append(ClipMoments(*moments))
        overall = pooled_correlation([clip for clips in by_bin.values() for clip in clips])
        if overall is not None:
            self.scalars({"Noise_Correlation": overall}, step)
        for number, clips in by_bin.items():
            correlation = pooled_correlation(clips)
            if correlation is not None:
                self.scalars({"Noise_Correlation_Bin_{number}": correlation}, step, number=number)


def _device_figures(record: StepRecord, predicted: Tensor) -> dict[str, Tensor]:
    """Return scalars on the device, by the keys of their tags."""
    timestep, tensors = record.samples.timestep.float(), record.tensors
    figures = {"Timestep_Mean": timestep.mean(), "Timestep_Std": timestep.std(correction=0)}
    quality = video_quality(torch.nan_to_num(tensors.video))
    figures |= {f"Video_{name}": value for name, value in quality.items()}
    for group, tensor in (("Predicted", predicted), ("Actual", tensors.actual_noise), ("Video", tensors.video)):
        if tensor.numel():
            figures |= {f"{group}_{name}": value for name, value in _spread(tensor).items()}
    return {key: value for key, value in figures.items() if key in TAGS}


def _spread(tensor: Tensor) -> dict[str, Tensor]:
    """Return the figures of a tensor's finite values, without asking the device how many there are."""
    flat = tensor.detach().float().flatten()
    finite = torch.isfinite(flat)
    count = finite.sum()
    clean = torch.where(finite, flat, 0.0)
    mean = clean.sum() / count
    squares = torch.where(finite, flat - mean, 0.0).square().sum()
    return {
        "Mean": mean,
        "Std": (squares / count).sqrt(),
        "Abs_Mean": clean.abs().sum() / count,
        "Min": torch.where(finite, flat, math.inf).amin(),
        "Max": torch.where(finite, flat, -math.inf).amax(),
        "Non_Finite": (~finite).sum().float(),
    }
