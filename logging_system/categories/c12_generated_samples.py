"""12_Generated_Samples: what the model makes of the fixed prompts."""

import re
from collections.abc import Sequence

import numpy

from config import Config
from logging_system.category import SAMPLES, Category, CategoryContext, Tag
from logging_system.files.summaries import escape
from logging_system.pictures.charts import comparison_chart
from logging_system.pictures.frames import captioned_grid, scale_to_be_seen
from logging_system.records import GeneratedSamples, StepRecord

MAXIMUM_POINTS = 8
MAXIMUM_PROMPTS = 3


class TimeLapse:
    """Keeps the first and the latest point, and points evenly between them."""

    def __init__(self) -> None:
        self.points: list[tuple[int, tuple[numpy.ndarray, ...]]] = []  # step and clips, oldest first

    def add(self, step: int, clips: Sequence[numpy.ndarray]) -> None:
        """Keep the first prompts' clips of `step`."""
        self.points.append((step, tuple(clips[:MAXIMUM_PROMPTS])))
        if len(self.points) > MAXIMUM_POINTS:  # drop the inner point whose neighbours lie closest together
            steps = [step for step, _ in self.points]
            gaps = [steps[index + 1] - steps[index - 1] for index in range(1, len(steps) - 1)]
            del self.points[1 + gaps.index(min(gaps))]


GRID_COLUMNS = 4
TIME_LAPSE_SIDE = 96
NOT_SPELLED = "nothing has read the generated clips"
NOT_RANKED = "all clips have the same caption, so that none can be taken for another"
NOTHING_MOVES = "the real clips do not move"
NOTHING_HELD = "no clip has both frames in which the hand moves and frames in which it is held"

TAGS = {
    "Prompt_{prompt}": Tag("Looping clip for one fixed prompt, the same noise at every point, EMA weights."),
    "Grid": Tag("All fixed prompts, EMA weights. Held out means that no training clip shows it."),
    "Raw_Weights": Tag(
        "The first prompts, from the same noise, with the raw weights. Better than Grid early in a run: the EMA trails."
    ),
    "Real_And_Generated": Tag(
        "A real clip of each prompt beside the generated one.", absent_when="the data has no real clip of the prompts"
    ),
    "Time_Lapse": Tag(
        "The first prompts at sampling points of this launch, oldest on the left: what training changed."
    ),
    "Text_Sensitivity": Tag(
        "Distance between clips of different prompts and one noise, divided by that between clips of one prompt and "
        "different noise. Near 0: the text is ignored; above 1: the text decides more than the noise.",
        absent_when="there are fewer than two prompts",
    ),
    "Motion_Energy_Ratio": Tag(
        "Motion energy (mean squared change from frame to frame) of generated clips divided by that of real ones. 1 is "
        "right, near 0 is a still picture, well above 1 is jitter or grain. Real clips are those of the same prompts, "
        "or of validation where a prompt has none.",
        absent_when="the real clips do not move",
    ),
    "Hold_Ratio": Tag(
        "Share of frame changes in which the hand is held still, in generated clips divided by that in real ones. 1 is "
        "right; well below it the hand never rests, and letters cannot be read. Frames are averaged to 8 x 8 pixels "
        "first, so that grain is no motion. Real clips are those of Motion_Energy_Ratio.",
        absent_when="the real clips hold nothing still",
    ),
    "Sharpness_Ratio": Tag(
        "Sharpness (mean difference of neighbouring pixels) of generated clips divided by that of real ones. 1 is "
        "right, below it is blur, above it is grain. Real clips are those of Motion_Energy_Ratio.",
        absent_when="the real clips are flat",
    ),
    "Frozen_Frame_Percent": Tag(
        "Share of generated frame pairs without visible change, in percent. Some are right: letters are held.",
        absent_when="it was not measured",
    ),
    "Letter_Error_Rate": Tag(
        "Letters that a recogniser misreads in generated clips, as a share of the letters asked for. It lies between "
        "Real_Ceiling (as good as real clips) and Shuffled_Floor (guessing).",
        absent_when=NOT_SPELLED,
    ),
    "Real_Ceiling": Tag(
        "The recogniser's letter error rate on real clips: the best that Letter_Error_Rate can reach.", NOT_SPELLED
    ),
    "Shuffled_Floor": Tag(
        "The letter error rate of the same clips against other prompts: what ignoring the text would score.",
        absent_when=NOT_SPELLED,
    ),
    "Retrieval_Top1": Tag(
        "Share of generated clips whose nearest real clip, among those of up to 100 captions, shows what was asked "
        "for. Nothing is trained for it. It lies between Retrieval_Real_Ceiling (as good as real clips) and "
        "Retrieval_Shuffled_Floor (guessing). Captions are those of validation clips, or of training clips where most "
        "of the others cannot be known.",
        absent_when=NOT_RANKED,
    ),
    "Retrieval_Real_Ceiling": Tag(
        "The same share of real clips that are not among those compared with (another clip of the caption, or the same "
        "one as if filmed anew): the best that Retrieval_Top1 can reach.",
        absent_when=NOT_RANKED,
    ),
    "Retrieval_Shuffled_Floor": Tag(
        "The same share if the captions were dealt out among the generated clips by lot: what ignoring the text would "
        "score.",
        absent_when=NOT_RANKED,
    ),
    "Motion_Map_Agreement": Tag(
        "Correlation of where generated clips move with where a real clip of the same caption does: 1 is the same "
        "places, 0 unrelated ones. Compare it with Motion_Map_Agreement_Others.",
        absent_when=NOTHING_MOVES,
    ),
    "Motion_Map_Agreement_Others": Tag(
        "The same with real clips of other captions: what ignoring the text would score.",
        absent_when="the real clips do not move, or have one caption",
    ),
    "Moving_Sharpness_Ratio": Tag(
        "Sharpness of what moves, as frames differ from their clip's mean, where it moves, in generated clips divided "
        "by that in real ones. 1 is right. Well below 1 hands dissolve, which Sharpness_Ratio cannot see where most of "
        "the picture is still.",
        absent_when=NOTHING_MOVES,
    ),
    "Moving_Frame_Distance": Tag(
        "How far frames of generated clips in which the hand moves are from the nearest frame of real clips of the "
        "caption, of the picture round the hand: 0 is the same, about 1 has nothing in common. "
        "Moving_Frame_Distance_Real is what can be reached. Letters can be read although their motion is a smear.",
        absent_when=NOTHING_HELD,
    ),
    "Held_Frame_Distance": Tag(
        "The same of frames in which the hand is held. Far below Moving_Frame_Distance: motion is what is not right.",
        absent_when=NOTHING_HELD,
    ),
    "Moving_Frame_Distance_Real": Tag(
        "Moving_Frame_Distance of real clips that are not among those compared with.", absent_when=NOTHING_HELD
    ),
    "Durations": Tag(
        "How long the model expects each validation clip to be, by its caption, against how long it is. On the line: "
        "right. Clips of one caption differ, so points lie around it."
    ),
    "Nearest_Training_Distance": Tag(
        "Distance of generated clips of held-out prompts (of all, where none is held out) to their nearest training "
        "clips, of at most 256: root mean square difference at 16 x 16 pixels, range -1 to 1. Far below "
        "Nearest_Training_Distance_Real: copies.",
        absent_when="no training clip could be loaded",
    ),
    "Nearest_Training_Distance_Real": Tag(
        "The same distance for the real validation clips, themselves left out: what clips that are not copies have.",
        absent_when="no training clip could be loaded",
    ),
    "Other/{measure}": Tag(
        "A further measure of the generated clips, under the name that the evaluation gives it.", "there is none"
    ),
}


