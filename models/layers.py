"""The layers of the UNet that are not attention, and how they see a clip.

A clip travels through the network as frames, [N = B * T, C, H, W] in channels_last order. In memory that is
B, T, H, W, C, exactly the order of a [B, C, T, H, W] clip in channels_last_3d. So a convolution over space, a
convolution over time and an attention over tokens each see the data in the shape that suits them without a copy.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.fused import EPSILON, as_autocast, cast_together, fused_norm, is_fused

POSITION_FEATURES = 16
DRAFT_SIZE, DRAFT_WIDTH, DRAFT_RATE = 32, 8, 4
PIXEL_CHANNELS, PIXEL_RATE = 16, 4
NEIGHBOURS = 9  # of a pixel, itself included


def fold_frames(video_BCTHW: Tensor) -> Tensor:
    """[B, C, T, H, W] to frames [B * T, C, H, W], channels last."""
    frames = video_BCTHW.transpose(1, 2).flatten(0, 1)
    return frames.contiguous(memory_format=torch.channels_last)


def unfold_patches(patches_NCHW: Tensor, side: int) -> Tensor:
    """Patches [N, side ** 2 * C, H, W] to pixels [N, C, side * H, side * W], channels last, in one copy.

    The numbers of a patch are ordered by row, column and channel.
    """
    height, width = patches_NCHW.shape[2:]
    split_NHWYXC = patches_NCHW.permute(0, 2, 3, 1).unflatten(3, (side, side, -1))
    pixels_NHWC = split_NHWYXC.transpose(2, 3).reshape(-1, side * height, side * width, split_NHWYXC.shape[-1])
    return pixels_NHWC.permute(0, 3, 1, 2)


def unfold_frames(x_NCHW: Tensor, frames: int) -> Tensor:
    """Frames [B * T, C, H, W] to a clip [B, C, T, H, W]."""
    return x_NCHW.unflatten(0, (-1, frames)).transpose(1, 2)


def to_tokens(x_NCHW: Tensor, frames: int) -> Tensor:
    """Frames [B * T, C, H, W] to tokens [B, T, H * W, C]; a view where the frames are channels_last."""
    return x_NCHW.permute(0, 2, 3, 1).unflatten(0, (-1, frames)).flatten(2, 3)


def from_tokens(tokens_BTSC: Tensor, height: int, width: int) -> Tensor:
    """Tokens [B, T, H * W, C] to channels_last frames [B * T, C, H, W]."""
    return tokens_BTSC.flatten(0, 1).unflatten(1, (height, width)).permute(0, 3, 1, 2)


def position_features(position: Tensor, features: int = POSITION_FEATURES) -> Tensor:
    """Fourier features of normalised positions.

    `position`: [...] float32 in [0, 1].

    Returns:
        [..., features] float32: sines and cosines at octaves from half a period on (to 64 periods, with
        POSITION_FEATURES), as in Tancik et al. 2020 (arXiv 2006.10739), section 4, "positional encoding".
    """
    octaves = torch.arange(features // 2, device=position.device, dtype=torch.float32)
    angle = position[..., None] * (math.pi * 2.0**octaves)
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def centred_positions(count: int, device: torch.device) -> Tensor:
    """Return the centres of `count` equal parts of [0, 1]: [count] float32."""
    return (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count


def grid_features(sizes: Sequence[tuple[int, int]], device: torch.device) -> dict[int, Tensor]:
    """Return the features of all positions of feature maps, by the length of the shorter side: once for all layers.

    `sizes` are the maps' heights and widths.

    Features are [height * width, 2 * POSITION_FEATURES], of a position's row and then of its column, float32, or in
    autocast's type on CUDA.
    """
    sides = list(dict.fromkeys(side for size in sizes for side in size))
    positions = torch.cat([centred_positions(side, device) for side in sides])
    of_sides = dict(zip(sides, as_autocast(position_features(positions)).split(sides), strict=True))
    found = {}
    for height, width in sizes:
        of_row = of_sides[height][:, None].expand(height, width, -1)
        of_column = of_sides[width][None].expand(height, width, -1)
        found[min(height, width)] = torch.cat((of_row, of_column), dim=-1).flatten(0, 1)
    return found


class Recomputable(nn.Module):
    """Layers that a backward pass may compute again, and that cast their weights together.

    With `checkpoint_activations`, a forward pass that trains keeps only the inputs, and the backward pass computes the
    rest again (Chen et al. 2016, arXiv 1604.06174). Nothing here is random, so it comes out the same.
    """

    checkpoint_activations = False

    def forward(self, *inputs: Any) -> Any:
        """Return what `compute` does."""
        if self.checkpoint_activations and self.training and torch.is_grad_enabled():
            return checkpoint(self._cast_and_compute, *inputs, use_reentrant=False, preserve_rng_state=False)
        return self._cast_and_compute(*inputs)

    def _cast_and_compute(self, *inputs: Any) -> Any:
        with cast_together(self):
            return self.compute(*inputs)

    def compute(self, *inputs: Any) -> Any:
        """Compute; each kind of layers says what from what."""
        raise NotImplementedError


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


class FrameNorm(nn.GroupNorm):
    """Group normalisation of each frame (Wu and He 2018, arXiv 1803.08494), computed in float32.

    Under autocast CUDA does this by itself, and the CPU does not: there a bfloat16 group normalisation loses precision
    and takes three times as long as the float32 one.
    """

    def __init__(self, groups: int, channels: int) -> None:
        if channels % groups != 0:
            raise ValueError(f"channels ({channels}) must be a multiple of GROUP_NORM_GROUPS ({groups})")
        super().__init__(groups, channels, eps=EPSILON)

    def forward(self, x_NCHW: Tensor, scale_shift: Tensor | None = None, *, silu: bool = False) -> Tensor:
        """Normalise, multiply by 1 + scale, add a shift, then SiLU if `silu`.

        `scale_shift` is [N, 2 C], the scales of a frame before its shifts; or [N, C], shifts alone.

        Maps frames [N, C, H, W] of any float type to frames of the same shape: float32, or on CUDA, where all of it is
        one operator (`models.fused`), channels last in autocast's type.
        """
        return self.branch(x_NCHW, scale_shift, silu=silu)[1]

    def branch(self, x_NCHW: Tensor, scale_shift: Tensor | None = None, *, silu: bool = False) -> tuple[Tensor, Tensor]:
        """Return the frames for a residual connection, and what `forward` makes of them; `models.fused` says why."""
        if is_fused(x_NCHW):
            return fused_norm(x_NCHW, self.weight, self.bias, scale_shift, groups=self.num_groups, silu=silu)
        y_NCHW = nn.functional.group_norm(x_NCHW.float(), self.num_groups, self.weight, self.bias, self.eps)
        if scale_shift is not None:
            *scale_N, shift_N = scale_shift[:, :, None, None].split(self.num_channels, dim=1)
            y_NCHW = torch.addcmul(shift_N, y_NCHW, 1 + scale_N[0]) if scale_N else y_NCHW + shift_N
        return x_NCHW, nn.functional.silu(y_NCHW) if silu else y_NCHW


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
    disturbs nothing, and a caption that acts from the first step on is learned sooner.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding_channels: int, groups: int) -> None:
        super().__init__()
        self.norm_in = FrameNorm(groups, in_channels)
        self.spatial_in = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.temporal = TemporalConvolution(out_channels)
        self.scale_shift = nn.Linear(embedding_channels, 2 * out_channels)
        self.norm_out = FrameNorm(groups, out_channels)
        self.spatial_out = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)
        nn.init.normal_(self.scale_shift.weight, std=0.5 * embedding_channels**-0.5)
        nn.init.zeros_(self.scale_shift.bias)
        nn.init.zeros_(self.spatial_out.weight)
        nn.init.zeros_(self.spatial_out.bias)  # type: ignore[arg-type]

    def forward(self, x_NCHW: Tensor, frames: int, embedding_ND: Tensor) -> Tensor:
        """Map frames [N, in_channels, H, W] to [N, out_channels, H, W]; `embedding_ND` holds one row a frame."""
        x_NCHW, hidden = self.norm_in.branch(x_NCHW, silu=True)
        hidden = self.temporal(self.spatial_in(hidden), frames)
        hidden = self.spatial_out(self.norm_out(hidden, self.scale_shift(embedding_ND), silu=True))
        return self.shortcut(x_NCHW) + hidden


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
        return unfold_patches(self.projection(x_NCHW), 2)


class EdgePadding(torch.autograd.Function):
    """Goes on beyond the edges of pictures as at the edge: [N, H, W, C] to [N, H + 2, W + 2, C].

    PyTorch's own replication takes ten times as long with its gradient on a CPU. On CUDA, that gradient is added up in
    no fixed order.
    """

    @staticmethod
    def forward(ctx: Any, x_NHWC: Tensor) -> Tensor:
        """Pad."""
        count, height, width, channels = x_NHWC.shape
        padded = x_NHWC.new_empty(count, height + 2, width + 2, channels)
        padded[:, 1:-1, 1:-1] = x_NHWC
        padded[:, 0, 1:-1] = x_NHWC[:, 0]
        padded[:, -1, 1:-1] = x_NHWC[:, -1]
        padded[:, :, 0] = padded[:, :, 1]
        padded[:, :, -1] = padded[:, :, -2]
        return padded

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Add to the pixels at the edges what went beyond them."""
        columns = gradient[:, :, 1:-1].clone()
        columns[:, :, 0] += gradient[:, :, 0]
        columns[:, :, -1] += gradient[:, :, -1]
        found = columns[:, 1:-1]
        found[:, 0] += columns[:, 0]
        found[:, -1] += columns[:, -1]
        return found


