"""Tokens to features, features to one vector a frame."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.attention import AlignmentBias, MultiHeadAttention, alignment_distance
from models.layers import POSITION_FEATURES, centred_positions, position_features
from models.tokens import PADDING

PHASE_MOMENTS = 16


@dataclass(frozen=True)
class TextFeatures:
    """What the UNet hears of a caption."""

    tokens_BLC: Tensor  # one vector a character
    distance_BTL: Tensor  # float32, characters between a frame's place in the clip and the character's in the caption
    mask_BL: Tensor  # bool, False for padding
    padding_B11L: Tensor  # float32, -inf for padding, else 0
    frames_BTC: Tensor  # one vector a frame: the caption as read from that frame's place in the clip


class _EncoderLayer(nn.Module):
    """A pre-norm transformer layer whose attention may look at another sequence."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(channels)
        self.attention = MultiHeadAttention(channels, channels, channels // heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor, context: Tensor | None, bias: Tensor | None) -> Tensor:
        query = self.attention_norm(x)
        x = x + self.attention(query, query if context is None else context, bias)
        return x + self.feed_forward(x)


class CharacterPhase(nn.Module):
    """Lets what a frame reads depend on how much of its character is over.

    A letter with a motion looks different at its start and at its end (J and Z in American finger-spelling). The vector
    that a frame has read names the character; to it is added what one of several linear maps makes of it, one for
    each of PHASE_MOMENTS moments of the character, with straight lines in between. A network that is only told
    the frame's place has to multiply place, number of characters and character by itself, and draws a blur.

    The maps start at random, so that a character's moments can be told apart from the first step on: with maps that
    start at zero, moving letters were not learned any sooner (docs/decisions.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.maps = nn.Linear(channels, PHASE_MOMENTS * channels, bias=False)
        nn.init.normal_(self.maps.weight, std=channels**-0.5)

    def forward(self, frames_BTC: Tensor, length_B: Tensor) -> Tensor:
        """Map what each frame reads, [B, T, C], to the same shape, for captions of [B] characters."""
        place_BT = centred_positions(frames_BTC.shape[1], frames_BTC.device)[None] * length_B[:, None]
        moment_BT = place_BT.frac() * (PHASE_MOMENTS - 1)
        moments_K = torch.arange(PHASE_MOMENTS, device=frames_BTC.device, dtype=torch.float32)
        share_BTK = (1 - (moment_BT[..., None] - moments_K).abs()).clamp(min=0).to(frames_BTC.dtype)
        maps_BTKC = self.maps(frames_BTC).unflatten(-1, (PHASE_MOMENTS, -1))
        return frames_BTC + (share_BTK[..., None] * maps_BTKC).sum(dim=2)


class TextEncoder(nn.Module):
    """A small transformer over the characters of a caption, and a reader that asks it once for every frame.

    The reader gives each frame a vector of its own, not one pooled vector for the clip: frame t of T asks the
    caption from position (t + 0.5) / T, characters answer from (i + 0.5) / L, and `AlignmentBias` makes near ones
    speak first. That is what lets a model spell a word it has never seen.
    """

    def __init__(self, embedding: nn.Module, channels: int, layers: int, heads: int) -> None:
        """`embedding` maps tokens [B, L] to vectors [B, L, channels]; "characters" below are what tokens mean."""
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"TEXT_CHANNELS ({channels}) must be a multiple of TEXT_HEADS ({heads})")
        self.embedding = embedding
        self.position = nn.Linear(POSITION_FEATURES, channels)
        self.layers = nn.ModuleList(_EncoderLayer(channels, heads) for _ in range(layers))
        self.frame_query = nn.Linear(POSITION_FEATURES, channels)
        self.alignment = AlignmentBias(heads)
        self.reader = _EncoderLayer(channels, heads)
        nn.init.eye_(self.reader.attention.output.weight)  # read from the first step on; the layers above start closed
        self.phase = CharacterPhase(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens_BL: Tensor, frames: int) -> TextFeatures:
        """Encode tokens [B, L] int64 for a clip of `frames` frames."""
        mask_BL = tokens_BL != PADDING
        length_B = mask_BL.sum(dim=1).float()
        index_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device, dtype=torch.float32)
        position_BL = ((index_L[None] + 0.5) / length_B[:, None]).clamp(max=1.0)
        x_BLC = self.embedding(tokens_BL) + self.position(position_features(position_BL))
        padding_B11L = torch.zeros_like(position_BL).masked_fill(~mask_BL, float("-inf"))[:, None, None, :]
        for layer in self.layers:
            x_BLC = layer(x_BLC, None, padding_B11L.to(x_BLC.dtype))
        x_BLC = self.norm(x_BLC)
        query_TC = self.frame_query(position_features(centred_positions(frames, tokens_BL.device)))
        query_BTC = query_TC[None].expand(tokens_BL.shape[0], -1, -1)
        distance_BTL = alignment_distance(frames, position_BL, mask_BL)
        bias = self.alignment(distance_BTL, padding_B11L).to(x_BLC.dtype)
        frames_BTC = self.phase(self.reader(query_BTC, x_BLC, bias), length_B)
        return TextFeatures(x_BLC, distance_BTL, mask_BL, padding_B11L, frames_BTC)


class CharacterEncoder(TextEncoder):
    """A text encoder whose characters have vectors of their own, trained from scratch."""

    def __init__(self, vocabulary_size: int, channels: int, layers: int, heads: int) -> None:
        super().__init__(nn.Embedding(vocabulary_size, channels), channels, layers, heads)
