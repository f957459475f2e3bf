"""The network: a text encoder, and a UNet whose convolutions and attention are split between space and time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from models.attention import SpatialAttention, TemporalAttention, TextAttention
from models.fused import as_autocast, cast_together
from models.layers import (
    Downsample,
    FrameNorm,
    PixelLevel,
    Recomputable,
    ResidualBlock,
    TextDraft,
    TimestepEmbedding,
    Upsample,
    fold_frames,
    grid_features,
    unfold_frames,
)
from models.text_encoder import TextEncoder, TextFeatures
from models.tokens import NULL_CAPTION, PADDING


@dataclass(frozen=True)
class UNet3DSpecification:
    """Everything that fixes the shape of the network."""

    image_size: tuple[int, int]  # height and width of a frame in pixels
    num_timesteps: int  # length of the noise schedule
    channels: tuple[int, ...]  # width of each level, from the finest to the coarsest
    blocks_per_level: int  # residual blocks a level on the way down, and again on the way up
    patch_size: int  # pixels a side that the stem folds into channels: the finest level has image_size / patch_size
    spatial_attention_sizes: tuple[int, ...]  # shorter sides of the levels with attention over space and text
    head_channels: int  # of one attention head
    groups: int  # of every GroupNorm
    text_channels: int  # width of the text features

    @property
    def level_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the feature maps of each level.

        Raises:
            ValueError: the image cannot be halved often enough.
        """
        divisor = self.patch_size * 2 ** (len(self.channels) - 1)
        height, width = self.image_size
        if height % divisor != 0 or width % divisor != 0:
            raise ValueError(
                f"IMAGE_SIZE {self.image_size} must have multiples of {divisor}: the stem divides by PATCH_SIZE "
                f"({self.patch_size}) and each of the {len(self.channels)} levels but the last by 2"
            )
        factors = [self.patch_size * 2**level for level in range(len(self.channels))]
        return tuple((height // factor, width // factor) for factor in factors)

    @property
    def attended_sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the feature maps with attention over space and text; errors as for `level_sizes`."""
        return tuple(size for size in self.level_sizes if min(size) in self.spatial_attention_sizes)


class _Stage(Recomputable):
    """A residual block followed by the attention of its level."""

    def __init__(self, spec: UNet3DSpecification, level: int, in_channels: int, embedding_channels: int) -> None:
        super().__init__()
        channels = spec.channels[level]
        self.side = min(spec.level_sizes[level])
        attends = self.side in spec.spatial_attention_sizes
        self.block = ResidualBlock(in_channels, channels, embedding_channels, spec.groups)
        self.spatial = SpatialAttention(channels, spec.head_channels, spec.groups) if attends else None
        self.text = TextAttention(channels, spec.text_channels, spec.head_channels, spec.groups) if attends else None
        self.temporal = TemporalAttention(channels, spec.head_channels, spec.groups)

    def compute(
        self,
        x_NCHW: Tensor,
        skip_NCHW: Tensor | None,
        grid_SP: dict[int, Tensor],
        embedding_ND: Tensor,
        text: TextFeatures,
    ) -> Tensor:
        """Map frames to frames; `skip_NCHW`, from the same level on the way down, adds channels to the input.

        `grid_SP` is of `layers.grid_features`.
        """
        if skip_NCHW is not None:
            x_NCHW = torch.cat((x_NCHW, skip_NCHW), dim=1)
        x_NCHW = self.block(x_NCHW, text.frames, embedding_ND)
        if self.spatial is not None and self.text is not None:
            x_NCHW = self.spatial(x_NCHW, grid_SP[self.side])
            x_NCHW = self.text(x_NCHW, text.tokens_BLC, text.distance_BTL, text.padding_B11L)
        result: Tensor = self.temporal(x_NCHW, text.frames)
        return result


class UNet3D(nn.Module):
    """Predicts noise, velocity or the clean clip from a noisy clip, its timestep and its caption.

    A UNet (Ronneberger et al. 2015, arXiv 1505.04597) over frames with factorised space-time convolutions and attention
    (Ho et al. 2022, Video Diffusion Models, arXiv 2204.03458, section 3). The caption reaches it in three ways: every
    frame's text vector is drawn as a picture, which the layers see next to the noisy frame; every residual block is
    scaled and shifted by that vector; and every level with spatial attention also attends to the characters.

    The noisy clip and the drawn one are added to what the layers paint, each times a learned function of the timestep.
    A large part of noise and velocity is just that, and layers that normalise their input would learn it slowly. For
    the noisy clip it is the skip of Karras et al. 2022 (EDM, arXiv 2206.00364, section 5), with its coefficient
    learned, for each pixel and its neighbours: where fingers have edges, more of it helps than on a plain ground.
    """

    def __init__(self, spec: UNet3DSpecification, *, checkpoint_activations: bool = False) -> None:
        """Build it with fresh weights.

        Args:
            spec: what fixes the weights.
            checkpoint_activations: whether training computes each level a second time in the backward pass, for less
                memory. Weights and their names do not depend on it.

        Raises:
            ValueError: the sizes do not fit together.
        """
        super().__init__()
        sides = tuple(map(min, spec.level_sizes))
        unknown = [size for size in spec.spatial_attention_sizes if size not in sides]
        if unknown:
            levels = f"the shorter sides of the levels have {sides} pixels"
            raise ValueError(f"SPATIAL_ATTENTION_SIZES {unknown} match no level; {levels}")
        self.spec = spec
        embedding_channels = 4 * spec.channels[0]
        self.timestep = TimestepEmbedding(spec.num_timesteps, embedding_channels)
        self.text = nn.Linear(spec.text_channels, embedding_channels)
        self.draft = TextDraft(spec.text_channels, spec.image_size)
        self.gains = nn.Linear(embedding_channels, 2)  # of the noisy clip and of the drawn one
        self.stem = nn.Conv2d(6 * spec.patch_size**2, spec.channels[0], 3, padding=1)
        self.down, skip_channels = self._build_down(spec, embedding_channels)
        self.middle = _Stage(spec, len(spec.channels) - 1, spec.channels[-1], embedding_channels)
        self.up = self._build_up(spec, embedding_channels, skip_channels)
        self.norm = FrameNorm(spec.groups, spec.channels[0])
        self.pixels = PixelLevel(spec.channels[0], spec.patch_size, embedding_channels)
        nn.init.zeros_(self.gains.weight)
        with torch.no_grad():
            self.gains.bias.copy_(torch.tensor([0.0, 1.0]))
        for module in self.modules():
            if isinstance(module, Recomputable):
                module.checkpoint_activations = checkpoint_activations

    @staticmethod
    def _build_down(spec: UNet3DSpecification, embedding_channels: int) -> tuple[nn.ModuleList, list[int]]:
        layers: list[nn.Module] = []
        skip_channels: list[int] = []
        current = spec.channels[0]
        for level, channels in enumerate(spec.channels):
            if level > 0:
                layers.append(Downsample(current, channels))
                current = channels
            for _ in range(spec.blocks_per_level):
                layers.append(_Stage(spec, level, current, embedding_channels))
                current = channels
                skip_channels.append(channels)
        return nn.ModuleList(layers), skip_channels

    @staticmethod
    def _build_up(spec: UNet3DSpecification, embedding_channels: int, skip_channels: Sequence[int]) -> nn.ModuleList:
        layers: list[nn.Module] = []
        waiting = list(skip_channels)
        current = spec.channels[-1]
        for level in reversed(range(len(spec.channels))):
            for _ in range(spec.blocks_per_level):
                layers.append(_Stage(spec, level, current + waiting.pop(), embedding_channels))
                current = spec.channels[level]
            if level > 0:
                layers.append(Upsample(current, spec.channels[level - 1]))
                current = spec.channels[level - 1]
        return nn.ModuleList(layers)

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, text: TextFeatures) -> Tensor:
        """Predict.

        Args:
            video_BCTHW: [B, 3, T, *image_size] float, the noisy clip.
            timestep_B: [B] int64.
            text: the captions' features, for T frames.

        Returns:
            [B, 3, T, *image_size], the prediction.
        """
        # Recomputable ones cast their own, so that several processes can send the gradients of one while others follow.
        layers = (*self.children(), *self.down, *self.up)
        with cast_together(*(layer for layer in layers if not isinstance(layer, Recomputable | nn.ModuleList))):
            return self._predict(video_BCTHW, timestep_B, replace(text, tokens_BLC=as_autocast(text.tokens_BLC)))

    def _predict(self, video_BCTHW: Tensor, timestep_B: Tensor, text: TextFeatures) -> Tensor:
        frames = video_BCTHW.shape[2]
        grid_SP = grid_features(self.spec.attended_sizes, video_BCTHW.device)
        timestep_BD = self.timestep(timestep_B)
        embedding_BTD = timestep_BD[:, None] + self.text(text.frames_BTC)
        embedding_ND = nn.functional.silu(embedding_BTD).flatten(0, 1)
        draft_NCHW = self.draft(text.frames_BTC)
        noisy_NCHW = fold_frames(video_BCTHW)
        seen_NCHW = torch.cat((noisy_NCHW, draft_NCHW), dim=1).contiguous(memory_format=torch.channels_last)
        x_NCHW = self.stem(self._fold_patches(seen_NCHW))
        skips: list[Tensor] = []
        for layer in self.down:
            if isinstance(layer, Downsample):
                x_NCHW = layer(x_NCHW)
            else:
                x_NCHW = layer(x_NCHW, None, grid_SP, embedding_ND, text)
                skips.append(x_NCHW)
        x_NCHW = self.middle(x_NCHW, None, grid_SP, embedding_ND, text)
        for layer in self.up:
            if isinstance(layer, Upsample):
                x_NCHW = layer(x_NCHW)
            else:
                x_NCHW = layer(x_NCHW, skips.pop(), grid_SP, embedding_ND, text)
        x_NCHW = self.norm(x_NCHW, silu=True)
        painted_NCHW, shown_NCHW = self.pixels(x_NCHW, noisy_NCHW, seen_NCHW, embedding_ND, frames)
        painted, shown, draft = (unfold_frames(each, frames) for each in (painted_NCHW, shown_NCHW, draft_NCHW))
        clip_gain_B, draft_gain_B = self.gains(nn.functional.silu(timestep_BD)).view(-1, 2, 1, 1, 1, 1).unbind(dim=1)
        return painted + clip_gain_B * shown + draft_gain_B * draft

    def _fold_patches(self, frames_NCHW: Tensor) -> Tensor:
        patches = nn.functional.pixel_unshuffle(frames_NCHW, self.spec.patch_size)
        return patches.contiguous(memory_format=torch.channels_last)


class TextToVideoModel(nn.Module):
    """Text encoder and UNet as one module, with one set of weights to train, average and save."""

    def __init__(self, text_encoder: TextEncoder, unet: UNet3D) -> None:
        super().__init__()
        self.text_encoder = text_encoder
        self.unet = unet
        for module in unet.modules():
            if isinstance(module, nn.Conv2d):
                # Channels last in memory, for the kernels that make convolutions fast on CPU and GPU alike.
                # `contiguous` would leave 1 x 1 kernels as they are, whose gradients come with the other strides.
                weight = torch.empty_like(module.weight, memory_format=torch.channels_last)
                module.weight = nn.Parameter(weight.copy_(module.weight.detach()))

    def forward(
        self,
        video_BCTHW: Tensor,
        timestep_B: Tensor,
        tokens_BL: Tensor,
        drop_caption_B: Tensor,
        *,
        with_duration: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Predict [B, 3, T, H, W].

        Args:
            video_BCTHW: [B, 3, T, H, W] float, the noisy clip.
            timestep_B: [B] int64.
            tokens_BL: [B, L] int64.
            drop_caption_B: [B] bool; True replaces a caption by the learned null caption.
            with_duration: whether to return `TextFeatures.log_seconds_B` too.
        """
        null_L = torch.full_like(tokens_BL[0], PADDING)
        null_L[0] = NULL_CAPTION
        tokens_BL = torch.where(drop_caption_B[:, None], null_L, tokens_BL)
        with cast_together(self.text_encoder):
            text = self.text_encoder(tokens_BL, video_BCTHW.shape[2])
        prediction: Tensor = self.unet(video_BCTHW, timestep_B, text)
        return (prediction, text.log_seconds_B) if with_duration else prediction
