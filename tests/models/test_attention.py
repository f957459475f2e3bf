"""Attention against the formula written out."""

import math

import pytest
import torch
from torch import nn

from models import attention
from models.attention import (
    FEW_KEYS,
    AlignmentBias,
    MultiHeadAttention,
    SpatialAttention,
    TemporalAttention,
    attend,
)
from models.layers import FrameNorm, grid_features

CPU = torch.device("cpu")


@torch.no_grad()
def test_multi_head_attention_equals_the_written_out_formula() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(channels=8, context_channels=6, head_channels=4)
    nn.init.normal_(module.output.weight)
    nn.init.normal_(module.query_norm.weight)
    query, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    bias = torch.randn(2, 2, 3, 5)
    expected = torch.zeros(2, 3, 8)
    projected_query = query @ module.query.weight.T
    projected_key, projected_value = context @ module.key.weight.T, context @ module.value.weight.T
    for batch in range(2):
        heads = []
        for head in range(2):
            part = slice(4 * head, 4 * head + 4)
            q = projected_query[batch, :, part]
            k, v = projected_key[batch, :, part], projected_value[batch, :, part]
            q = (q - q.mean(1, keepdim=True)) / (q.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
            k = (k - k.mean(1, keepdim=True)) / (k.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
            q, k = q * module.query_norm.weight, k * module.key_norm.weight
            heads.append(((q @ k.T) / math.sqrt(4) + bias[batch, head]).softmax(1) @ v)
        expected[batch] = torch.cat(heads, 1) @ module.output.weight.T + module.output.bias
    torch.testing.assert_close(module(query, context, bias), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", [FEW_KEYS, FEW_KEYS + 1])
def test_the_path_for_few_keys_equals_the_fused_kernel(keys: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, keys, 8), torch.randn(2, 3, keys, 8)
    bias = torch.randn(2, 3, 5, keys).masked_fill(torch.rand(2, 3, 5, keys) < 0.3, float("-inf"))
    for one in (None, bias):
        expected = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=one, scale=1.0)
        torch.testing.assert_close(attend(query, key, value, one), expected)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("grid", "index"), [(2, 10**9), (10**9, 2 * 2 * 128 * 32), (10**9, 128 * 32)])
def test_attention_that_is_too_large_for_one_call_is_split(
    monkeypatch: pytest.MonkeyPatch, grid: int, index: int, has_bias: bool
) -> None:
    """CUDA refuses more than 65,535 sequences or heads a call; the limits here are smaller."""
    torch.manual_seed(0)
    inputs = [torch.randn(5, 3, rows, 8).requires_grad_() for rows in (7, FEW_KEYS + 1, FEW_KEYS + 1)]
    bias = torch.randn(5, 1, 7, FEW_KEYS + 1).requires_grad_() if has_bias else None
    leaves = [*inputs, bias] if has_bias else inputs
    gradient = torch.randn(5, 3, 7, 8)
    whole = attend(*inputs, bias)
    expected = [whole, *torch.autograd.grad(whole, leaves, gradient)]
    monkeypatch.setattr(attention, "LARGEST_GRID", grid)
    monkeypatch.setattr(attention, "LARGEST_INDEX", index)
    sizes: list[torch.Size] = []

    def watched(query: torch.Tensor, *others: torch.Tensor, **options: object) -> torch.Tensor:
        sizes.append(query.shape)
        return kernel(query, *others, **options)

    kernel = nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", watched)
    parts = attend(*inputs, bias)
    assert len(sizes) > 1
    assert all(max(batch, heads) <= grid and batch * heads * 128 * 32 <= index for batch, heads, _, _ in sizes)
    torch.testing.assert_close([parts, *torch.autograd.grad(parts, leaves, gradient)], expected)


@torch.no_grad()
def test_sequences_side_by_side_attend_like_sequences_apart() -> None:
    torch.manual_seed(0)
    module = MultiHeadAttention(channels=8, context_channels=8, head_channels=4)
    nn.init.normal_(module.output.weight)
    x_NQSC = torch.randn(2, 5, 3, 8)
    apart = torch.stack([module(x_NQSC[:, :, place], x_NQSC[:, :, place]) for place in range(3)], dim=2)
    torch.testing.assert_close(module(x_NQSC, x_NQSC), apart)


def test_new_attention_is_the_identity_on_frames() -> None:
    x = torch.randn(6, 8, 4, 4)
    assert torch.equal(SpatialAttention(8, 4, 2)(x, grid_features([(4, 4)], CPU)[4]), x)
    assert torch.equal(TemporalAttention(8, 4, 2)(x, 3), x)


@torch.no_grad()
def test_spatial_attention_stays_within_a_frame_and_temporal_within_a_position(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 4, 4)  # 2 clips of 3 frames
    changed = x.clone()
    changed[1, :, 2, 3] += 1.0
    spatial, temporal = SpatialAttention(8, 4, 1), TemporalAttention(8, 4, 1)
    for module, places in ((spatial, grid_features([(4, 4)], CPU)[4]), (temporal, 3)):
        nn.init.normal_(module.attention.output.weight)
        monkeypatch.setattr(FrameNorm, "branch", lambda _norm, x, *_, **__: (x, x))  # the norm itself mixes positions
        difference = (module(changed, places) - module(x, places)).abs().amax(1) > 1e-6
        touched = {tuple(index) for index in difference.nonzero().tolist()}
        if isinstance(module, SpatialAttention):
            expected = {(1, row, column) for row in range(4) for column in range(4)}
        else:
            expected = {(frame, 2, 3) for frame in range(3)}
        assert touched == expected


def test_alignment_bias_is_slope_times_distance_in_characters() -> None:
    module = AlignmentBias(heads=2)
    distance = torch.rand(1, 4, 3)
    padding = torch.tensor([[[[0.0, 0.0, -math.inf]]]])
    bias = module(distance, padding)[0]
    for head, slope in enumerate((4.0, 1.0)):
        torch.testing.assert_close(bias[head, :, :2], -slope * distance[0, :, :2])
    assert torch.isneginf(bias[:, :, 2]).all()


@torch.no_grad()
def test_frames_swap_places_in_temporal_attention_without_a_trace() -> None:
    module = TemporalAttention(8, 4, 1)
    nn.init.normal_(module.attention.output.weight)
    x, order = torch.randn(5, 8, 2, 2), torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(module(x[order], 5), module(x, 5)[order])


def test_channels_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match=r"channels \(10\) must be a multiple of head_channels \(4\)"):
        MultiHeadAttention(10, 10, 4)
