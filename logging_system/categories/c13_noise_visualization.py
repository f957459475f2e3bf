"""13_Noise_Visualization: one validation clip on its way through the model."""

from logging_system.category import Category
from logging_system.files.writer import Writer
from logging_system.pictures.frames import captioned_grid
from logging_system.records import NoiseVisualisation, StepRecord
from logging_system.tags import Tag
from logging_system.view import TrainingView

TAGS = {
    "13_Noise_Visualization/Predicted_Noise": Tag("The noise that the model sees in a fixed noisy validation clip."),
    "13_Noise_Visualization/Actual_Noise": Tag("The noise that was added to it. Predicted_Noise should look the same."),
    "13_Noise_Visualization/Original_Video": Tag("The validation clip before noise was added."),
    "13_Noise_Visualization/Side_By_Side": Tag(
        "Original, noisy, actual noise, predicted noise and denoised clip, frame by frame. The outline of the clip in "
        "the predicted noise is signal that the model has taken for noise."
    ),
    "13_Noise_Visualization/Denoising_Filmstrip": Tag(
        "The model's estimate of the clean clip at stages of sampling, from pure noise on the left to the finished "
        "clip on the right."
    ),
}


class NoiseVisualization(Category):
    """One request for the visualisation a sampling point."""

    name = "13_Noise_Visualization"

    def on_samples(self, record: StepRecord, view: TrainingView, writer: Writer) -> None:
        seen = view.visualise_noise()
        single = f"{seen.caption}, t = {seen.timestep}"
        clips = {
            "13_Noise_Visualization/Predicted_Noise": ([seen.predicted_noise], [single]),
            "13_Noise_Visualization/Actual_Noise": ([seen.actual_noise], [single]),
            "13_Noise_Visualization/Original_Video": ([seen.original], [seen.caption]),
            "13_Noise_Visualization/Side_By_Side": (
                [seen.original, seen.noisy, seen.actual_noise, seen.predicted_noise, seen.denoised],
                ["original", f"noisy, t = {seen.timestep}", "actual noise", "predicted noise", "denoised"],
            ),
            "13_Noise_Visualization/Denoising_Filmstrip": (list(seen.filmstrip), _stages(seen)),
        }
        for tag, (videos, captions) in clips.items():
            picture = captioned_grid(videos, captions, columns=len(videos))
            writer.video(tag, picture, record.step, seen.frames_per_second, description=TAGS[tag].description)


def _stages(seen: NoiseVisualisation) -> list[str]:
    number = len(seen.filmstrip)
    return [f"stage {stage} of {number}" for stage in range(1, number + 1)]
