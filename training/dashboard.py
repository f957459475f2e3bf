"""The dashboard of a run, and what of the trainer it may look at: built by the main process, and by no other."""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from common.settings import config_as_json
from compute.device import ComputeDevice
from compute.environment import describe_environment
from config import Config
from data.fingerspelling import FingerspellingSplits
from data.records import Batch, DataSplits
from distributed.processes import Processes
from logging_system.cadence import Cadence
from logging_system.dispatcher import RunLog, build_dispatcher
from logging_system.records import GeneratedSamples, NoiseVisualisation, RunInformation
from measures.recogniser import LetterRecogniser
from measures.recogniser_store import build_recogniser
from models.tokens import Tokenizer
from sampling.sampler import ClipSampler, build_sampler
from training.learner import Learner
from training.learning_rate import LearningRateSchedule
from training.resume import ResumedConfig
from training.showcase import Showcase, SpellingTest
from training.stopping import StopRequest


@dataclass(frozen=True)
class TrainerView:
    """Read-only access to the trainer's parts."""

    run: RunInformation
    model: nn.Module
    ema_model: nn.Module
    schedule: LearningRateSchedule
    showcase: Showcase
    total_steps: int | None
    interruptible: Callable[[], AbstractContextManager[None]]  # in which a signal gives up what takes long

    def learning_rate_at(self, step: int) -> float | None:
        return self.schedule.planned_rate(step)

    def scheduler_state(self) -> Mapping[str, float]:
        return self.schedule.state()

    def generate_samples(self) -> GeneratedSamples:
        with self.interruptible():
            return self.showcase.generate(self.model, self.ema_model)

    def visualise_noise(self) -> NoiseVisualisation:
        with self.interruptible():
            return self.showcase.visualise_noise(self.ema_model)


def build_run_log(config: Config, run_folder: Path, learner: Learner, view: TrainerView | None) -> RunLog:
    """Build what the training loop tells of its steps; without a view, which the main process alone has, nothing."""
    if view is None:
        return RunLog(Cadence.from_config(config), learner.copies)
    return build_dispatcher(config, run_folder, view, learner.start.step, learner.copies)


def build_view(
    config: Config,
    learner: Learner,
    splits: DataSplits,
    tokenizer: Tokenizer,
    compute: ComputeDevice,
    resumed: ResumedConfig,
    argv: list[str],
    stop: StopRequest,
    processes: Processes,
) -> TrainerView:
    """Build what the dashboard may look at: as of now, nothing of it is written."""
    recogniser = _recogniser(config, splits)
    peak = compute.peak_flops_per_second
    sampler = build_sampler(config, learner.objective.schedule, tokenizer, compute)
    return TrainerView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            resume_differences=resumed.differences,
            start_step=learner.start.step,
            forward_flops=learner.forward_flops,
            peak_flops_per_second=None if peak is None else processes.part.world_size * peak,
        ),
        model=learner.shown,
        ema_model=learner.shown_average,
        schedule=learner.schedule,
        showcase=_showcase(config, splits, recogniser, learner.validation_batch, sampler, compute),
        total_steps=learner.limits.total_steps,
        interruptible=stop.interruptible,
    )


def _showcase(
    config: Config,
    splits: DataSplits,
    recogniser: LetterRecogniser | None,
    validation_batch: Batch,
    sampler: ClipSampler,
    compute: ComputeDevice,
) -> Showcase:
    return Showcase(
        sampler=sampler,
        splits=splits,
        prompts=config.SAMPLE_PROMPTS or splits.default_prompts,
        validation_batch=validation_batch,
        compute=compute,
        spelling=_spelling_test(config, splits, recogniser, validation_batch, sampler),
        frames_per_second=config.VIDEO_FRAMES_PER_SECOND,
        seed=config.SEED,
    )


def _recogniser(config: Config, splits: DataSplits) -> LetterRecogniser | None:
    """Build it where there are letters to read, and somebody to show the figures to."""
    if not isinstance(splits, FingerspellingSplits) or not config.ENABLE_VIDEO_LOGGING or config.RECOGNISER_STEPS == 0:
        return None
    try:
        return build_recogniser(config, splits)
    except Exception as error:  # noqa: BLE001  # what watches a run must not end it
        print(f"warning: no recogniser, so no Letter_Error_Rate in this run: {error!r}", file=sys.stderr)
        return None


def _spelling_test(
    config: Config,
    splits: DataSplits,
    recogniser: LetterRecogniser | None,
    validation_batch: Batch,
    sampler: ClipSampler,
) -> SpellingTest | None:
    if recogniser is None or not isinstance(splits, FingerspellingSplits):
        return None
    return SpellingTest(
        recogniser=recogniser,
        sampler=sampler,
        split=splits.split,
        validation_batch=validation_batch,
        clips_at_once=config.BATCH_SIZE,
        seed=config.SEED,
    )
