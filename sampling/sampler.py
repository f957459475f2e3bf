"""From prompts to clips: what the dashboard, generate.py and the evaluation share."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy
import torch
from torch import Tensor, nn

from common.field_types import LETTERS_A_SECOND, MOST_LETTERS
from common.filmstrip import filmstrips
from common.randomness import torch_generator
from compute.device import ComputeDevice
from config import Config
from data.lengths import ClipLengths, clip_lengths, equal_lengths
from diffusion.guidance import Guidance, guided_prediction
from diffusion.prediction import PredictionType
from diffusion.samplers import SamplerName, sample
from diffusion.schedule import NoiseSchedule
from models.text_encoder import TextEncoder
from models.tokens import Tokenizer

SLOWEST_LETTER = 3
"""Times the normal duration of a letter: no longer words are made, whatever a network that diverges expects."""


@dataclass(frozen=True)
class SamplingSettings:
    """How clips are drawn from a model."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    sampler: SamplerName
    num_steps: int
    guidance: Guidance
    lengths: ClipLengths
    image_size: tuple[int, int]  # height and width
    frames_at_once: int  # that pass through the model together


@dataclass(frozen=True)
class ClipSampler:
    """Draws clips with any model of the run's shape."""

    settings: SamplingSettings
    tokenize: Callable[[Sequence[str]], Tensor]
    compute: ComputeDevice

    def initial_noise(self, frames: int, seed: int, *indices: int) -> Tensor:
        """Return the noise of one clip, [3, frames, H, W] float32 on the CPU: a function of (seed, indices).

        A longer clip begins with the noise of a shorter one.
        """
        generator = torch_generator(seed, "sampling_noise", *indices)
        return torch.randn(frames, 3, *self.settings.image_size, generator=generator).transpose(0, 1)

    def seconds(self, model: nn.Module, prompts: Sequence[str]) -> list[float]:
        """Return how long the model expects each clip to last: the median; 0 where its weights are not finite."""
        return expected_seconds(model, self.tokenize(prompts).to(self.compute.device), self.compute)

    def frames(self, model: nn.Module, prompts: Sequence[str]) -> list[int]:
        """Return how many frames the model expects each clip to have."""
        return [self.settings.lengths.of(seconds) for seconds in self.seconds(model, prompts)]

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[str],
        noises: Sequence[Tensor],
        seed: int,
        on_step: Callable[[int, Tensor], None] | None = None,
        watch: Callable[[Sequence[list[int]]], Iterable[list[int]]] = iter,
    ) -> list[Tensor]:
        """Generate one clip a prompt, as long as its noise: [3, T, H, W] float32 in [-1, 1] on the CPU each.

        Args:
            model: left in the mode (training or evaluation) that it came in.
            noises: the clips' initial noise, [3, T, H, W] each.
            seed: of the noise that stochastic samplers add.
            on_step: receives (sampler step, clean estimates) as sampling goes on.
            watch: passes on the groups of clips that are sampled together, as a progress bar does.
        """
        settings, device = self.settings, self.compute.device

        def predict(video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor) -> Tensor:
            with self.compute.autocast():
                prediction: Tensor = model(video, timestep, tokens, drop_caption)
            return prediction.float()

        was_training = model.training
        model.eval()
        clips: dict[int, Tensor] = {}
        try:
            with torch.no_grad():
                for group in watch(equal_lengths([noise.shape[1] for noise in noises], settings.frames_at_once)):
                    tokens = self.tokenize([prompts[place] for place in group]).to(device)
                    found = sample(
                        guided_prediction(predict, settings.guidance, tokens, settings.schedule.num_timesteps),
                        schedule=settings.schedule,
                        prediction_type=settings.prediction_type,
                        sampler=settings.sampler,
                        num_steps=settings.num_steps,
                        initial_noise_BCTHW=torch.stack([noises[place] for place in group]).to(device),
                        noise_generator=torch_generator(seed, "sampler_noise", group[0]),
                        on_step=on_step,
                    )
                    clips.update(zip(group, found.cpu(), strict=True))
        finally:
            model.train(was_training)
        return [clips[place] for place in range(len(noises))]


def expected_seconds(model: nn.Module, tokens_BL: Tensor, compute: ComputeDevice) -> list[float]:
    """Return how long the model expects clips of captions to last, see `ClipSampler.seconds`."""
    encoder = model.get_submodule("text_encoder")
    assert isinstance(encoder, TextEncoder)
    with torch.no_grad(), compute.autocast():
        log_seconds_B = encoder.log_seconds(tokens_BL)
    return log_seconds_B.exp().nan_to_num().cpu().tolist()


def contact_sheet(
    texts: Sequence[str], generated: Sequence[numpy.ndarray], real: Sequence[numpy.ndarray | None]
) -> numpy.ndarray:
    """Draw every text's clips as rows of evenly spread frames: real above generated, or only generated ones.

    Args:
        texts: one label a clip.
        generated: uint8 [T, H, W, 3] a text.
        real: the same, or None where there is no real clip.

    Returns:
        uint8 [height, width, 3].
    """
    rows: list[tuple[str, numpy.ndarray]] = []
    for text, generated_clip, real_clip in zip(texts, generated, real, strict=True):
        if real_clip is not None:
            rows.append((f"{text}\nreal", real_clip))
        rows.append((f"{text}\ngenerated", generated_clip))
    return filmstrips(rows)


def build_sampler(config: Config, schedule: NoiseSchedule, tokenizer: Tokenizer, compute: ComputeDevice) -> ClipSampler:
    """Build the sampler that the constants under "Sampling" describe."""
    lengths = clip_lengths(config)
    if lengths.is_natural and config.DATA_ROOT is None:  # words of any number of letters are spelled at one speed
        lengths = replace(lengths, max_frames=lengths.asked(SLOWEST_LETTER * MOST_LETTERS / LETTERS_A_SECOND))
    settings = SamplingSettings(
        schedule=schedule,
        prediction_type=config.PREDICTION_TYPE,
        sampler=config.SAMPLER,
        num_steps=config.SAMPLING_STEPS,
        guidance=Guidance(
            scale=config.GUIDANCE_SCALE, rescale=config.GUIDANCE_RESCALE, interval=config.GUIDANCE_INTERVAL
        ),
        lengths=lengths,
        image_size=config.IMAGE_SIZE,
        frames_at_once=config.frames_at_once,
    )
    return ClipSampler(settings, tokenizer, compute)
