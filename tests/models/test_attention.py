"""Attention against the formula written out."""

import math

import pytest
import torch
from torch import nn

from models.attention import FEW_KEYS, AlignmentBias, MultiHeadAttention, SpatialAttention, TemporalAttention, attend


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


def test_new_attention_is_the_identity_on_frames() -> None:
    x = torch.randn(6, 8, 4, 4)
    assert torch.equal(SpatialAttention(8, 4, 2)(x), x)
    assert torch.equal(TemporalAttention(8, 4, 2)(x, 3), x)


@torch.no_grad()
def test_spatial_attention_stays_within_a_frame_and_temporal_within_a_position() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 8, 4, 4)  # 2 clips of 3 frames
    changed = x.clone()
    changed[1, :, 2, 3] += 1.0
    for module, arguments in ((SpatialAttention(8, 4, 1), ()), (TemporalAttention(8, 4, 1), (3,))):
        nn.init.normal_(module.attention.output.weight)
        module.norm = nn.Identity()  # the norm itself mixes positions
        difference = (module(changed, *arguments) - module(x, *arguments)).abs().amax(1) > 1e-6
        touched = {tuple(index) for index in difference.nonzero().tolist()}
        if isinstance(module, SpatialAttention):
            expected = {(1, row, column) for row in range(4) for column in range(4)}
        else:
            expected = {(frame, 2, 3) for frame in range(3)}
        assert touched == expected


def test_alignment_bias_is_slope_times_distance_in_characters() -> None:
    module = AlignmentBias(heads=2)
    position = torch.tensor([[0.25, 0.75, 1.0]])
    mask = torch.tensor([[True, True, False]])
    bias = module(4, position, mask)[0]
    frame_centres = (0.125, 0.375, 0.625, 0.875)
    for head, slope in enumerate((4.0, 1.0)):
        for frame, centre in enumerate(frame_centres):
            for character, place in enumerate((0.25, 0.75)):
                assert bias[head, frame, character].item() == pytest.approx(-slope * abs(centre - place) * 2, abs=1e-5)
    assert torch.isneginf(bias[:, :, 2]).all()


def test_channels_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match=r"channels \(10\) must be a multiple of head_channels \(4\)"):
        MultiHeadAttention(10, 10, 4)
