"""Three views of the same memory.

A clip travels through the network as frames, [N = B * T, C, H, W] in channels_last order. In memory that is
B, T, H, W, C, exactly the order of a [B, C, T, H, W] clip in channels_last_3d. So a convolution over space, a
convolution over time and an attention over tokens each see the data in the shape that suits them without a copy.
"""

import torch
from torch import Tensor


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
