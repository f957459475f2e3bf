"""The U-Net and two libraries' networks, of the same size, with the same inputs and the same text encoder."""

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

import common.vision  # noqa: F401  # before the libraries import torchvision, see there
from models.text_encoder import CharacterEncoder, TextFeatures
from models.tokens import NULL_CAPTION, PADDING
from models.unet3d import TextToVideoModel, UNet3D, UNet3DSpecification

NetworkName = Literal["text2sign", "diffusers", "video-diffusion-pytorch"]
NETWORK_NAMES: tuple[NetworkName, ...] = get_args(NetworkName)
OURS: NetworkName = "text2sign"
VOCABULARY = 29
"""Tokens of the text encoder: 26 letters, the space between words, padding and the null caption."""
TEXT_CHANNELS = 128
TEXT_ENCODER = (VOCABULARY, TEXT_CHANNELS, 2, 4)  # two layers of four heads
NUM_TIMESTEPS = 1000
PATCH_SIZE = 2
HEAD_CHANNELS = 32
GROUPS = 8
WIDTHS = {
    300_000: ((32, 32, 64), (8, 16, 24), 8),
    5_000_000: ((64, 64, 64), (32, 64, 96), 32),
    20_000_000: ((160, 224, 320), (64, 128, 240), 88),
}
"""Of the three networks in the order of their names, by about how many parameters they have, text encoder included.
Of ours, 3.3 million draw the caption, which is a hundredth of the work."""
DIFFUSERS_HEADS = {300_000: 8, 5_000_000: 16, 20_000_000: 16}
"""Channels of a head. At 32 pixels heads of 8 or 32 took a quarter to a half more processor time than 16."""


def build_network(name: NetworkName, *, image_size: tuple[int, int], parameters: int) -> nn.Module:
    """Build a network.

    Its `forward(video_BCTHW, timestep_B, tokens_BL, drop_caption_B)` is that of `TextToVideoModel`. Weights come from
    PyTorch's global generator. `image_size` has multiples of 8, `parameters` a key of WIDTHS.
    """
    own, diffusers, video_diffusion = WIDTHS[parameters]
    if name == OURS:
        return _build_own(image_size, own)
    if name == "diffusers":
        return DiffusersNetwork(diffusers, DIFFUSERS_HEADS[parameters])
    return VideoDiffusionNetwork(video_diffusion)


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class _Peer(nn.Module, ABC):
    """A library's network behind the text encoder; what the encoder reads for single frames is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = CharacterEncoder(*TEXT_ENCODER)

    def forward(
        self,
        video_BCTHW: Tensor,
        timestep_B: Tensor,
        tokens_BL: Tensor,
        drop_caption_B: Tensor,
        *,
        with_duration: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Do what `TextToVideoModel` does."""
        null_L = torch.full_like(tokens_BL[0], PADDING)
        null_L[0] = NULL_CAPTION
        captions_BL = torch.where(drop_caption_B[:, None], null_L, tokens_BL)
        text: TextFeatures = self.text_encoder(captions_BL, video_BCTHW.shape[2])
        prediction = self.predict(video_BCTHW, timestep_B, text)
        return (prediction, text.log_seconds_B) if with_duration else prediction

    @abstractmethod
    def predict(self, video_BCTHW: Tensor, timestep_B: Tensor, text: TextFeatures) -> Tensor:
        """Predict [B, 3, T, H, W] from what the encoder says of the captions."""


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

    def predict(self, video_BCTHW: Tensor, timestep_B: Tensor, text: TextFeatures) -> Tensor:
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

    def predict(self, video_BCTHW: Tensor, timestep_B: Tensor, text: TextFeatures) -> Tensor:
        mask_BL1 = text.mask_BL[..., None]
        pooled_BC = (text.tokens_BLC * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)
        prediction: Tensor = self.network(video_BCTHW, timestep_B, cond=pooled_BC)
        return prediction


def _build_own(image_size: tuple[int, int], channels: tuple[int, ...]) -> TextToVideoModel:
    """Build the U-Net as the default preset has it, but for its widths; at 32 pixels it attends over 8 x 8."""
    specification = UNet3DSpecification(
        image_size=image_size,
        num_timesteps=NUM_TIMESTEPS,
        channels=channels,
        blocks_per_level=1,
        patch_size=PATCH_SIZE,
        spatial_attention_sizes=(min(image_size) // 4,),
        head_channels=HEAD_CHANNELS,
        groups=GROUPS,
        text_channels=TEXT_CHANNELS,
    )
    return TextToVideoModel(CharacterEncoder(*TEXT_ENCODER), UNet3D(specification))
