"""Classifier-free guidance: following the caption more closely than the training data does."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# (x_BCTHW, timestep_B int64, tokens_BL, drop_caption_B bool) -> prediction [B, C, T, H, W]
Predict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# (x_BCTHW, timestep of all clips, on the host) -> prediction [B, C, T, H, W]
Denoise = Callable[[Tensor, int], Tensor]

_SMALLEST_DEVIATION = 1e-12  # an untrained network may say 0 everywhere


@dataclass(frozen=True)
class Guidance:
    """How strongly, and where, a caption guides sampling.

    Raises:
        ValueError: a value out of its range.
    """

    scale: float  # at least 0; 1 is the network's own prediction, 0 ignores the caption
    rescale: float = 0.0  # 0..1, phi of Lin et al. 2023, equation 16: keeps strong guidance from overexposing
    # Part of the noise range, as timestep / (N - 1), in which guidance acts (Kynkaanniemi et al. 2024).
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf"):
            raise ValueError(f"guidance scale must be a finite number of at least 0, not {self.scale}")
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"guidance rescale must be between 0 and 1, not {self.rescale}")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance interval must satisfy 0 <= start <= end <= 1, not {self.interval}")


def guided_prediction(predict: Predict, guidance: Guidance, tokens_BL: Tensor, num_timesteps: int) -> Denoise:
    """Wrap a network into the form that samplers call.

    Conditional and unconditional predictions come from one call with a batch of 2B. A scale of 1, and timesteps
    outside the interval, take a single call with a batch of B, which is half the work.

    Args:
        predict: the network; its last argument says which clips are predicted without their caption.
        tokens_BL: captions, on the device of the videos.
        num_timesteps: N of the noise schedule.
    """
    low, high = (bound * (num_timesteps - 1) for bound in guidance.interval)

    def denoise(x_BCTHW: Tensor, timestep: int) -> Tensor:
        """Ho & Salimans 2022, with the scale counted so that 1 is the conditional prediction."""
        timestep_B = torch.full((len(x_BCTHW),), timestep, dtype=torch.int64, device=x_BCTHW.device)
        keep_caption_B = torch.zeros_like(timestep_B, dtype=torch.bool)
        if guidance.scale == 1 or not low <= timestep <= high:
            return predict(x_BCTHW, timestep_B, tokens_BL, keep_caption_B)
        both = predict(
            torch.cat([x_BCTHW, x_BCTHW]),
            torch.cat([timestep_B, timestep_B]),
            torch.cat([tokens_BL, tokens_BL]),
            torch.cat([keep_caption_B, ~keep_caption_B]),
        )
        with_caption, without = both.float().chunk(2)
        prediction = without + guidance.scale * (with_caption - without)
        return rescale_guidance(prediction, with_caption, guidance.rescale) if guidance.rescale > 0 else prediction

    return denoise


def rescale_guidance(guided: Tensor, conditional: Tensor, rescale: float) -> Tensor:
    """Bring the deviation of a guided prediction back towards the conditional one's (Lin et al. 2023, eq. 15-16)."""
    dimensions = tuple(range(1, guided.ndim))
    deviation = guided.std(dim=dimensions, keepdim=True).clamp(min=_SMALLEST_DEVIATION)
    factor = conditional.std(dim=dimensions, keepdim=True) / deviation
    return guided * (rescale * factor + (1 - rescale))
