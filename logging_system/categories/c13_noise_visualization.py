"""13_Noise_Visualization: one validation clip on its way through the model."""

from config import Config
from logging_system.category import SAMPLES, Category, Tag
from logging_system.pictures.frames import captioned_grid
from logging_system.records import StepRecord

TAGS = {
    "Predicted_Noise": Tag("The noise that the model sees in a fixed noisy validation clip."),
    "Actual_Noise": Tag("The noise that was added to it. Predicted_Noise should look the same."),
    "Original_Video": Tag("The validation clip before noise was added."),
    "Side_By_Side": Tag(
        "Original, noisy, actual noise, predicted noise and denoised clip, frame by frame. The outline of the clip in "
        "the predicted noise is signal that the model has taken for noise."
    ),
    "Denoising_Filmstrip": Tag(
        "The model's estimate of the clean clip at stages of sampling, from pure noise on the left to the finished "
        "clip on the right."
    ),
}


class NoiseVisualization(Category):
    """One request for the visualisation a sampling point."""

    name = "13_Noise_Visualization"
    cadence = SAMPLES
    tags = TAGS
    makes_samples = True

    @staticmethod
    def is_enabled(config: Config) -> bool:
        return config.ENABLE_NOISE_VISUALIZATION

    def on_samples(self, record: StepRecord) -> None:
        seen = self.view.visualise_noise()
        single, stages = f"{seen.caption}, t = {seen.timestep}", len(seen.filmstrip)
        clips = {
            "Predicted_Noise": ([seen.predicted_noise], [single]),
            "Actual_Noise": ([seen.actual_noise], [single]),
            "Original_Video": ([seen.original], [seen.caption]),
            "Side_By_Side": (
                [seen.original, seen.noisy, seen.actual_noise, seen.predicted_noise, seen.denoised],
                ["original", f"noisy, t = {seen.timestep}", "actual noise", "predicted noise", "denoised"],
            ),
            "Denoising_Filmstrip": (
                list(seen.filmstrip),
                [f"stage {stage} of {stages}" for stage in range(1, stages + 1)],
            ),
        }
        for key, (videos, captions) in clips.items():
            picture = captioned_grid(videos, captions, columns=len(videos))
            self.video(key, picture, record.step, seen.frames_per_second)
