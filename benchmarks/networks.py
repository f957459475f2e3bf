"""The U-Net and two libraries' networks, of the same size, with the same inputs and the same text encoder."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import cache, partial
from typing import Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

import common.vision  # noqa: F401  # before the libraries import torchvision, see there
from models.text_encoder import CharacterEncoder, TextFeatures
from models.tokens import NULL_CAPTION, PADDING
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification

NetworkName = Literal["text2sign", "diffusers", "video-diffusion-pytorch"]
NETWORK_NAMES: tuple[NetworkName, ...] = get_args(NetworkName)
OURS: NetworkName = "text2sign"
VOCABULARY = 28
"""Tokens of the text encoder: 26 letters, padding and the null caption."""
TEXT_CHANNELS, TEXT_LAYERS, TEXT_HEADS = 128, 2, 4
NUM_TIMESTEPS = 1000
PATCH_SIZE = 2
HEAD_CHANNELS = 32
GROUPS = 8
TOLERANCE = 0.2
CHOSEN_CHANNELS = {5_000_000: (64, 96, 160), 20_000_000: (160, 224, 320)}
"""Widths of the U-Net by number of parameters; other numbers are searched for."""
LARGEST_WIDTH = 1024
Widths = TypeVar("Widths", bound=Hashable)


def build_network(name: NetworkName, *, image_size: int, parameters: int) -> nn.Module:
    """Build a network whose parameters, text encoder included, are as near to `parameters` as its widths allow.

    Its `forward(video_BCTHW, timestep_B, tokens_BL, drop_caption_B)` is that of `TextToVideoModel`. Weights come from
    PyTorch's global generator.

    Raises:
        ValueError: the image cannot be halved as often as the network does.
    """
    if name == OURS:
        return _build_own(image_size, _own_channels(image_size, parameters))
    if name == "diffusers":
        return DiffusersNetwork(*_diffusers_widths(parameters))
    return VideoDiffusionNetwork(_video_diffusion_width(parameters))


def count_parameters(network: nn.Module) -> int:
    """Count all parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


