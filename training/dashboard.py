"""What of the trainer the dashboard may read: built by the main process, and by no other."""

import sys

from common.settings import config_as_json
from compute.environment import describe_environment
from data.fingerspelling import FingerspellingSplits
from data.records import DataSplits
from logging_system.records import GeneratedSamples, NoiseVisualisation, RunInformation, TrainingView
from measures.recogniser_training import build_recogniser
from sampling.sampler import ClipSampler, build_sampler
from training.learner import Learner
from training.showcase import Showcase, SpellingTest
from training.stopping import StopRequest


def build_view(
    learner: Learner, splits: DataSplits, differences: tuple[str, ...], argv: list[str], stop: StopRequest
) -> TrainingView:
    """Build what the dashboard may read. Nothing is written yet.

    `differences` from the checkpoint that the run resumes from are a sentence each; `stop` may give up the sampling.
    """
    config, compute = learner.config, learner.compute
    sampler = build_sampler(config, learner.objective.schedule, learner.tokenizer, compute)
    peak = compute.peak_flops_per_second
    showcase = Showcase(
        sampler=sampler,
        splits=splits,
        prompts=config.SAMPLE_PROMPTS or splits.default_prompts,
        validation=learner.validation_clips,
        compute=compute,
        spelling=_spelling_test(learner, splits, sampler),
        frames_per_second=config.FRAMES_PER_SECOND,
        seed=config.SEED,
    )

    def generate_samples() -> GeneratedSamples:
        with stop.interruptible():
            return showcase.generate(learner.dashboard_model, learner.dashboard_average)

    def visualise_noise() -> NoiseVisualisation:
        with stop.interruptible():
            return showcase.visualise_noise(learner.dashboard_average)

    return TrainingView(
        run=RunInformation(
            config=config_as_json(config),
            environment=describe_environment(compute, argv),
            data=tuple(splits.summary.lines()),
            data_measures=splits.summary.measures,
            resume_differences=differences,
            start_step=learner.start.step,
            forward_flops=learner.forward_flops,
            peak_flops_per_second=None if peak is None else learner.processes.part.world_size * peak,
        ),
        model=learner.dashboard_model,
        total_steps=lambda: learner.limits.total_steps,
        plan=lambda: learner.limits.plan,
        learning_rate_at=learner.schedule.planned_rate,
        scheduler_state=learner.schedule.state,
        generate_samples=generate_samples,
        visualise_noise=visualise_noise,
    )


def _spelling_test(learner: Learner, splits: DataSplits, sampler: ClipSampler) -> SpellingTest | None:
    """Build it if there are letters to read and videos to read them from."""
    config = learner.config
    if not isinstance(splits, FingerspellingSplits) or not config.ENABLE_VIDEO_LOGGING or config.RECOGNISER_STEPS == 0:
        return None
    try:
        recogniser = build_recogniser(config, splits, learner.compute.device)
    except Exception as error:  # noqa: BLE001  # what watches a run must not end it
        print(f"warning: no recogniser, so no Letter_Error_Rate in this run: {error!r}", file=sys.stderr)
        return None
    return SpellingTest(
        recogniser=recogniser,
        sampler=sampler,
        split=splits.split,
        validation=learner.validation_clips,
        seed=config.SEED,
    )
