"""Attention over space, over time and over text, all through PyTorch's scaled_dot_product_attention."""

import torch
from torch import Tensor, nn

from models.layers import POSITION_FEATURES, FrameNorm, centred_positions, from_tokens, position_features, to_tokens

FEW_KEYS = 64


def attend(query_NhQD: Tensor, key_NhKD: Tensor, value_NhKD: Tensor, bias: Tensor | None) -> Tensor:
    """Return softmax(query key^T + bias) value, [N, h, Q, D]; the queries come scaled.

    PyTorch's fused kernel, except for few keys on a CPU: there two matrix products and a softmax take half the time
    (measured with 1,024 sequences of 16 frames), because the fused kernel's blocks stay mostly empty.
    """
    if query_NhQD.device.type != "cpu" or key_NhKD.shape[2] > FEW_KEYS:
        return nn.functional.scaled_dot_product_attention(query_NhQD, key_NhKD, value_NhKD, attn_mask=bias, scale=1.0)
    logits = (query_NhQD @ key_NhKD.transpose(-1, -2)).float()  # a bfloat16 softmax is slower, and less exact
    if bias is not None:
        logits = logits + bias
    return logits.softmax(dim=-1).to(value_NhKD.dtype) @ value_NhKD


class MultiHeadAttention(nn.Module):
    """Queries from one sequence, keys and values from another, with normalised queries and keys.

    Normalising queries and keys bounds the logits, which keeps long trainings stable (Dehghani et al. 2023,
    arXiv 2302.05442, section 2, "query/key normalization"). The output projection starts at zero, so that a new block
    is the identity.
    """

    def __init__(self, channels: int, context_channels: int, head_channels: int) -> None:
        super().__init__()
        if channels % head_channels != 0:
            raise ValueError(f"channels ({channels}) must be a multiple of head_channels ({head_channels})")
        self.heads = channels // head_channels
        self.head_channels = head_channels
        self.query = nn.Linear(channels, channels, bias=False)
        # Apart, because slices of one projection would have to be copied before they can be normalised.
        self.key = nn.Linear(context_channels, channels, bias=False)
        self.value = nn.Linear(context_channels, channels, bias=False)
        self.query_norm = nn.LayerNorm(head_channels, bias=False)
        self.key_norm = nn.LayerNorm(head_channels, bias=False)
        self.output = nn.Linear(channels, channels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, query_NQC: Tensor, context_NKC: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            query_NQC: [N, Q, channels].
            context_NKC: [N, K, context_channels].
            bias: added to the logits, broadcastable to [N, heads, Q, K]; -inf hides a key. None: all keys are seen.

        Returns:
            [N, Q, channels].
        """
        batch, queries, channels = query_NQC.shape
        keys = context_NKC.shape[1]
        query = self.query(query_NQC).view(batch, queries, self.heads, self.head_channels)
        key = self.key(context_NKC).view(batch, keys, self.heads, self.head_channels)
        value = self.value(context_NKC).view(batch, keys, self.heads, self.head_channels)
        # The logits' 1 / sqrt(D) is part of the query's gain, which saves a pass over all queries.
        gain = self.query_norm.weight * self.head_channels**-0.5
        query = nn.functional.layer_norm(query, (self.head_channels,), gain, eps=self.query_norm.eps)
        attended = attend(query.transpose(1, 2), self.key_norm(key).transpose(1, 2), value.transpose(1, 2), bias)
        merged = attended.transpose(1, 2).reshape(batch, queries, channels)
        return self.output(merged)


class AlignmentBias(nn.Module):
    """A penalty on attending to characters that are far from a frame's own place in the clip.

    As ALiBi (Press et al. 2022, arXiv 2108.12409, section 3) penalises distance between tokens, this penalises the
    distance between a frame and a character, both on the normalised scale and counted in characters: -slope * distance.
    Each head has its own learned slope; they start a factor of 4 apart, so that some heads read one letter at
    a time and others all of the caption. A sign language that does not follow the order of the text can unlearn them.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.log(4.0 * 0.25 ** (torch.arange(heads, dtype=torch.float32) % 4)))

    def forward(self, frames: int, position_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Return the bias [B, heads, frames, L] float32; -inf where `mask_BL` is False (padding)."""
        frame_position_T = centred_positions(frames, position_BL.device)
        characters_B = mask_BL.sum(dim=1).float()
        distance_BTL = (frame_position_T[None, :, None] - position_BL[:, None, :]).abs() * characters_B[:, None, None]
        bias_BhTL = -self.log_slope.exp()[None, :, None, None] * distance_BTL[:, None]
        return bias_BhTL.masked_fill(~mask_BL[:, None, None, :], float("-inf"))


class SpatialAttention(nn.Module):
    """Each position of a frame attends to all positions of the same frame."""

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.position = nn.Linear(2 * POSITION_FEATURES, channels, bias=False)
        self.attention = MultiHeadAttention(channels, channels, head_channels)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Map frames [N, C, H, W] to frames of the same shape."""
        height, width = x_NCHW.shape[2:]
        rows = position_features(centred_positions(height, x_NCHW.device))
        columns = position_features(centred_positions(width, x_NCHW.device))
        grid = torch.cat(
            (rows[:, None].expand(height, width, -1), columns[None, :].expand(height, width, -1)), dim=-1
        ).reshape(height * width, -1)
        tokens = self.norm(x_NCHW).permute(0, 2, 3, 1).flatten(1, 2) + self.position(grid)
        attended = self.attention(tokens, tokens)
        return x_NCHW + attended.unflatten(1, (height, width)).permute(0, 3, 1, 2)


class TemporalAttention(nn.Module):
    """Each position attends to the same position of all frames."""

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.position = nn.Linear(POSITION_FEATURES, channels, bias=False)
        self.attention = MultiHeadAttention(channels, channels, head_channels)

    def forward(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Map frames [N = B * frames, C, H, W] to frames of the same shape."""
        height, width = x_NCHW.shape[2:]
        tokens_BTSC = to_tokens(self.norm(x_NCHW), frames)
        place_TC = self.position(position_features(centred_positions(frames, x_NCHW.device)))
        sequence = (tokens_BTSC + place_TC[None, :, None]).transpose(1, 2).flatten(0, 1)  # [B * S, T, C]
        attended = self.attention(sequence, sequence).unflatten(0, (-1, height * width)).transpose(1, 2)
        return x_NCHW + from_tokens(attended, height, width)


class TextAttention(nn.Module):
    """Each position of each frame attends to the characters of the caption."""

    def __init__(self, channels: int, text_channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.attention = MultiHeadAttention(channels, text_channels, head_channels)
        self.alignment = AlignmentBias(self.attention.heads)

    def forward(self, x_NCHW: Tensor, frames: int, text_BLC: Tensor, position_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Map frames [N = B * frames, C, H, W] to frames of the same shape."""
        height, width = x_NCHW.shape[2:]
        tokens_BTSC = to_tokens(self.norm(x_NCHW), frames)
        queries = tokens_BTSC.flatten(1, 2)  # [B, T * S, C]
        bias_BhTL = self.alignment(frames, position_BL, mask_BL)
        bias = bias_BhTL.repeat_interleave(height * width, dim=2)
        attended = self.attention(queries, text_BLC, bias.to(queries.dtype)).unflatten(1, (frames, height * width))
        return x_NCHW + from_tokens(attended, height, width)
