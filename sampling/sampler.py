"""From prompts to clips: what the dashboard, generate.py and the evaluation share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from common.filmstrip import filmstrips
from common.randomness import torch_generator
from compute.device import ComputeDevice
from config import Config
from diffusion.guidance import Guidance, guided_prediction
from diffusion.prediction import PredictionType
from diffusion.samplers import SamplerName, sample
from diffusion.schedule import NoiseSchedule
from models.tokens import Tokenizer


@dataclass(frozen=True)
class SamplingSettings:
    """How clips are drawn from a model."""

    schedule: NoiseSchedule
    prediction_type: PredictionType
    sampler: SamplerName
    num_steps: int
    guidance: Guidance
    num_frames: int
    image_size: int


@dataclass(frozen=True)
class ClipSampler:
    """Draws clips with any model of the run's shape."""

    settings: SamplingSettings
    tokenize: Callable[[Sequence[str]], Tensor]
    compute: ComputeDevice

    def initial_noise(self, seed: int, *indices: int) -> Tensor:
        """Return the noise of one clip, [3, T, H, W] float32 on the CPU: a function of (seed, indices)."""
        settings = self.settings
        shape = (3, settings.num_frames, settings.image_size, settings.image_size)
        return torch.randn(shape, generator=torch_generator(seed, "sampling_noise", *indices))

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[str],
        noise_NCTHW: Tensor,
        seed: int,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Generate one clip a prompt: [N, 3, T, H, W] float32 in [-1, 1] on the CPU.

        Args:
            model: left in the mode (training or evaluation) that it came in.
            noise_NCTHW: the clips' initial noise.
            seed: of the noise that stochastic samplers add.
            on_step: receives (sampler step, clean estimate) as sampling goes on.
        """
        settings, device = self.settings, self.compute.device

        def predict(video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor) -> Tensor:
            with self.compute.autocast():
                prediction: Tensor = model(video, timestep, tokens, drop_caption)
            return prediction.float()

        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                tokens = self.tokenize(prompts).to(device)
                clips = sample(
                    guided_prediction(predict, settings.guidance, tokens, settings.schedule.num_timesteps),
                    schedule=settings.schedule,
                    prediction_type=settings.prediction_type,
                    sampler=settings.sampler,
                    num_steps=settings.num_steps,
                    initial_noise_BCTHW=noise_NCTHW.to(device),
                    noise_generator=torch_generator(seed, "sampler_noise"),
                    on_step=on_step,
                )
        finally:
            model.train(was_training)
        return clips.cpu()


def to_pixels(video: Tensor) -> numpy.ndarray:
    """Turn [..., 3, T, H, W] in [-1, 1] into uint8 [..., T, H, W, 3]; values outside are clipped."""
    pixels = ((video.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.movedim(-4, -1).cpu().numpy()


def contact_sheet(
    texts: Sequence[str], generated: Sequence[numpy.ndarray], real: Sequence[numpy.ndarray | None]
) -> numpy.ndarray:
    """Draw every text's clips as rows of evenly spread frames: real above generated, or only generated ones.

    Args:
        texts: one label a clip.
        generated: uint8 [T, H, W, 3] a text, all of one shape.
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
    settings = SamplingSettings(
        schedule=schedule,
        prediction_type=config.PREDICTION_TYPE,
        sampler=config.SAMPLER,
        num_steps=config.SAMPLING_STEPS,
        guidance=Guidance(
            scale=config.GUIDANCE_SCALE, rescale=config.GUIDANCE_RESCALE, interval=config.GUIDANCE_INTERVAL
        ),
        num_frames=config.MAX_FRAMES,
        image_size=config.IMAGE_SIZE,
    )
    return ClipSampler(settings, tokenizer, compute)
