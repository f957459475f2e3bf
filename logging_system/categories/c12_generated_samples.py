"""12_Generated_Samples: what the model makes of the fixed prompts."""

import re
from collections.abc import Sequence

import numpy

from logging_system.category import Category
from logging_system.files.writer import Writer
from logging_system.pictures.frames import captioned_grid, scale_to_be_seen
from logging_system.pictures.markdown import escape
from logging_system.records import GeneratedSamples, StepRecord
from logging_system.tags import Tag, write_scalars
from logging_system.view import TrainingView

MAXIMUM_POINTS = 8


MAXIMUM_PROMPTS = 3


class TimeLapse:
    """Keeps the first and the latest point, and points evenly between them."""

    def __init__(self) -> None:
        self._points: list[tuple[int, numpy.ndarray]] = []

    def add(self, step: int, videos_NTHWC: numpy.ndarray) -> None:
        """Keep the first prompts' clips of `step`."""
        self._points.append((step, videos_NTHWC[:MAXIMUM_PROMPTS].copy()))
        if len(self._points) > MAXIMUM_POINTS:
            self._drop_most_crowded()

    def _drop_most_crowded(self) -> None:
        """Drop the inner point whose neighbours lie closest together."""
        steps = [step for step, _ in self._points]
        gaps = [steps[index + 1] - steps[index - 1] for index in range(1, len(steps) - 1)]
        del self._points[1 + gaps.index(min(gaps))]

    @property
    def points(self) -> list[tuple[int, numpy.ndarray]]:
        """(step, clips [N, T, H, W, 3]), oldest first."""
        return list(self._points)


GRID_COLUMNS = 4


TIME_LAPSE_SIDE = 96


NOT_SPELLED = "nothing has read the generated clips"


TAGS = {
    "12_Generated_Samples/Prompt_{prompt}": Tag(
        "Looping clip for one fixed prompt, the same noise at every point, EMA weights."
    ),
    "12_Generated_Samples/Grid": Tag("All fixed prompts, EMA weights. Held out means that no training clip shows it."),
    "12_Generated_Samples/Raw_Weights": Tag(
        "The first prompts, from the same noise, with the raw weights. Better than Grid early in a run: the EMA trails."
    ),
    "12_Generated_Samples/Real_And_Generated": Tag(
        "A real clip of each prompt beside the generated one.", absent_when="the data has no real clip of the prompts"
    ),
    "12_Generated_Samples/Time_Lapse": Tag(
        "The first prompts at sampling points of this launch, oldest on the left: what training changed."
    ),
    "12_Generated_Samples/Text_Sensitivity": Tag(
        "Distance between clips of different prompts and one noise, divided by that between clips of one prompt and "
        "different noise. Near 0: the text is ignored; above 1: the text decides more than the noise.",
        absent_when="there are fewer than two prompts",
    ),
    "12_Generated_Samples/Motion_Energy_Ratio": Tag(
        "Motion energy (mean squared change from frame to frame) of generated clips divided by that of real ones. 1 is "
        "right, near 0 is a still picture, well above 1 is jitter or grain. Real clips are those of the same prompts, "
        "or of validation where a prompt has none.",
        absent_when="the real clips do not move",
    ),
    "12_Generated_Samples/Hold_Ratio": Tag(
        "Share of frame changes in which the hand is held still, in generated clips divided by that in real ones. 1 is "
        "right; well below it the hand never rests, and letters cannot be read. Frames are averaged to 8 x 8 pixels "
        "first, so that grain is no motion. Real clips are those of Motion_Energy_Ratio.",
        absent_when="the real clips hold nothing still",
    ),
    "12_Generated_Samples/Sharpness_Ratio": Tag(
        "Sharpness (mean difference of neighbouring pixels) of generated clips divided by that of real ones. 1 is "
        "right, below it is blur, above it is grain. Real clips are those of Motion_Energy_Ratio.",
        absent_when="the real clips are flat",
    ),
    "12_Generated_Samples/Frozen_Frame_Percent": Tag(
        "Share of generated frame pairs without visible change, in percent. Some are right: letters are held.",
        absent_when="it was not measured",
    ),
    "12_Generated_Samples/Letter_Error_Rate": Tag(
        "Letters that a recogniser misreads in generated clips, as a share of the letters asked for. It lies between "
        "Real_Ceiling (as good as real clips) and Shuffled_Floor (guessing).",
        absent_when=NOT_SPELLED,
    ),
    "12_Generated_Samples/Real_Ceiling": Tag(
        "The recogniser's letter error rate on real clips: the best that Letter_Error_Rate can reach.",
        absent_when=NOT_SPELLED,
    ),
    "12_Generated_Samples/Shuffled_Floor": Tag(
        "The letter error rate of the same clips against other prompts: what ignoring the text would score.",
        absent_when=NOT_SPELLED,
    ),
    "12_Generated_Samples/Nearest_Training_Distance": Tag(
        "Distance of generated clips of held-out prompts (of all, where none is held out) to their nearest training "
        "clips, of at most 256: root mean square difference at 16 x 16 pixels, range -1 to 1. Far below "
        "Nearest_Training_Distance_Real: copies.",
        absent_when="no training clip could be loaded",
    ),
    "12_Generated_Samples/Nearest_Training_Distance_Real": Tag(
        "The same distance for the real validation clips, themselves left out: what clips that are not copies have.",
        absent_when="no training clip could be loaded",
    ),
    "12_Generated_Samples/Other/{measure}": Tag(
        "A further measure of the generated clips, under the name that the evaluation gives it.",
        absent_when="there is none",
    ),
}