def neighbourhoods(x_NCHW: Tensor) -> Tensor:
    """Return each pixel with those around it, row by row: [N, C, NEIGHBOURS, H, W]; at the edges they repeat."""
    count, _, height, width = x_NCHW.shape
    padded: Tensor = EdgePadding.apply(x_NCHW.reshape(-1, height, width, 1))
    rows = padded.view(count, -1, height + 2, width + 2)
    return torch.stack([rows[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)], dim=2)


class PixelConvolution(nn.Conv2d):
    """A convolution that learns PIXEL_RATE times as fast, and goes on beyond the edge as at the edge.

    AdamW moves all weights by as much, so that a sum of few inputs changes less than one of many (Yang et al. 2022,
    Tensor Programs V, arXiv 2203.03466, table 3). The weights are kept divided by the rate, and multiplied in use.
    Grey beyond the edge, which is zero, would be seen as a frame round the picture. The kernel has 1 or 3 pixels a
    side.
    """

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        super().__init__(in_channels, out_channels, side)
        with torch.no_grad():
            self.weight.div_(PIXEL_RATE)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, H, W]."""
        if self.kernel_size[0] > 1:
            padded_NHWC: Tensor = EdgePadding.apply(x_NCHW.permute(0, 2, 3, 1))
            x_NCHW = padded_NHWC.permute(0, 3, 1, 2)
        return self._conv_forward(x_NCHW, PIXEL_RATE * self.weight, self.bias)


class PixelLevel(Recomputable):
    """The finest level, of single pixels: paints the frames, and filters what shows through of the noisy clip.

    A patch of 4 x 4 pixels has 48 numbers, of which 64 channels keep little. So what the layers say of a patch meets
    what was seen of each pixel here, in few channels: convolutions over space and time, cheap at any size. A clip that
    shows through everywhere alike would leave as much noise on a plain ground as it gives detail to fingers. So it
    shows through by pixel, as a mean of the pixel and its neighbours whose weights are predicted: along an edge, say.
    Denoisers learn such weights sooner than colours (Bako et al. 2017, "Kernel-predicting convolutional networks for
    denoising Monte Carlo renderings", section 4.2).
    """

    def __init__(self, in_channels: int, patch_size: int, embedding_channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.enlarged = PixelConvolution(in_channels, PIXEL_CHANNELS * patch_size**2, 1)
        self.seen = PixelConvolution(6, PIXEL_CHANNELS, 3)
        self.scale_shift = nn.Linear(embedding_channels, 2 * PIXEL_CHANNELS)
        self.temporal = TemporalConvolution(PIXEL_CHANNELS)
        self.spatial = PixelConvolution(PIXEL_CHANNELS, PIXEL_CHANNELS, 3)
        self.output = PixelConvolution(PIXEL_CHANNELS, 4 + NEIGHBOURS, 3)
        nn.init.normal_(self.scale_shift.weight, std=0.5 * embedding_channels**-0.5)
        nn.init.zeros_(self.scale_shift.bias)
        # Its weight is not zero, as is usual: until it had grown, only the draft would learn (docs/decisions.md).
        nn.init.zeros_(self.output.bias)  # type: ignore[arg-type]

    def compute(
        self, x_NCHW: Tensor, noisy_NCHW: Tensor, seen_NCHW: Tensor, embedding_ND: Tensor, frames: int
    ) -> tuple[Tensor, Tensor]:
        """Paint.

        Args:
            x_NCHW: [N = B * frames, in_channels, H / patch_size, W / patch_size], of the layers.
            noisy_NCHW: [N, 3, H, W], the noisy frames alone: no gradient is computed for what nobody learns from.
            seen_NCHW: [N, 6, H, W], the noisy frames and the drawn ones, channels last.
            embedding_ND: one row a frame.
            frames: T of each clip.

        Returns:
            What is painted, and what shows through of the noisy frames, [N, 3, H, W] each. That is their weighted mean
            over each pixel's neighbourhood, times 0 to 2, 1 of a network that has learned nothing.
        """
        features = unfold_patches(self.enlarged(x_NCHW), self.patch_size) + self.seen(seen_NCHW)
        scale_N, shift_N = self.scale_shift(embedding_ND)[:, :, None, None].chunk(2, dim=1)
        features = nn.functional.silu(torch.addcmul(shift_N, features, 1 + scale_N))
        features = nn.functional.silu(self.spatial(self.temporal(features, frames)))
        painted, shown, kernel_NKHW = self.output(features).split((3, 1, NEIGHBOURS), dim=1)
        weight_NKHW = (2 * shown.sigmoid() * kernel_NKHW.softmax(dim=1)).to(painted.dtype)
        noisy_NCKHW = neighbourhoods(noisy_NCHW.to(painted.dtype))
        return painted, (weight_NKHW[:, None] * noisy_NCKHW).sum(dim=2)


class TextDraft(nn.Module):
    """Draws each frame's text vector as a picture: what the frame would look like by its caption alone.

    Scaling and shifting channels does the same to every pixel, so a network that starts from noise learns only
    slowly where to put which finger. This learns the mean picture of every letter within some dozens of steps, and
    hands the text encoder a gradient that passes through no other layer. It is wide, and its last layer learns
    DRAFT_RATE times as fast, because the moments of a hundred words are too many for a linear map of some hundred
    numbers to tell apart (docs/recipe.md). Pictures of more than 32 pixels on their longer side are enlarged: a draft
    need not be sharp.
    """

    def __init__(self, text_channels: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.image_size = image_size
        longest = max(image_size)
        drawn = min(longest, DRAFT_SIZE)
        self.size = tuple(max(1, round(side * drawn / longest)) for side in image_size)
        self.norm = nn.LayerNorm(text_channels)
        self.hidden = nn.Linear(text_channels, DRAFT_WIDTH * text_channels)
        self.draw = nn.Linear(DRAFT_WIDTH * text_channels, 3 * math.prod(self.size))
        nn.init.zeros_(self.draw.weight)
        nn.init.zeros_(self.draw.bias)

    def forward(self, frames_BTC: Tensor) -> Tensor:
        """Map text [B, T, text_channels] to frames [B * T, 3, *image_size]."""
        hidden_BTH = nn.functional.gelu(self.hidden(self.norm(frames_BTC)))
        # AdamW moves all weights by as much (`PixelConvolution`); here, features are fewer than weights to multiply.
        picture_NCHW = self.draw(DRAFT_RATE * hidden_BTH).view(-1, 3, *self.size)
        if self.size == self.image_size:
            return picture_NCHW
        return nn.functional.interpolate(picture_NCHW, size=self.image_size, mode="bilinear")
