"""What of the trainer the dashboard may read: built by the main process, and by no other."""

import sys

from common.settings import config_as_json
from compute.environment import describe_environment
from data.fingerspelling import FingerspellingSplits
from data.records import DataSplits
from logging_system.records import GeneratedSamples, NoiseVisualisation, RunInformation, TrainingView
from measures.recogniser_training import build_recogniser, spelled_words
from sampling.sampler import ClipSampler, build_sampler
from training.learner import Learner
from training.showcase import MOST_CAPTIONS, CaptionTest, RetrievalJudge, Showcase, SpellingJudge
from training.stopping import StopRequest
from training.validation import load_fixed_clips


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
        caption_test=_caption_test(learner, splits, sampler),
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


def _caption_test(learner: Learner, splits: DataSplits, sampler: ClipSampler) -> CaptionTest:
    """Ask for the captions of validation clips, or of training clips where no other caption can be known."""
    config, trained = learner.config, splits.validation_of_trained
    asked = learner.validation_clips
    if trained is not None:
        asked = load_fixed_clips(trained, learner.tokenizer, MOST_CAPTIONS)
    asked = asked.first(MOST_CAPTIONS)
    judges: list[SpellingJudge | RetrievalJudge] = [RetrievalJudge(splits, asked, config.SEED)]
    # Without videos no clip is generated, so that a recogniser would be trained for nothing.
    if isinstance(splits, FingerspellingSplits) and config.ENABLE_VIDEO_LOGGING and config.RECOGNISER_STEPS > 0:
        try:
            recogniser = build_recogniser(config, spelled_words(splits, config.SEED), learner.compute.device)
        except Exception as error:  # noqa: BLE001  # what watches a run must not end it
            print(f"warning: no recogniser, so no Letter_Error_Rate in this run: {error!r}", file=sys.stderr)
        else:
            judges.append(SpellingJudge(recogniser, splits.split, asked))
    return CaptionTest(judges, sampler, asked.captions, config.SEED)
