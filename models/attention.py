"""Attention over space, over time and over text, all through PyTorch's scaled_dot_product_attention."""

import torch
from torch import Tensor, nn

from models.layers import POSITION_FEATURES, FrameNorm, from_tokens, to_tokens

FEW_KEYS = 128
LARGEST_GRID = 65_535
"""Sequences, and heads, that a kernel of CUDA takes at most ("invalid configuration argument", pytorch#146704)."""
LARGEST_INDEX = 2**31
"""Elements that flash attention's backward pass can address in a buffer of its own: batch * heads * queries, rounded up
to 128, * channels, at least 32 (github.com/PriorLabs/TabPFN, pull request 1184)."""


def attend(query_NhQD: Tensor, key_NhKD: Tensor, value_NhKD: Tensor, bias: Tensor | None, scale: float = 1.0) -> Tensor:
    """Return softmax(scale * query key^T + bias) value, [N, h, Q, D].

    PyTorch's fused kernel, except for few keys on a CPU: there two matrix products and a softmax take less than half of
    the time (16 to 128 frames, forward and backward). They keep the softmax, a fifth of the memory of a step of 96
    frames a clip.
    """
    if query_NhQD.device.type != "cpu" or key_NhKD.shape[2] > FEW_KEYS:
        if (axis := _axis_to_split(query_NhQD)) is not None:
            given = (each.chunk(2, axis) for each in (query_NhQD, key_NhKD, value_NhKD))
            biases = (bias, bias) if bias is None or bias.shape[axis] == 1 else bias.chunk(2, axis)
            halves = zip(*given, biases, strict=True)
            return torch.cat([attend(query, key, value, part, scale) for query, key, value, part in halves], axis)
        return nn.functional.scaled_dot_product_attention(query_NhQD, key_NhKD, value_NhKD, attn_mask=bias, scale=scale)
    logits = (query_NhQD @ key_NhKD.transpose(-1, -2)).float()  # a bfloat16 softmax is slower, and less exact
    if scale != 1.0:
        logits = logits * scale
    if bias is not None:
        logits = logits + bias
    return logits.softmax(dim=-1).to(value_NhKD.dtype) @ value_NhKD


def _axis_to_split(query_NhQD: Tensor) -> int | None:
    """Return along which axis, 0 or 1, attention is too large for one call on CUDA; None if it is not."""
    batch, heads, queries, channels = query_NhQD.shape
    elements = batch * heads * (queries + -queries % 128) * max(channels, 32)
    if batch > LARGEST_GRID or (elements > LARGEST_INDEX and batch > 1):
        return 0
    return 1 if heads > LARGEST_GRID or (elements > LARGEST_INDEX and heads > 1) else None


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
            query_NQC: [N, Q, channels], or [N, Q, S, channels] for S sequences side by side.
            context_NKC: [N, K, context_channels], or [N, K, S, context_channels].
            bias: added to the logits, broadcastable to [N, heads, Q, K]; -inf hides a key. None: all keys are seen.
                With sequences side by side, heads are S * heads.

        Returns:
            The shape of `query_NQC`.
        """
        query, key, value = (
            each.view(*each.shape[:2], -1, self.head_channels) for each in self._projected(query_NQC, context_NKC)
        )
        gain, scale = self.query_norm.weight, self.head_channels**-0.5
        if query.device.type != "cuda":  # whose kernels scale the logits: here the gain does, without a pass over them
            gain, scale = gain * scale, 1.0
        query = _normalised(query, gain, self.query_norm.eps)
        key = _normalised(key, self.key_norm.weight, self.key_norm.eps)
        attended = attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), bias, scale)
        return self.output(attended.transpose(1, 2).reshape(query_NQC.shape))

    def _projected(self, query_NQC: Tensor, context_NKC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.query.weight, nn.Parameter):  # not in `cast_together`
            return self.query(query_NQC), self.key(context_NKC), self.value(context_NKC)
        if context_NKC is query_NQC:
            query, key, value = _stacked(query_NQC, self.query, self.key, self.value)
        else:
            query, (key, value) = self.query(query_NQC), _stacked(context_NKC, self.key, self.value)
        return query, key, value


def _stacked(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Return what layers without biases make of the same input, by one matrix product; each is one piece of memory."""
    weight_LDC = torch.stack([layer.weight for layer in layers])
    inputs_LNC = x.flatten(0, -2).expand(len(layers), -1, -1)
    return torch.bmm(inputs_LNC, weight_LDC.transpose(1, 2)).unflatten(1, x.shape[:-1]).unbind()