class GeneratedSamplesCategory(Category):
    """One request for samples a sampling point; every video and measure comes from it."""

    name = "12_Generated_Samples"
    cadence = SAMPLES
    tags = TAGS
    makes_samples = True

    @staticmethod
    def is_enabled(config: Config) -> bool:
        return config.ENABLE_VIDEO_LOGGING

    def __init__(self, context: CategoryContext) -> None:
        super().__init__(context)
        self._time_lapse = TimeLapse()

    def on_samples(self, record: StepRecord) -> None:
        samples = self.view.generate_samples()
        for measure, value in samples.measures.items():
            key = measure if measure in self.tags else "Other/{measure}"
            self.scalars({key: value}, record.step, measure=measure)
        real, expected = numpy.array(samples.seconds).T
        picture = comparison_chart(
            real, expected, title="Durations of validation clips", x_label="real, s", y_label="expected, s"
        )
        self.write(self.writer.image, "Durations", picture, record.step)
        if not samples.prompts:
            return
        rate = samples.frames_per_second
        held_out = zip(samples.prompts, samples.held_out, strict=True)
        captions = [f"{text} (held out)" if is_held_out else text for text, is_held_out in held_out]
        self._write_prompts(samples, captions, record.step)
        grid = captioned_grid(samples.generated, captions, columns=GRID_COLUMNS)
        self.video("Grid", grid, record.step, rate, f"step_{record.step:08d}_grid")
        if samples.generated_raw:
            raw = captioned_grid(samples.generated_raw, captions[: len(samples.generated_raw)], columns=GRID_COLUMNS)
            self.video("Raw_Weights", raw, record.step, rate)
        if samples.real is not None:
            pairs = [clip for pair in zip(samples.real, samples.generated, strict=True) for clip in pair]
            labels = [label for text in samples.prompts for label in (f"real: {text}", f"generated: {text}")]
            compared = captioned_grid(pairs, labels, columns=GRID_COLUMNS)
            self.video("Real_And_Generated", compared, record.step, rate)
        self._write_time_lapse(samples, record.step)

    def _write_prompts(self, samples: GeneratedSamples, captions: Sequence[str], step: int) -> None:
        meaning = self.tags["Prompt_{prompt}"].description
        scale = scale_to_be_seen(min(samples.generated[0].shape[1:3]))
        for name, caption, clip in zip(prompt_names(samples.prompts), captions, samples.generated, strict=True):
            self.writer.video(
                self.full_tag("Prompt_{prompt}", prompt=name),
                clip,
                step,
                samples.frames_per_second,
                file_name=f"step_{step:08d}_prompt_{name}",
                scale=scale,
                description=f'Prompt "{escape(caption)}". {meaning}',
            )

    def _write_time_lapse(self, samples: GeneratedSamples, step: int) -> None:
        self._time_lapse.add(step, samples.generated)
        points = self._time_lapse.points
        rows = range(len(points[0][1]))
        clips = [videos[row] for row in rows for _, videos in points]
        captions = [f"{samples.prompts[row]} @ {at}" for row in rows for at, _ in points]
        picture = captioned_grid(clips, captions, columns=len(points), side=TIME_LAPSE_SIDE)
        self.video("Time_Lapse", picture, step, samples.frames_per_second)


def prompt_names(prompts: Sequence[str]) -> list[str]:
    """Return stable names that are safe in tags and file names: a number, and what is plain of the text."""
    plain = [re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:40] for text in prompts]
    return [f"{number}_{text}" if text else str(number) for number, text in enumerate(plain, 1)]
