"""The clips that the dashboard shows: fixed prompts from fixed noise, and one clip on its way through the model."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.field_types import language_mark
from common.randomness import derive_seed, torch_generator
from compute.device import ComputeDevice
from config import Config
from data.clip_splits import caption_key
from data.fingerspelling.words import WordSplit
from data.records import ClipRow, ClipSource, DataSplits, FixedClips, as_video, to_pixels
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
)
from measures.likeness import map_agreement, motion_map, moving_sharpness
from measures.recogniser import LetterRecogniser
from measures.retrieval import (
    RETRIEVAL_POOL,
    Ranking,
    another_look,
    clip_features,
    moving_and_held,
    pictures_by_caption,
    rank_captions,
    shares_a_frame,
    shuffled_floor_interval,
    top_k_interval,
    warped_distances,
)
from measures.spelling import letter_error_rate, shuffled_letter_error_rate
from measures.text_use import text_sensitivity
from sampling.sampler import ClipSampler

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
            found.append(small_copies([as_video(torch.from_numpy(clip))]))
        return torch.cat(found) if found else torch.empty(0, 0)

    @cached_property
    def _real_distance(self) -> float:
        return nearest_distances(small_copies(self._validation.videos), self._copies).mean().item()


MOST_CAPTIONS = 32
NOISE_STREAM = 2  # of ClipSampler.initial_noise; the showcase's own noises are 0 and 1


class SpellingJudge:
    """Compares what a recogniser reads in generated clips with what was asked for."""

    def __init__(self, recogniser: LetterRecogniser, split: WordSplit, asked: FixedClips) -> None:
        """`asked`: the real clips to compare with; generated ones show their captions, in order."""
        self._recogniser = recogniser
        self._asked = [split.alphabets.segment(caption) for caption in asked.captions]
        self._marks = [language_mark(word[0]) for word in self._asked]
        self._real = asked.videos

    def measures(self, generated: Sequence[Tensor]) -> Mapping[str, float]:
        """Read one clip a word; return the figures by the names of their tags."""
        readings = self._recogniser.read(generated, self._marks)
        rate = letter_error_rate(self._asked, readings)
        measures = {"Letter_Error_Rate": rate, "Real_Ceiling": self._real_ceiling}
        floor = shuffled_letter_error_rate(self._asked, readings)
        return measures if floor is None else {**measures, "Shuffled_Floor": floor}

    @cached_property
    def _real_ceiling(self) -> float:
        return letter_error_rate(self._asked, self._recogniser.read(self._real, self._marks))


CLIPS_A_CAPTION = 4  # real ones that show a caption which is asked for: signers differ


@dataclass(frozen=True)
class References:
    """Real clips that others are compared with."""

    captions: Sequence[str]
    features: Sequence[Tensor]  # `clip_features` of each
    pictures: Mapping[str, Tensor]  # `frame_pictures` of asked captions, by `caption_key`
    shared: frozenset[int]  # places of asked clips that are from the same recordings as a reference of their caption


class RetrievalJudge:
    """Looks for the real clip that a generated one is nearest to, and compares where both move.

    Real clips are loaded when they are first needed, and only their features stay. Each caption that is asked for has
    references; clips of other training captions make it harder to be right by chance.
    """

    def __init__(self, splits: DataSplits, asked: FixedClips, seed: int) -> None:
        """`asked`: real clips; generated ones show their captions, in order."""
        self._splits = splits
        self._asked = asked
        self._seed = seed

    def measures(self, generated: Sequence[Tensor]) -> Mapping[str, float]:
        """Return the figures of a clip a caption by the names of their tags, but for those that cannot be measured."""
        of_real, frames_of_real = self._of_real
        measures: dict[str, float | None] = {
            "Moving_Sharpness_Ratio": ratio_to_real(sharpness_of_motion, generated, self._asked.videos),
            **self._agreement([motion_map(clip) for clip in generated]),
        }
        if frames_of_real is not None and (frames := self._moving_and_held(generated)) is not None:
            measures["Moving_Frame_Distance"], measures["Held_Frame_Distance"] = frames
            measures["Moving_Frame_Distance_Real"] = frames_of_real[0]
        ranking = self._rank(generated)
        if ranking is not None and of_real is not None:
            measures["Retrieval_Top1"] = top_k_interval(ranking, 1, self._seed).value
            measures["Retrieval_Real_Ceiling"] = top_k_interval(of_real, 1, self._seed).value
            measures["Retrieval_Shuffled_Floor"] = shuffled_floor_interval(ranking, 1, self._seed).value
        return {name: value for name, value in measures.items() if value is not None}

    def _agreement(self, maps: Sequence[Tensor]) -> Mapping[str, float]:
        """Compare where clips move with where the real clips do: of the same caption, and of others."""
        if not any(bool(real.any()) for real in self._real_maps):
            return {}
        names = list(map(caption_key, self._asked.captions))
        places = range(len(names))
        others = [(one, other) for one in places for other in places if names[one] != names[other]]
        chosen = {"Motion_Map_Agreement": [(place, place) for place in places]}
        if others:
            chosen["Motion_Map_Agreement_Others"] = others
        return {
            name: torch.stack([map_agreement(maps[one], self._real_maps[other]) for one, other in pairs]).mean().item()
            for name, pairs in chosen.items()
        }

    def _moving_and_held(self, clips: Sequence[Tensor]) -> tuple[float, float] | None:
        """Return how far frames are from real ones of the caption: where the hand moves, and where it is held."""
        pictures = self._references.pictures
        found = [
            moving_and_held(clip, pictures[caption_key(caption)])
            for clip, caption in zip(clips, self._asked.captions, strict=True)
        ]
        both = [each for each in found if each is not None]
        if not both:
            return None
        moving, held = numpy.mean(both, axis=0)
        return float(moving), float(held)

    def _rank(self, clips: Sequence[Tensor]) -> Ranking | None:
        references = self._references
        distance = warped_distances([clip_features(clip) for clip in clips], references.features)
        return rank_captions(distance, self._asked.captions, references.captions, RETRIEVAL_POOL, self._seed)

    @cached_property
    def _real_maps(self) -> list[Tensor]:
        return [motion_map(clip) for clip in self._asked.videos]

    @cached_property
    def _of_real(self) -> tuple[Ranking | None, tuple[float, float] | None]:
        """Judge the asked clips; those that have recordings in common with references are shown in another look."""
        shared = self._references.shared
        queries = [
            another_look(clip, derive_seed(self._seed, "retrieval_look", index)) if index in shared else clip
            for index, clip in enumerate(self._asked.videos)
        ]
        return self._rank(queries), self._moving_and_held(queries)

    @cached_property
    def _references(self) -> References:
        """Return some clips of each asked caption, and one of each of some others."""
        training, asked = self._splits.training, self._asked
        own = {row.id for row in asked.rows}
        rows: dict[str, list[ClipRow]] = {caption_key(caption): [] for caption in asked.captions}
        wanted = len(rows)
        for index in range(min(len(training), SCANNED_CLIPS)):
            row = training.row(0, index)
            if row.id not in own:
                rows.setdefault(caption_key(row.caption), []).append(row)
        found: list[tuple[str, numpy.ndarray]] = []
        for place, (caption, of_caption) in enumerate(itertools.islice(rows.items(), max(RETRIEVAL_POOL, wanted))):
            for row in of_caption[: CLIPS_A_CAPTION if place < wanted else 1]:
                # A file that has gone is reported by the training loop in its turn.
                with contextlib.suppress(UserError):
                    found.append((caption, training.load(row)))
        known = {caption for caption, _ in found}
        for row, pixels in zip(asked.rows, asked.pixels, strict=True):
            if caption_key(row.caption) not in known:  # no training clip shows it
                real = self._splits.real_clip(row.caption)
                found.append((row.caption, pixels.numpy() if real is None else real))
        shared = frozenset(
            index
            for index, (row, pixels) in enumerate(zip(asked.rows, asked.pixels, strict=True))
            if shares_a_frame(
                pixels.numpy(), (clip for name, clip in found if caption_key(name) == caption_key(row.caption))
            )
        )
        features = [clip_features(as_video(torch.from_numpy(clip))) for _, clip in found]
        wished = set(map(caption_key, asked.captions))
        pictures = pictures_by_caption(
            (caption, as_video(torch.from_numpy(clip))) for caption, clip in found if caption_key(caption) in wished
        )
        return References([caption for caption, _ in found], features, pictures, shared)


def sharpness_of_motion(clip_CTHW: Tensor) -> Tensor:
    """Return the sharpness of what moves in a clip, where it moves, a scalar."""
    return moving_sharpness(clip_CTHW, motion_map(clip_CTHW))


class CaptionTest:
    """Generates a clip of each of some captions, for all judges of whether clips show what they were asked for."""

    def __init__(
        self, judges: Sequence[SpellingJudge | RetrievalJudge], sampler: ClipSampler, captions: Sequence[str], seed: int
    ) -> None:
        self._judges = judges
        self._sampler = sampler
        self._captions = captions
        self._seed = seed

    def measures(self, model: nn.Module) -> Mapping[str, float]:
        """Generate the clips; return what the judges say by the names of the tags."""
        noises = [
            self._sampler.initial_noise(frames, self._seed, NOISE_STREAM, index)
            for index, frames in enumerate(self._sampler.frames(model, self._captions))
        ]
        clips = self._sampler.sample(model, self._captions, noises, derive_seed(self._seed, "spelling_test"))
        return {name: value for judge in self._judges for name, value in judge.measures(clips).items()}


RAW_PROMPTS = 2  # prompts also sampled from the raw weights, and again from a second noise
FILMSTRIP_STAGES = 6
NOISE_DISPLAY_RANGE = 3.0  # standard deviations that the picture of a noise spans on either side of grey


def sample_passes(config: Config, splits: DataSplits) -> int:
    """Return how many forward passes of single clips a round of samples takes, about."""
    clips = 0
    if config.ENABLE_VIDEO_LOGGING:
        prompts = len(config.SAMPLE_PROMPTS or splits.default_prompts)
        clips += prompts + 2 * min(RAW_PROMPTS, prompts)
        clips += min(MOST_CAPTIONS, config.VALIDATION_CLIPS)
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
        caption_test: CaptionTest,
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
        self._caption_test = caption_test
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
            real = [as_video(torch.from_numpy(clip)) for clip in self._real]
        measures: dict[str, float | None] = {
            "Text_Sensitivity": text_sensitivity(clips, repeated),
            "Frozen_Frame_Percent": 100 * mean_of(frozen_share, clips),
            "Motion_Energy_Ratio": ratio_to_real(motion_energy, clips, real),
            "Hold_Ratio": ratio_to_real(hold_share, clips, real),
            "Sharpness_Ratio": ratio_to_real(sharpness, clips, real),
            **self._comparison.measures(clips),
            **self._caption_test.measures(ema_model),
        }
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