class GeneratedSamplesCategory(Category):
    """One request for samples a sampling point; every video and measure comes from it."""

    name = "12_Generated_Samples"

    def __init__(self) -> None:
        self._time_lapse = TimeLapse()

    def on_samples(self, record: StepRecord, view: TrainingView, writer: Writer) -> None:
        samples = view.generate_samples()
        self._write_measures(samples, record.step, writer)
        if not samples.prompts:
            return
        self._write_prompts(samples, record.step, writer)
        captions = [_caption(text, held_out) for text, held_out in zip(samples.prompts, samples.held_out, strict=True)]
        grid = captioned_grid(list(samples.generated), captions, columns=GRID_COLUMNS)
        _write(writer, "12_Generated_Samples/Grid", grid, samples, record.step, f"step_{record.step:08d}_grid")
        raw_clips = list(samples.generated_raw)
        if raw_clips:
            raw = captioned_grid(raw_clips, captions[: len(raw_clips)], columns=GRID_COLUMNS)
            _write(writer, "12_Generated_Samples/Raw_Weights", raw, samples, record.step)
        if samples.real is not None:
            pairs = [clip for pair in zip(samples.real, samples.generated, strict=True) for clip in pair]
            labels = [label for text in samples.prompts for label in (f"real: {text}", f"generated: {text}")]
            beside = captioned_grid(pairs, labels, columns=GRID_COLUMNS)
            _write(writer, "12_Generated_Samples/Real_And_Generated", beside, samples, record.step)
        self._write_time_lapse(samples, record.step, writer)

    def _write_measures(self, samples: GeneratedSamples, step: int, writer: Writer) -> None:
        for measure, value in samples.measures.items():
            tag = f"12_Generated_Samples/{measure}"
            pattern = tag if tag in TAGS else "12_Generated_Samples/Other/{measure}"
            write_scalars(writer, TAGS, {pattern: value}, step, measure=measure)

    def _write_prompts(self, samples: GeneratedSamples, step: int, writer: Writer) -> None:
        pattern = "12_Generated_Samples/Prompt_{prompt}"
        scale = scale_to_be_seen(min(samples.generated.shape[2:4]))
        names = prompt_names(samples.prompts)
        for name, text, held_out, clip in zip(names, samples.prompts, samples.held_out, samples.generated, strict=True):
            writer.video(
                pattern.format(prompt=name),
                clip,
                step,
                samples.frames_per_second,
                file_name=f"step_{step:08d}_prompt_{name}",
                scale=scale,
                description=f'Prompt "{escape(_caption(text, held_out))}". {TAGS[pattern].description}',
            )

    def _write_time_lapse(self, samples: GeneratedSamples, step: int, writer: Writer) -> None:
        self._time_lapse.add(step, samples.generated)
        points = self._time_lapse.points
        rows = range(len(points[0][1]))
        clips = [videos[row] for row in rows for _, videos in points]
        captions = [f"{samples.prompts[row]} @ {at}" for row in rows for at, _ in points]
        picture = captioned_grid(clips, captions, columns=len(points), side=TIME_LAPSE_SIDE)
        _write(writer, "12_Generated_Samples/Time_Lapse", picture, samples, step)


def prompt_names(prompts: Sequence[str]) -> list[str]:
    """Return stable names that are safe in tags and file names: a number, and what is plain of the text."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:40] for text in prompts]
    return [f"{number}_{text}" if text else str(number) for number, text in enumerate(plain, 1)]


def _caption(text: str, held_out: bool) -> str:
    return f"{text} (held out)" if held_out else text


def _write(
    writer: Writer,
    tag: str,
    video_THWC: numpy.ndarray,
    samples: GeneratedSamples,
    step: int,
    file_name: str | None = None,
) -> None:
    description = TAGS[tag].description
    writer.video(tag, video_THWC, step, samples.frames_per_second, file_name=file_name, description=description)
