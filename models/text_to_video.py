"""Text encoder and UNet as one module, with one set of weights to train, average and save."""

import torch
from torch import Tensor, nn

from models.text_encoder import TextEncoder
from models.tokens import NULL_CAPTION, PADDING
from models.unet3d import UNet3D


class TextToVideoModel(nn.Module):
    """Predicts from a noisy clip, its timestep and the tokens of its caption."""

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

    def forward(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        """Predict [B, 3, T, H, W].

        Args:
            video_BCTHW: [B, 3, T, H, W] float, the noisy clip.
            timestep_B: [B] int64.
            tokens_BL: [B, L] int64.
            drop_caption_B: [B] bool; True replaces a caption by the learned null caption.
        """
        null_L = torch.full_like(tokens_BL[0], PADDING)
        null_L[0] = NULL_CAPTION
        tokens_BL = torch.where(drop_caption_B[:, None], null_L, tokens_BL)
        text = self.text_encoder(tokens_BL, video_BCTHW.shape[2])
        return self.unet(video_BCTHW, timestep_B, text)