def _normalised(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Layer normalisation over the channels of a head.

    CUDA's kernel computes in float32 and reads and writes x's own type, if the gain has that type too. Autocast would
    have float32 written, kept, and copied to the lower precision for attention.
    """
    if x.device.type != "cuda":
        return nn.functional.layer_norm(x, gain.shape, gain, eps=epsilon)
    with torch.autocast("cuda", enabled=False):
        return nn.functional.layer_norm(x, gain.shape, gain.to(x.dtype), eps=epsilon)


class AlignmentBias(nn.Module):
    """A penalty on attending to characters that are far from a frame's own place in the clip.

    As ALiBi (Press et al. 2022, arXiv 2108.12409, section 3) penalises distance between tokens, this penalises the
    distance between a frame's place in the caption, or a character's, and a character's, counted in characters:
    -slope * distance. It knows no absolute place, so it means the same in captions longer than any in training.
    Each head has its own learned slope; they start a factor of 4 apart, so that some heads read one letter at
    a time and others all of the caption. A sign language that does not follow the order of the text can unlearn them.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_slope = nn.Parameter(torch.log(4.0 * 0.25 ** (torch.arange(heads, dtype=torch.float32) % 4)))

    def forward(self, distance_BTL: Tensor, padding_B11L: Tensor) -> Tensor:
        """Return the bias [B, heads, T, L] float32 for distances in characters; `padding_B11L` is added, -inf or 0."""
        return torch.addcmul(padding_B11L, self.log_slope.exp()[None, :, None, None], distance_BTL[:, None], value=-1)


class SpatialAttention(nn.Module):
    """Each position of a frame attends to all positions of the same frame."""

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.position = nn.Linear(2 * POSITION_FEATURES, channels, bias=False)
        self.attention = MultiHeadAttention(channels, channels, head_channels)

    def forward(self, x_NCHW: Tensor, grid_SP: Tensor) -> Tensor:
        """Map frames [N, C, H, W] to frames of the same shape; `grid_SP` is of `layers.grid_features`."""
        x_NCHW, normed_NCHW = self.norm.branch(x_NCHW)
        tokens = normed_NCHW.permute(0, 2, 3, 1).flatten(1, 2) + self.position(grid_SP)
        attended = self.attention(tokens, tokens)
        return x_NCHW + attended.unflatten(1, x_NCHW.shape[2:]).permute(0, 3, 1, 2)


class TemporalAttention(nn.Module):
    """Each position attends to the same position of all frames.

    It is told no places in time: what a frame shows, and so where it is, comes from its text vector, and convolutions
    over time know what is before and after. So it works in clips longer than any in training.
    """

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.attention = MultiHeadAttention(channels, channels, head_channels)

    def forward(self, x_NCHW: Tensor, frames: int) -> Tensor:
        """Map frames [N = B * frames, C, H, W] to frames of the same shape."""
        height, width = x_NCHW.shape[2:]
        x_NCHW, normed_NCHW = self.norm.branch(x_NCHW)
        tokens_BTSC = to_tokens(normed_NCHW, frames)
        if x_NCHW.device.type == "cuda":
            # All positions of a clip side by side, each like more heads: PyTorch's attention takes strides between
            # frames, and so nothing is transposed in memory.
            return x_NCHW + from_tokens(self.attention(tokens_BTSC, tokens_BTSC), height, width)
        sequence = tokens_BTSC.transpose(1, 2).flatten(0, 1)  # [B * S, T, C]
        attended = self.attention(sequence, sequence).unflatten(0, (-1, height * width)).transpose(1, 2)
        return x_NCHW + from_tokens(attended, height, width)


class TextAttention(nn.Module):
    """Each position of each frame attends to the characters of the caption."""

    def __init__(self, channels: int, text_channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.norm = FrameNorm(groups, channels)
        self.attention = MultiHeadAttention(channels, text_channels, head_channels)
        self.alignment = AlignmentBias(self.attention.heads)

    def forward(self, x_NCHW: Tensor, text_BLC: Tensor, distance_BTL: Tensor, padding_B11L: Tensor) -> Tensor:
        """Map frames [N = B * T, C, H, W] to frames of the same shape; the rest is of `TextFeatures`."""
        height, width = x_NCHW.shape[2:]
        frames = distance_BTL.shape[1]
        x_NCHW, normed_NCHW = self.norm.branch(x_NCHW)
        tokens_BTSC = to_tokens(normed_NCHW, frames)
        queries = tokens_BTSC.flatten(1, 2)  # [B, T * S, C]
        bias_BhTL = self.alignment(distance_BTL, padding_B11L)
        bias = bias_BhTL.repeat_interleave(height * width, dim=2)
        attended = self.attention(queries, text_BLC, bias.to(queries.dtype)).unflatten(1, (frames, height * width))
        return x_NCHW + from_tokens(attended, height, width)
