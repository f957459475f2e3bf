"""Three views of the same memory.

A clip travels through the network as frames, [N = B * T, C, H, W] in channels_last order. In memory that is
B, T, H, W, C, exactly the order of a [B, C, T, H, W] clip in channels_last_3d. So a convolution over space, a
convolution over time and an attention over tokens each see the data in the shape that suits them without a copy.
"""

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


def fold_frames(video_BCTHW: Tensor) -> Tensor:
    """[B, C, T, H, W] to frames [B * T, C, H, W], channels last."""
    frames = video_BCTHW.transpose(1, 2).flatten(0, 1)
    return frames.contiguous(memory_format=torch.channels_last)


def unfold_frames(x_NCHW: Tensor, frames: int) -> Tensor:
    """Frames [B * T, C, H, W] to a clip [B, C, T, H, W]."""
    return x_NCHW.unflatten(0, (-1, frames)).transpose(1, 2)


def to_tokens(x_NCHW: Tensor, frames: int) -> Tensor:
    """Frames [B * T, C, H, W] to tokens [B, T, H * W, C]; a view where the frames are channels_last."""
    return x_NCHW.permute(0, 2, 3, 1).unflatten(0, (-1, frames)).flatten(2, 3)


def from_tokens(tokens_BTSC: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, T, H * W, C] to channels_last frames [B * T, C, H, W]."""
    return tokens_BTSC.flatten(0, 1).unflatten(1, (height, width)).permute(0, 3, 1, 2)


class FrameNorm(nn.GroupNorm):
    """Group normalisation of each frame (Wu and He 2018, arXiv 1803.08494), computed and returned in float32.

    Under autocast CUDA does this by itself, and the CPU does not: there a bfloat16 group normalisation loses precision
    and takes three times as long as the float32 one.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map frames [N, C, H, W] of any float type to float32 frames of the same shape."""
        return nn.functional.group_norm(x_NCHW.float(), self.num_groups, self.weight, self.bias, self.eps)
