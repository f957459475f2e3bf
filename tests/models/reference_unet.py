"""The network written a second time, as plainly as possible and without a thought for speed.

Clips stay [B, C, T, H, W] and contiguous, convolutions are three-dimensional, attention is one softmax a head written
out with einsum, and normalisation goes frame by frame. It reads the weights of the real modules, so that both can be
compared for the same weights.
"""

import math

import torch
from torch import Tensor, nn

from models.attention import MultiHeadAttention, SpatialAttention, TemporalAttention, TextAttention
from models.layers import (
    DRAFT_RATE,
    Downsample,
    PixelConvolution,
    PixelLevel,
    ResidualBlock,
    TemporalConvolution,
    Upsample,
)
from models.text_encoder import TextFeatures
from models.unet3d import UNet3D


def plain_unet(unet: UNet3D, video: Tensor, timestep: Tensor, text: TextFeatures) -> Tensor:
    """Predict [B, 3, T, H, W]."""
    timestep_BD = unet.timestep(timestep)
    embedding_BTD = timestep_BD[:, None] + unet.text(text.frames_BTC)
    embedding_BTD = embedding_BTD * embedding_BTD.sigmoid()
    draft = _draft(unet, text.frames_BTC)
    seen = torch.cat((video, draft), dim=1)
    x = _convolve(_unshuffle(seen, unet.spec.patch_size), unet.stem)
    skips = []
    for layer in unet.down:
        if isinstance(layer, Downsample):
            x = _convolve(x, layer.convolution)
        else:
            x = _stage(layer, x, embedding_BTD, text)
            skips.append(x)
    x = _stage(unet.middle, x, embedding_BTD, text)
    for layer in unet.up:
        if isinstance(layer, Upsample):
            x = _shuffle(_convolve(x, layer.projection), 2)
        else:
            x = _stage(layer, torch.cat((x, skips.pop()), dim=1), embedding_BTD, text)
    x = _norm(x, unet.norm)
    painted, shown = _pixels(unet.pixels, x * x.sigmoid(), seen, embedding_BTD)
    gain_BG = (timestep_BD * timestep_BD.sigmoid()) @ unet.gains.weight.T + unet.gains.bias
    added = [gain_BG[b, 0] * shown[b] + gain_BG[b, 1] * draft[b] for b in range(video.shape[0])]
    return painted + torch.stack(added)


def _pixels(level: PixelLevel, x: Tensor, seen: Tensor, embedding_BTD: Tensor) -> tuple[Tensor, Tensor]:
    features = _shuffle(_convolve_edged(x, level.enlarged), level.patch_size) + _convolve_edged(seen, level.seen)
    scale_shift = embedding_BTD @ level.scale_shift.weight.T + level.scale_shift.bias
    scale, shift = scale_shift.transpose(1, 2)[..., None, None].chunk(2, dim=1)
    features = features * (1 + scale) + shift
    features = _over_time(features * features.sigmoid(), level.temporal)
    features = _convolve_edged(features, level.spatial)
    output = _convolve_edged(features * features.sigmoid(), level.output)
    share = output[:, 4:].exp() / output[:, 4:].exp().sum(dim=1, keepdim=True)
    noisy = _edged(seen[:, :3], 1)
    height, width = seen.shape[3:]
    around = [noisy[..., y : y + height, x : x + width] for y in (0, 1, 2) for x in (0, 1, 2)]
    mean = sum(share[:, place, None] * pixel for place, pixel in enumerate(around))
    return output[:, :3], 2 * output[:, 3:4].sigmoid() * mean


def _draft(unet: UNet3D, frames_BTC: Tensor) -> Tensor:
    mean, variance = frames_BTC.mean(dim=2, keepdim=True), frames_BTC.var(dim=2, keepdim=True, correction=0)
    normed = (frames_BTC - mean) / (variance + 1e-5).sqrt() * unet.draft.norm.weight + unet.draft.norm.bias
    hidden = normed @ unet.draft.hidden.weight.T + unet.draft.hidden.bias
    features = DRAFT_RATE * hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    picture = (features @ unet.draft.draw.weight.T + unet.draft.draw.bias).unflatten(2, (3, *unet.draft.size))
    down, across = map(_enlargement, unet.draft.size, unet.spec.image_size)
    return torch.einsum("yh,btchw,xw->bctyx", down, picture, across)


def _enlargement(small: int, large: int) -> Tensor:
    """Return the matrix [large, small] of linear interpolation between the centres of pixels."""
    matrix = torch.zeros(large, small)
    for index in range(large):
        place = min(max((index + 0.5) * small / large - 0.5, 0.0), small - 1.0)
        below = min(int(place), small - 1)
        above = min(below + 1, small - 1)
        matrix[index, below] += 1 - (place - below)
        matrix[index, above] += place - below
    return matrix


def _stage(stage: nn.Module, x: Tensor, embedding_BTD: Tensor, text: TextFeatures) -> Tensor:
    x = _residual(stage.block, x, embedding_BTD)
    if stage.spatial is not None:
        x = _spatial(stage.spatial, x)
        x = _text(stage.text, x, text)
    return _temporal(stage.temporal, x)


def _residual(block: ResidualBlock, x: Tensor, embedding_BTD: Tensor) -> Tensor:
    hidden = _norm(x, block.norm_in)
    hidden = _convolve(hidden * hidden.sigmoid(), block.spatial_in)
    hidden = _over_time(hidden, block.temporal)
    scale_shift = embedding_BTD @ block.scale_shift.weight.T + block.scale_shift.bias
    scale, shift = scale_shift.transpose(1, 2)[..., None, None].chunk(2, dim=1)
    hidden = _norm(hidden, block.norm_out) * (1 + scale) + shift
    hidden = _convolve(hidden * hidden.sigmoid(), block.spatial_out)
    return hidden + (x if isinstance(block.shortcut, nn.Identity) else _convolve(x, block.shortcut))


