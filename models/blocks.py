"""The blocks of the UNet that are not attention: residual, halving, doubling, and the draft of the text."""

import torch
from torch import Tensor, nn

from models.layers import FrameNorm, from_tokens, to_tokens

DRAFT_SIZE = 32


class TemporalConvolution(nn.Module):
    """A (3, 1, 1) convolution over time that starts as the identity.

    Starting as the identity lets the spatial convolutions learn first what a hand looks like, while motion is
    mixed in as fast as it helps (Singer et al. 2022, Make-A-Video, arXiv 2209.14792, section 3.2). It is computed
    as a (3, 1) convolution over [B, C, T, H * W], which on a CPU takes half the time of the same Conv3d.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        nn.init.dirac_(self.convolution.weight)
        nn.init.zeros_(self.convolution.bias)  # type: ignore[arg-type]

    def forward(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Map frames [N = B * frames, C, H, W] to frames of the same shape."""
        height, width = x_NCHW.shape[2:]
        mixed_BCTS = self.convolution(to_tokens(x_NCHW, frames).permute(0, 3, 1, 2))
        return from_tokens(mixed_BCTS.permute(0, 2, 3, 1), height, width)


class ResidualBlock(nn.Module):
    """Space, then time, then space again, told by a scale and a shift for each frame what to draw and how noisy it is.

    norm -> SiLU -> (1, 3, 3) -> (3, 1, 1) -> norm * (1 + scale) + shift -> SiLU -> (1, 3, 3), added to the input. The
    last convolution starts at zero, so that the block starts as the identity (Zhang et al. 2019, arXiv 1901.09321).
    The scale-and-shift projection (FiLM, Perez et al. 2018, arXiv 1709.07871) does not: behind a zero tail it
    disturbs nothing, and a caption that is heard from the first step on is learned sooner.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, groups: int) -> None:
        super().__init__()
        self.norm_in = FrameNorm(_common_groups(groups, in_channels), in_channels)
        self.spatial_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = TemporalConvolution(out_channels)
        self.scale_shift = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm_out = FrameNorm(_common_groups(groups, out_channels), out_channels)
        self.spatial_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.normal_(self.scale_shift.weight, std=0.5 * embedding_channels**-0.5)
        nn.init.zeros_(self.scale_shift.bias)
        nn.init.zeros_(self.spatial_out.weight)
        nn.init.zeros_(self.spatial_out.bias)  # type: ignore[arg-type]

    def forward(self, x_NCHW: Tensor, frames: int, embedding_ND: Tensor) -> Tensor:
        """Map frames [N, in_channels, H, W] to [N, out_channels, H, W]; `embedding_ND` holds one row a frame."""
        hidden = self.spatial_in(nn.functional.silu(self.norm_in(x_NCHW)))
        hidden = self.temporal(hidden, frames)
        scale_N, shift_N = self.scale_shift(embedding_ND)[:, :, None, None].chunk(2, dim=1)
        hidden = nn.functional.silu(torch.addcmul(shift_N, self.norm_out(hidden), 1 + scale_N))
        return self.shortcut(x_NCHW) + self.spatial_out(hidden)


class Downsample(nn.Module):
    """Halve height and width: each 2 x 2 patch becomes one position."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, out_channels, 2, stride=2)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H / 2, W / 2]."""
        return self.convolution(x_NCHW)


class Upsample(nn.Module):
    """Double height and width: each position becomes a 2 x 2 patch (Shi et al. 2016, arXiv 1609.05158, section 3.2).

    The projection happens at the low resolution, so it costs a quarter of a convolution after enlargement.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(in_channels, 4 * out_channels, 1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, 2 H, 2 W]."""
        enlarged = nn.functional.pixel_shuffle(self.projection(x_NCHW), 2)
        return enlarged.contiguous(memory_format=torch.channels_last)


class TextDraft(nn.Module):
    """Draws each frame's text vector as a picture: what the frame would look like by its caption alone.

    Scaling and shifting channels says the same thing to every pixel, so a network that starts from noise learns only
    slowly where to put which finger. A linear map from text to pixels learns the mean picture of every letter within
    some dozens of steps, and hands the text encoder a gradient that passes through no other layer. Pictures of more
    than 32 pixels a side are enlarged: a draft need not be sharp.
    """

    def __init__(self, text_channels: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.size = min(image_size, DRAFT_SIZE)
        self.draw = nn.Linear(text_channels, 3 * self.size**2)
        nn.init.zeros_(self.draw.weight)
        nn.init.zeros_(self.draw.bias)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        """Map text [B, T, text_channels] to frames [B * T, 3, image_size, image_size]."""
        picture_NCHW = self.draw(frames_BTC).view(-1, 3, self.size, self.size)
        if self.size == self.image_size:
            return picture_NCHW
        return nn.functional.interpolate(picture_NCHW, size=(self.image_size, self.image_size), mode="bilinear")


def _common_groups(groups: int, channels: int) -> int:
    if channels % groups != 0:
        raise ValueError(f"channels ({channels}) must be a multiple of GROUP_NORM_GROUPS ({groups})")
    return groups
