"""The clips that the dashboard shows: fixed prompts from fixed noise, and one clip on its way through the model."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.field_types import language_mark
from common.randomness import derive_seed, torch_generator
from compute.device import ComputeDevice
from config import Config
from data.fingerspelling.words import WordSplit
from data.records import ClipSource, DataSplits, FixedClips
from diffusion.prediction import add_noise, predicted_noise, predicted_video
from logging_system.records import GeneratedSamples, NoiseVisualisation
from measures.clips import (
    frozen_share,
    hold_share,
    mean_of,
    motion_energy,
    nearest_distances,
    pick_for_comparison,
    ratio_to_real,
    sharpness,
    small_copies,
    to_unit_range,
)
from measures.recogniser import LetterRecogniser
from measures.spelling import letter_error_rate, shuffled_letter_error_rate
from measures.text_use import text_sensitivity
from sampling.sampler import ClipSampler, to_pixels

COMPARED_CLIPS = 256
SCANNED_CLIPS = 4096  # of a larger data set, only the first clips may be picked


class TrainingComparison:
    """Holds small copies of some training clips; they are loaded when they are first needed.

    Only clips of held-out prompts are compared, where there are any: a clip of a word that was trained on is rightly
    near that word's training clips, and real validation clips, whose captions are held out, have no such neighbours.
    """

    def __init__(
        self, training: ClipSource, prompts: Sequence[str], held_out: Sequence[bool], validation: FixedClips
    ) -> None:
        """`held_out` says of each prompt whether no training clip shows it; `validation` holds the real clips."""
        self._training = training
        self._compared = [index for index in range(len(prompts)) if held_out[index] or not any(held_out)]
        self._prompts = [prompts[index] for index in self._compared]
        self._validation = validation

    def measures(self, generated: Sequence[Tensor]) -> Mapping[str, float]:
        """Return the distances by the names of their tags, for a clip a prompt; empty without clips to compare with."""
        if not self._copies.shape[0]:
            return {}
        compared = small_copies([generated[index] for index in self._compared])
        distance = nearest_distances(compared, self._copies).mean().item()
        return {"Nearest_Training_Distance": distance, "Nearest_Training_Distance_Real": self._real_distance}

    @cached_property
    def _copies(self) -> Tensor:
        rows = [self._training.row(0, index) for index in range(min(len(self._training), SCANNED_CLIPS))]
        # A small data set may validate on training clips. They would be at 0 from themselves.
        validated = {row.id for row in self._validation.rows}
        rows = [row for row in rows if row.id not in validated]
        picked = pick_for_comparison([row.caption for row in rows], self._prompts, COMPARED_CLIPS)
        found = []
        for index in picked:
            try:
                clip = self._training.load(rows[index])
            except UserError:  # its file has gone, which the training loop reports in its turn
                continue
            found.append(small_copies([to_unit_range(torch.from_numpy(clip))]))
        return torch.cat(found) if found else torch.empty(0, 0)

    @cached_property
    def _real_distance(self) -> float:
        return nearest_distances(small_copies(self._validation.videos), self._copies).mean().item()


MOST_WORDS = 32
NOISE_STREAM = 2  # of ClipSampler.initial_noise; the showcase's own noises are 0 and 1


class SpellingTest:
    """Compares what a recogniser reads in generated clips with what was asked for."""

    def __init__(
        self,
        *,
        recogniser: LetterRecogniser,
        sampler: ClipSampler,
        split: WordSplit,
        validation: FixedClips,
        seed: int,
    ) -> None:
        """The words are those of the validation clips, which are the real clips to compare with."""
        self._recogniser = recogniser
        self._sampler = sampler
        self._captions = validation.captions[:MOST_WORDS]
        self._asked = [split.alphabets.segment(caption) for caption in self._captions]
        self._marks = [language_mark(word[0]) for word in self._asked]
        self._real = validation.videos[:MOST_WORDS]
        self._seed = seed

    def measures(self, model: nn.Module) -> Mapping[str, float]:
        """Generate and read one clip a word; return the figures by the names of their tags."""
        noises = [
            self._sampler.initial_noise(frames, self._seed, NOISE_STREAM, index)
            for index, frames in enumerate(self._sampler.frames(model, self._captions))
        ]
        clips = self._sampler.sample(model, self._captions, noises, derive_seed(self._seed, "spelling_test"))
        readings = self._recogniser.read(clips, self._marks)
        rate = letter_error_rate(self._asked, readings)
        measures = {"Letter_Error_Rate": rate, "Real_Ceiling": self._real_ceiling}
        floor = shuffled_letter_error_rate(self._asked, readings)
        return measures if floor is None else {**measures, "Shuffled_Floor": floor}

    @cached_property
    def _real_ceiling(self) -> float:
        return letter_error_rate(self._asked, self._recogniser.read(self._real, self._marks))


RAW_PROMPTS = 2  # prompts also sampled from the raw weights, and again from a second noise
FILMSTRIP_STAGES = 6
NOISE_DISPLAY_RANGE = 3.0  # standard deviations that the picture of a noise spans on either side of grey


def sample_passes(config: Config, splits: DataSplits) -> int:
    """Return how many forward passes of single clips a round of samples takes, about."""
    clips = 0
    if config.ENABLE_VIDEO_LOGGING:
        prompts = len(config.SAMPLE_PROMPTS or splits.default_prompts)
        clips += prompts + 2 * min(RAW_PROMPTS, prompts)
        if config.DATA_ROOT is None and config.RECOGNISER_STEPS > 0:
            clips += min(MOST_WORDS, config.VALIDATION_CLIPS)
    if config.ENABLE_NOISE_VISUALIZATION:
        clips += 1
    guided = 1 if config.GUIDANCE_SCALE == 1 else 2
    return clips * config.SAMPLING_STEPS * guided * (2 if config.SAMPLER == "heun" else 1)


class Showcase:
    """Makes the same pictures at every step, so that they can be compared. Draws from private random streams."""

    def __init__(
        self,
        *,
        sampler: ClipSampler,
        splits: DataSplits,
        prompts: Sequence[str],
        validation: FixedClips,
        compute: ComputeDevice,
        spelling: SpellingTest | None,
        frames_per_second: float,
        seed: int,
    ) -> None:
        self._sampler = sampler
        self._prompts = tuple(prompts)
        self._held_out = tuple(splits.is_held_out(prompt) for prompt in prompts)
        clips = [splits.real_clip(prompt) for prompt in prompts]
        found = tuple(clip for clip in clips if clip is not None)
        self._real = found if len(found) == len(clips) else None
        self._comparison = TrainingComparison(splits.training, self._prompts, self._held_out, validation)
        self._validation = validation
        self._spelling = spelling
        self._compute = compute
        self._frames_per_second = frames_per_second
        self._seed = seed

    def generate(self, model: nn.Module, ema_model: nn.Module) -> GeneratedSamples:
        """Sample every prompt from one shared noise, so that what differs between the clips comes from the text."""
        count, repeats = len(self._prompts), min(RAW_PROMPTS, len(self._prompts))
        expected = self._sampler.seconds(ema_model, self._validation.captions)
        real = [row.seconds for row in self._validation.rows]
        lengths = self._sampler.frames(ema_model, self._prompts)
        shared = [self._sampler.initial_noise(frames, self._seed, 0) for frames in lengths]
        other = [self._sampler.initial_noise(frames, self._seed, 1) for frames in lengths[:repeats]]
        clips = self._sampler.sample(ema_model, self._prompts + self._prompts[:repeats], shared + other, self._seed)
        raw = self._sampler.sample(model, self._prompts[:repeats], shared[:repeats], self._seed)
        return GeneratedSamples(
            prompts=self._prompts,
            held_out=self._held_out,
            generated=tuple(map(to_pixels, clips[:count])),
            generated_raw=tuple(map(to_pixels, raw)),
            real=self._real,
            seconds=tuple(zip(real, expected, strict=True)),
            measures=self._measure(clips[:count], clips[count:], ema_model),
            frames_per_second=self._frames_per_second,
        )

    def _measure(self, clips: Sequence[Tensor], repeated: Sequence[Tensor], ema_model: nn.Module) -> dict[str, float]:
        real: Sequence[Tensor] = self._validation.videos
        if self._real is not None:  # every prompt has a real clip: the closer comparison
            real = [to_unit_range(torch.from_numpy(clip)) for clip in self._real]
        measures: dict[str, float | None] = {
            "Text_Sensitivity": text_sensitivity(clips, repeated),
            "Frozen_Frame_Percent": 100 * mean_of(frozen_share, clips),
            "Motion_Energy_Ratio": ratio_to_real(motion_energy, clips, real),
            "Hold_Ratio": ratio_to_real(hold_share, clips, real),
            "Sharpness_Ratio": ratio_to_real(sharpness, clips, real),
            **self._comparison.measures(clips),
        }
        if self._spelling is not None:
            measures.update(self._spelling.measures(ema_model))
        return {name: value for name, value in measures.items() if value is not None}

    @torch.no_grad()
    def visualise_noise(self, ema_model: nn.Module) -> NoiseVisualisation:
        """Noise the first validation clip to the middle timestep and denoise it; then sample its caption in stages."""
        settings, device = self._sampler.settings, self._compute.device
        timestep = settings.schedule.num_timesteps // 2
        video = self._validation.videos[0][None].to(device)
        tokens = self._validation.tokens_BL[:1].to(device)
        generator = torch_generator(self._seed, "noise_visualisation")
        noise = torch.randn(video.shape, generator=generator).to(device)
        timestep_B = torch.full((1,), timestep, dtype=torch.int64, device=device)
        sample = add_noise(settings.schedule, settings.prediction_type, video, noise, timestep_B)
        with self._compute.autocast():
            keep = torch.zeros(1, dtype=torch.bool, device=device)
            prediction = ema_model(sample.noisy_video, timestep_B, tokens, keep).float()
        arguments = (settings.schedule, settings.prediction_type, prediction, sample.noisy_video, timestep_B)
        return NoiseVisualisation(
            caption=self._validation.captions[0],
            timestep=timestep,
            original=to_pixels(video[0]),
            noisy=to_pixels(sample.noisy_video[0]),
            actual_noise=to_pixels(noise[0] / NOISE_DISPLAY_RANGE),
            predicted_noise=to_pixels(predicted_noise(*arguments)[0] / NOISE_DISPLAY_RANGE),
            denoised=to_pixels(predicted_video(*arguments)[0]),
            filmstrip=self._filmstrip(ema_model),
            frames_per_second=self._frames_per_second,
        )

    def _filmstrip(self, ema_model: nn.Module) -> numpy.ndarray:
        """Return the clean estimate at evenly spread stages of sampling, the finished clip last: [K, T, H, W, 3]."""
        estimates: list[Tensor] = []
        frames = self._validation.rows[0].frames
        (clip,) = self._sampler.sample(
            ema_model,
            self._validation.captions[:1],
            [self._sampler.initial_noise(frames, self._seed, 0)],
            self._seed,
            on_step=lambda _, estimate: estimates.append(estimate[0].cpu()),
        )
        estimates.append(clip)
        stages = min(FILMSTRIP_STAGES, len(estimates))
        picked = [round(index * (len(estimates) - 1) / max(1, stages - 1)) for index in range(stages)]
        return to_pixels(torch.stack([estimates[index] for index in picked]))
