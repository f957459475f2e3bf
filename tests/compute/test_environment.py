"""What a forward pass takes is counted, attention included."""

import torch
from torch import nn

from compute.environment import forward_flops
from data.records import ClipRow, FixedClips


class Attention(nn.Module):
    """One linear layer on the pixels of each frame, then PyTorch's fused attention between them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, video_BCTHW, timestep_B, tokens_BL, drop_caption_B):
        pixels = self.linear(video_BCTHW.permute(0, 2, 3, 4, 1).flatten(2, 3))  # [B, T, pixels, 3]
        return nn.functional.scaled_dot_product_attention(pixels, pixels, pixels)


def test_the_operations_of_one_clip_are_counted_and_attention_on_a_cpu_is_among_them():
    frames, pixels = 12, 8 * 8
    clips = tuple(torch.zeros(length, 8, 8, 3, dtype=torch.uint8) for length in (5, 7))
    rows = (ClipRow("a", "A", 5, 1.0), ClipRow("b", "B", 7, 1.0))
    fixed = FixedClips(rows, clips, torch.zeros(2, 4, dtype=torch.int64))
    linear, product = 2 * frames * pixels * 3 * 3, 2 * frames * pixels * pixels * 3
    assert forward_flops(Attention(), fixed, frames, torch.device("cpu")) == linear + 2 * product