class _Peer(nn.Module):
    """A library's network behind the text encoder; what the encoder reads for single frames is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = _build_text_encoder()

    def text(self, tokens_BL: Tensor, drop_caption_B: Tensor, frames: int) -> TextFeatures:
        """Encode captions; True in `drop_caption_B` puts the null caption in place of one."""
        null_L = torch.full_like(tokens_BL[0], PADDING)
        null_L[0] = NULL_CAPTION
        features: TextFeatures = self.text_encoder(torch.where(drop_caption_B[:, None], null_L, tokens_BL), frames)
        return features


class DiffusersNetwork(_Peer):
    """`diffusers.UNet3DConditionModel` with three levels, its own cross-attention looking at the characters.

    The first two levels attend, the last does not, as its default does with four. One layer a block, where two are
    its default, because one is faster and the U-Net here has one as well. Its cross-attention has no mask for padding,
    and it trains with the dropout that is fixed in its temporal convolutions.
    """

    def __init__(self, channels: tuple[int, int, int], head_channels: int) -> None:
        super().__init__()
        from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

        self.network = UNet3DConditionModel(
            in_channels=3,
            out_channels=3,
            down_block_types=("CrossAttnDownBlock3D", "CrossAttnDownBlock3D", "DownBlock3D"),
            up_block_types=("UpBlock3D", "CrossAttnUpBlock3D", "CrossAttnUpBlock3D"),
            block_out_channels=channels,
            layers_per_block=1,
            norm_num_groups=GROUPS,
            cross_attention_dim=TEXT_CHANNELS,
            attention_head_dim=head_channels,
        )

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        text = self.text(tokens_BL, drop_caption_B, video_BCTHW.shape[2])
        prediction: Tensor = self.network(video_BCTHW, timestep_B, text.tokens_BLC, return_dict=False)[0]
        return prediction


class VideoDiffusionNetwork(_Peer):
    """`video_diffusion_pytorch.Unet3D` with three levels and all its defaults.

    The one vector of text that it takes is the mean of the characters, padding left out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        from video_diffusion_pytorch import Unet3D  # type: ignore[import-untyped]

        self.network = Unet3D(dim=width, cond_dim=TEXT_CHANNELS, dim_mults=(1, 2, 4))

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        text = self.text(tokens_BL, drop_caption_B, video_BCTHW.shape[2])
        mask_BL1 = text.mask_BL[..., None]
        pooled_BC = (text.tokens_BLC * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        prediction: Tensor = self.network(video_BCTHW, timestep_B, cond=pooled_BC)
        return prediction


def _build_text_encoder() -> CharacterEncoder:
    return CharacterEncoder(VOCABULARY, TEXT_CHANNELS, TEXT_LAYERS, TEXT_HEADS)


def _build_own(image_size: int, channels: tuple[int, ...]) -> TextToVideoModel:
    """Build the U-Net as the default preset has it, but for its widths; at 32 pixels it attends over 8 x 8."""
    specification = UNet3DSpecification(
        image_size=image_size,
        num_timesteps=NUM_TIMESTEPS,
        channels=channels,
        blocks_per_level=1,
        patch_size=PATCH_SIZE,
        spatial_attention_sizes=(image_size // 4,),
        head_channels=HEAD_CHANNELS,
        groups=GROUPS,
        text_channels=TEXT_CHANNELS,
    )
    return TextToVideoModel(_build_text_encoder(), UNet3D(specification))


@cache
def _own_channels(image_size: int, parameters: int) -> tuple[int, ...]:
    """Return widths near 1 : 1.5 : 2.5, as those chosen by hand, in whole heads."""
    if parameters in CHOSEN_CHANNELS:
        return CHOSEN_CHANNELS[parameters]
    heads = range(1, LARGEST_WIDTH // HEAD_CHANNELS)
    widths = [tuple(HEAD_CHANNELS * int(ratio * count) for ratio in (1, 1.5, 2.5)) for count in heads]
    return _nearest(widths, partial(_build_own, image_size), parameters)[0]


@cache
def _diffusers_widths(parameters: int) -> tuple[tuple[int, int, int], int]:
    """Return the channels of the levels and of a head.

    The levels double, as its default does, but for the last, which may be as little as three times the first to come
    near the number. Heads of 16 channels make it fastest: at 32 pixels, with 5 and 20 million parameters, forward and
    backward took a quarter to a half more processor time with heads of 8 or 32. Networks too small for 16 get 8.
    """
    for head_channels in (16, 8):
        found, count = _nearest(
            _diffusers_channels(head_channels), partial(DiffusersNetwork, head_channels=head_channels), parameters
        )
        if abs(count / parameters - 1) <= TOLERANCE:
            break
    return found, head_channels


def _diffusers_channels(head_channels: int) -> Iterator[tuple[int, int, int]]:
    for first in range(head_channels, LARGEST_WIDTH, head_channels):
        for last in range(3 * first, 4 * first + 1, head_channels):
            yield first, 2 * first, last


@cache
def _video_diffusion_width(parameters: int) -> int:
    return _nearest(range(8, LARGEST_WIDTH, 8), VideoDiffusionNetwork, parameters)[0]


def _nearest(candidates: Iterable[Widths], build: Callable[[Widths], nn.Module], parameters: int) -> tuple[Widths, int]:
    """Return the candidate whose network has the number of parameters nearest to `parameters`, and that number.

    The networks are built without memory for their weights. A network of three times as many parameters ends the
    search: candidates come from small to large but for the last level, which cannot make a network three times larger.
    """
    counts: dict[Widths, int] = {}
    for candidate in candidates:
        with torch.device("meta"):
            counts[candidate] = count_parameters(build(candidate))
        if counts[candidate] > 3 * parameters:
            break
    nearest = min(counts, key=lambda candidate: abs(counts[candidate] - parameters))
    return nearest, counts[nearest]
