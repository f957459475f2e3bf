"""From prompts to clips: used by the dashboard and by generate.py alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor, nn

from common.randomness import torch_generator
from diffusion.guidance import Guidance, guided_prediction
from diffusion.prediction import PredictionType
from diffusion.samplers import SamplerName, sample
from diffusion.schedule import NoiseSchedule
from training.device import ComputeDevice


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


class ClipSampler:
    """Draws clips with any model of the run's shape."""

    def __init__(
        self, settings: SamplingSettings, tokenize: Callable[[Sequence[str]], Tensor], compute: ComputeDevice
    ) -> None:
        self.settings = settings
        self._tokenize = tokenize
        self._compute = compute

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
        settings, device = self.settings, self._compute.device

        def predict(video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor) -> Tensor:
            with self._compute.autocast():
                prediction: Tensor = model(video, timestep, tokens, drop_caption)
            return prediction.float()

        was_training = model.training
        model.eval()
        try:
            with torch.no_grad():
                tokens = self._tokenize(prompts).to(device)
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
