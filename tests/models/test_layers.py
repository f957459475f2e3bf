"""Blocks against the plain three-dimensional operations that they stand for."""

import pytest
import torch
from torch import nn

from models.layers import (
    Downsample,
    EdgePadding,
    ResidualBlock,
    TemporalConvolution,
    Upsample,
    fold_frames,
    from_tokens,
    neighbourhoods,
    to_tokens,
    unfold_frames,
)


def test_folding_and_tokens_are_undone_exactly_and_share_memory() -> None:
    video = torch.randn(2, 5, 3, 4, 6)
    frames = fold_frames(video)
    assert frames.shape == (6, 5, 4, 6)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(unfold_frames(frames, 3), video)
    tokens = to_tokens(frames, 3)
    assert tokens.data_ptr() == frames.data_ptr()
    assert torch.equal(tokens[1, 2, 3 * 6 + 1], video[1, :, 2, 3, 1])
    assert torch.equal(from_tokens(tokens, 4, 6), frames)


@torch.no_grad()
def test_temporal_convolution_equals_a_conv3d_of_3_1_1() -> None:
    torch.manual_seed(0)
    module = TemporalConvolution(6)
    video = torch.randn(2, 6, 5, 4, 4)
    assert torch.allclose(unfold_frames(module(fold_frames(video), 5), 5), video)  # starts as the identity
    nn.init.normal_(module.convolution.weight)
    nn.init.normal_(module.convolution.bias)
    plain = nn.Conv3d(6, 6, (3, 1, 1), padding=(1, 0, 0))
    plain.weight.copy_(module.convolution.weight[:, :, :, None])
    plain.bias.copy_(module.convolution.bias)
    torch.testing.assert_close(unfold_frames(module(fold_frames(video), 5), 5), plain(video), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_residual_block_equals_plain_3d_operations() -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 6, 10, 2)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    video, embedding = torch.randn(2, 4, 3, 8, 8), torch.randn(6, 10)

    def convolution(x: torch.Tensor, layer: nn.Conv2d) -> torch.Tensor:
        padding = layer.kernel_size[0] // 2
        return nn.functional.conv3d(x, layer.weight[:, :, None], layer.bias, padding=(0, padding, padding))

    def norm(x: torch.Tensor, layer: nn.GroupNorm) -> torch.Tensor:
        framewise = [layer(x[:, :, frame].contiguous()) for frame in range(3)]
        return torch.stack(framewise, 2)

    hidden = convolution(nn.functional.silu(norm(video, block.norm_in)), block.spatial_in)
    hidden = nn.functional.conv3d(
        hidden, block.temporal.convolution.weight[..., None], block.temporal.convolution.bias, padding=(1, 0, 0)
    )
    scale, shift = (embedding @ block.scale_shift.weight.T + block.scale_shift.bias).chunk(2, 1)
    per_frame = (2, 3, 6)
    scale, shift = (part.view(per_frame).permute(0, 2, 1)[..., None, None] for part in (scale, shift))
    hidden = nn.functional.silu(norm(hidden, block.norm_out) * (1 + scale) + shift)
    expected = convolution(video, block.shortcut) + convolution(hidden, block.spatial_out)
    actual = unfold_frames(block(fold_frames(video), 3, embedding), 3)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_new_residual_block_is_the_identity() -> None:
    x = torch.randn(4, 8, 4, 4)
    assert torch.equal(ResidualBlock(8, 8, 16, 4)(x, 2, torch.randn(4, 16)), x)


def test_sampling_layers_halve_and_double() -> None:
    x = torch.randn(2, 8, 6, 6).contiguous(memory_format=torch.channels_last)
    assert Downsample(8, 12)(x).shape == (2, 12, 3, 3)
    up = Upsample(8, 4)(x)
    assert up.shape == (2, 4, 12, 12)
    assert up.is_contiguous(memory_format=torch.channels_last)


def test_pictures_go_on_beyond_their_edges_as_at_the_edge_and_so_do_their_gradients() -> None:
    x_NHWC = torch.arange(12.0).view(1, 2, 3, 2)
    rows = [[0, 0, 1, 2, 2], [0, 0, 1, 2, 2], [3, 3, 4, 5, 5], [3, 3, 4, 5, 5]]
    places = torch.tensor(rows)
    assert torch.equal(EdgePadding.apply(x_NHWC), torch.stack((2 * places, 2 * places + 1), dim=2)[None].float())
    narrow = torch.randn(2, 1, 3, 2, dtype=torch.float64, requires_grad=True)  # its only row is both edges
    assert torch.autograd.gradcheck(EdgePadding.apply, (narrow,))


def test_a_neighbourhood_has_the_pixels_around_row_by_row() -> None:
    frames = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    found = neighbourhoods(frames)
    assert found.shape == (2, 3, 9, 4, 5)
    assert torch.equal(found[1, 2, :, 2, 3], frames[1, 2, 1:4, 2:5].flatten())
    assert found[0, 0, :, 0, 0].tolist() == [0, 0, 1, 0, 0, 1, 5, 5, 6]


def test_groups_must_divide_channels() -> None:
    with pytest.raises(ValueError, match=r"channels \(10\) must be a multiple of GROUP_NORM_GROUPS \(4\)"):
        ResidualBlock(10, 8, 16, 4)
