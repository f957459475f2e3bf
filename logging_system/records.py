"""What the training loop tells the logging system, and what categories may look at.

Records are frozen: passed once, never changed. Their tensors are detached and stay on the training device, so that
making a record costs no synchronisation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy
from torch import Tensor, nn

from diffusion.loss import ClipStatistics


@dataclass(frozen=True)
class SampleStatistics(ClipStatistics):
    """One number for each clip of a step's accumulated batch."""

    is_captioned: Tensor  # bool, False where caption dropout replaced the text
    duration_error: Tensor  # |expected seconds / real seconds - 1|, by the caption that was shown


@dataclass(frozen=True)
class DiffusionTensors:
    """The videos of a step's last micro-batch, each [B, 3, T, H, W] float32; timestep and is_terminal are [B]."""

    video: Tensor  # clean, in [-1, 1]
    actual_noise: Tensor
    predicted_noise: Tensor
    timestep: Tensor
    is_terminal: Tensor


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What all processes together computed in one optimizer step; only `tensors` belongs to this process alone."""

    loss: Tensor  # scalar, mean weighted loss of the accumulated batch
    gradient_norm: Tensor  # scalar, before clipping
    gradient_norm_clipped: Tensor  # scalar, after clipping; .grad holds clipped gradients when categories look
    skipped: Tensor  # scalar bool: the loss or the gradient was not finite, so no weight changed
    overflowed: Tensor  # scalar bool: no weight changed because the scale of float16 gradients was too large alone
    loss_scale: Tensor | None = None  # scalar, what the loss was multiplied by; None unless gradients are float16
    samples: SampleStatistics
    tensors: DiffusionTensors


@dataclass(frozen=True, kw_only=True)
class StepRecord(StepResult):
    """One optimizer step that has just ended."""

    step: int  # 1 for the first step of a run
    is_first: bool  # the first step of this process (also after a resume)
    is_last: bool  # the run ends with this step
    is_early_point: bool = False  # the main process shows the loss now, without waiting for LOG_EVERY_STEPS
    is_interrupted: bool = False  # a signal or a fault ends the run with this step: nothing that takes long is wanted
    epoch: int  # 0-based
    clips_in_step: int  # of all processes and micro-batches
    frames_in_step: int  # of these clips
    samples_seen: int  # clips since step 0
    learning_rates: Mapping[str, float]  # the rate this step used, by parameter-group name
    data_seconds: float  # waited for the batch
    step_seconds: float  # of the step on the wall clock, waiting for data included, logging excluded
    rank_seconds: tuple[float, ...] = ()
    """By process: mean seconds of a step that it worked on its own, since the last time this was measured, which is at
    least at every step that scalars are due. Empty otherwise, and where one process trains alone."""


@dataclass(frozen=True)
class EpochRecord:
    """An epoch that has just ended, or the part of one at which the run stopped."""

    epoch: int  # 1 for the first
    step: int
    optimizer_steps: int  # in this epoch, in this process
    clips: int
    frames: int
    seconds: float
    learning_rate: float
    is_partial: bool
    is_last: bool


@dataclass(frozen=True)
class ValidationRecord:
    """Fixed clips, fixed noise, fixed timesteps: comparable from step to step."""

    step: int
    loss: float  # unweighted error with the right caption, mean over the bins
    loss_shuffled: float | None  # the same clips, each with another clip's caption; None where all captions are equal
    loss_null: float  # the same clips without a caption
    predict_zero: float
    gap_shuffled_interval: tuple[float, float] | None  # 95 % interval of loss_shuffled - loss over clips, if it has one
    loss_by_bin: tuple[float, ...]  # right caption, by timestep bin, from little noise to much
    gap_shuffled_by_bin: tuple[float, ...]  # loss_shuffled - loss by bin; empty where loss_shuffled is None
    trained_loss: float | None  # as loss, of training clips; None where most held-out captions can be known
    trained_loss_shuffled: float | None  # as loss_shuffled, of the same; None where their captions are equal too
    duration_error: float  # |expected seconds / real seconds - 1|, the median over the clips
    best_loss: float  # lowest so far, this one included
    seconds: float


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint that has reached the disk, perhaps while training did later steps."""

    step: int  # whose state it holds
    folder: Path
    size_bytes: int
    stall_seconds: float  # training waited for it, including the wait for the save before it
    write_seconds: float  # from its beginning until it was durable


@dataclass(frozen=True)
class GeneratedSamples:
    """Clips sampled for the fixed prompts, uint8 [T, H, W, 3] each, of any lengths."""

    prompts: tuple[str, ...]
    held_out: tuple[bool, ...]  # True: no training clip shows this prompt
    generated: tuple[numpy.ndarray, ...]  # from the EMA weights
    generated_raw: tuple[numpy.ndarray, ...]  # the first prompts from the raw weights, same noise
    real: tuple[numpy.ndarray, ...] | None  # a real clip for each prompt, where there is one
    seconds: tuple[tuple[float, float], ...]  # of the validation clips: real, and as the model expects by the caption
    measures: Mapping[str, float]  # tag name -> value, such as Text_Sensitivity; only what could be measured
    frames_per_second: float


@dataclass(frozen=True)
class NoiseVisualisation:
    """One validation clip on its way through the model; uint8 arrays are [T, H, W, 3]."""

    caption: str
    timestep: int
    original: numpy.ndarray
    noisy: numpy.ndarray
    actual_noise: numpy.ndarray
    predicted_noise: numpy.ndarray
    denoised: numpy.ndarray
    filmstrip: numpy.ndarray  # [K, T, H, W, 3]: the clean estimate after K stages of sampling, from noise to clip
    frames_per_second: float


@dataclass(frozen=True)
class RunInformation:
    """Facts that do not change while the process lives."""

    config: Mapping[str, object]  # every constant by name, JSON-compatible values
    environment: Mapping[str, str]  # versions, device, git commit, command line
    data: tuple[str, ...]  # what is trained on and held out, and what was changed of it, in lines for people
    data_measures: Mapping[str, float]  # tag name -> value, such as Captions_Unread_Percent
    resume_differences: tuple[str, ...]  # one sentence for each constant that differs from the checkpoint's
    start_step: int  # 0, or the step resumed from
    forward_flops: int | None  # of a forward pass over a clip of MAX_FRAMES; None where it could not be counted
    peak_flops_per_second: float | None  # of all devices of the run together, where it is known

    @property
    def first_step(self) -> int:
        """The step at which what belongs to the launch is written: 0, or the first step after a resume.

        Not the step resumed from: a second resume from the same checkpoint takes back what came after it, and would
        find that step's points a second time.
        """
        return self.start_step + 1 if self.start_step else 0


@dataclass(frozen=True)
class TrainingView:
    """What a category may look at; nobody changes anything through it.

    The last two are expensive, draw from private random streams, so that training is not disturbed, and raise
    Interrupted when a signal asks for the end: what was begun is given up.
    """

    run: RunInformation
    model: nn.Module  # being trained; `.grad` of its parameters holds the clipped gradients of the last step
    total_steps: Callable[[], int | None]  # where the learning-rate plan ends; None while only MAX_MINUTES ends the run
    plan: Callable[[], str | None]  # how many steps fit into MAX_MINUTES, in a sentence, once that was planned
    learning_rate_at: Callable[[int], float | None]  # planned, by step; None if the schedule follows the validation
    scheduler_state: Callable[[], Mapping[str, float]]  # the schedule's own numbers, such as last_epoch or best
    generate_samples: Callable[[], GeneratedSamples]  # for the fixed prompts
    visualise_noise: Callable[[], NoiseVisualisation]  # of one fixed validation clip
