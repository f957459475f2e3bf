"""Turning positions and timesteps into features."""

import math

import torch
from torch import Tensor, nn

POSITION_FEATURES = 16


def position_features(position: Tensor) -> Tensor:
    """Fourier features of normalised positions.

    Args:
        position: [...] float32 in [0, 1]. Characters and frames share this scale: 0 is the start of the caption and of
            the clip, 1 is the end of both.

    Returns:
        [..., POSITION_FEATURES] float32: sines and cosines at octaves from half a period to 64 periods, as in
        Tancik et al. 2020 (arXiv 2006.10739), section 4, "positional encoding".
    """
    octaves = torch.arange(POSITION_FEATURES // 2, device=position.device, dtype=torch.float32)
    angle = position[..., None] * (math.pi * 2.0**octaves)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def centred_positions(count: int, device: torch.device) -> Tensor:
    """Return the centres of `count` equal parts of [0, 1]: [count] float32."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


class TimestepEmbedding(nn.Module):
    """Sinusoidal features of the diffusion timestep (Ho et al. 2020, section B), then a two-layer perceptron."""

    def __init__(self, num_timesteps: int, channels: int, frequencies: int = 64) -> None:
        super().__init__()
        self.num_timesteps = num_timesteps
        self.frequencies = frequencies
        self.hidden = nn.Linear(2 * frequencies, channels)
        self.output = nn.Linear(channels, channels)

    def forward(self, timestep_B: Tensor) -> Tensor:
        """Map integer timesteps [B] to embeddings [B, channels] float32."""
        exponent = torch.arange(self.frequencies, device=timestep_B.device, dtype=torch.float32) / self.frequencies
        # Scaled to 0..1000 whatever the number of timesteps, so that its choice does not change the features.
        scaled = timestep_B.float() * (1000.0 / self.num_timesteps)
        angle = scaled[:, None] * torch.exp(-math.log(10_000.0) * exponent)
        features = torch.cat((angle.sin(), angle.cos()), dim=-1)
        hidden = nn.functional.silu(self.hidden(features))
        return self.output(hidden)