def _spatial(module: SpatialAttention, x: Tensor) -> Tensor:
    height, width = x.shape[3:]
    rows, columns = _fourier(height), _fourier(width)
    grid = torch.stack([torch.cat((rows[i], columns[j])) for i in range(height) for j in range(width)])
    normed = _norm(x, module.norm).flatten(3) + (grid @ module.position.weight.T).T[None, :, None]
    frames = [
        _attention(module.attention, normed[:, :, t].transpose(1, 2), normed[:, :, t].transpose(1, 2), None)
        for t in range(x.shape[2])
    ]
    return x + torch.stack(frames, dim=1).permute(0, 3, 1, 2).unflatten(3, (height, width))


def _temporal(module: TemporalAttention, x: Tensor) -> Tensor:
    normed = _norm(x, module.norm).flatten(3)
    positions = [
        _attention(module.attention, normed[..., s].transpose(1, 2), normed[..., s].transpose(1, 2), None)
        for s in range(normed.shape[3])
    ]
    return x + torch.stack(positions, dim=-1).permute(0, 2, 1, 3).unflatten(3, x.shape[3:])


def _text(module: TextAttention, x: Tensor, text: TextFeatures) -> Tensor:
    batch, _, frames, height, width = x.shape
    queries = _norm(x, module.norm).permute(0, 2, 3, 4, 1).flatten(1, 3)
    heads, characters = module.attention.heads, text.mask_BL.shape[1]
    bias = torch.full((batch, heads, frames, characters), -math.inf)
    slopes = module.alignment.log_slope.exp()
    for b in range(batch):
        for t in range(frames):
            for character in range(int(text.mask_BL[b].sum())):
                bias[b, :, t, character] = -slopes * text.distance_BTL[b, t, character]
    bias = torch.stack([bias[:, :, t] for t in range(frames) for _ in range(height * width)], dim=2)
    attended = _attention(module.attention, queries, text.tokens_BLC, bias)
    return x + attended.reshape(batch, frames, height, width, -1).permute(0, 4, 1, 2, 3)


def _attention(module: MultiHeadAttention, query: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
    heads = []
    for head in range(module.heads):
        part = slice(head * module.head_channels, (head + 1) * module.head_channels)
        q = _layer_norm(query @ module.query.weight[part].T, module.query_norm)
        k = _layer_norm(context @ module.key.weight[part].T, module.key_norm)
        v = context @ module.value.weight[part].T
        logits = torch.einsum("nqd,nkd->nqk", q, k) / math.sqrt(module.head_channels)
        logits = logits if bias is None else logits + bias[:, head]
        weights = (logits - logits.amax(dim=2, keepdim=True)).exp()
        heads.append(torch.einsum("nqk,nkd->nqd", weights / weights.sum(dim=2, keepdim=True), v))
    return torch.cat(heads, dim=2) @ module.output.weight.T + module.output.bias


def _layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight


def _norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    batch, channels, frames, height, width = x.shape
    grouped = x.reshape(batch, norm.num_groups, channels // norm.num_groups, frames, height, width)
    centred = grouped - grouped.mean(dim=(2, 4, 5), keepdim=True)
    normed = centred / (centred.square().mean(dim=(2, 4, 5), keepdim=True) + norm.eps).sqrt()
    return normed.reshape(x.shape) * norm.weight[:, None, None, None] + norm.bias[:, None, None, None]


def _convolve(x: Tensor, layer: nn.Conv2d) -> Tensor:
    weight = layer.weight[:, :, None].contiguous()
    return nn.functional.conv3d(x.contiguous(), weight, layer.bias, (1, *layer.stride), (0, *layer.padding))


def _convolve_edged(x: Tensor, layer: PixelConvolution) -> Tensor:
    edged = _edged(x, layer.kernel_size[0] // 2).contiguous()
    return nn.functional.conv3d(edged, 4 * layer.weight[:, :, None].contiguous(), layer.bias)


def _edged(x: Tensor, reach: int) -> Tensor:
    """Return frames that have their outermost pixels once more, so many times."""
    rows, columns = ([0] * reach + list(range(size)) + [size - 1] * reach for size in x.shape[3:])
    return x[:, :, :, rows][..., columns]


def _over_time(x: Tensor, layer: TemporalConvolution) -> Tensor:
    weight = layer.convolution.weight[..., None].contiguous()
    return nn.functional.conv3d(x.contiguous(), weight, layer.convolution.bias, padding=(1, 0, 0))


def _fourier(count: int) -> Tensor:
    return torch.tensor(
        [
            [wave(math.pi * 2**octave * (index + 0.5) / count) for wave in (math.sin, math.cos) for octave in range(8)]
            for index in range(count)
        ]
    )


def _unshuffle(video: Tensor, patch: int) -> Tensor:
    batch, channels, frames, height, width = video.shape
    split = video.reshape(batch, channels, frames, height // patch, patch, width // patch, patch)
    return split.permute(0, 1, 4, 6, 2, 3, 5).reshape(
        batch, channels * patch * patch, frames, height // patch, width // patch
    )


def _shuffle(x: Tensor, patch: int) -> Tensor:
    batch, channels, frames, height, width = x.shape
    split = x.reshape(batch, patch, patch, channels // patch**2, frames, height, width)  # by row, column and channel
    return split.permute(0, 3, 4, 5, 1, 6, 2).reshape(batch, -1, frames, height * patch, width * patch)
