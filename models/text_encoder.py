"""Tokens to features, features to one vector a frame."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.field_types import language_mark
from models.attention import AlignmentBias, MultiHeadAttention
from models.layers import centred_positions, position_features
from models.tokens import FIRST_TOKEN, PADDING

PHASE_MOMENTS = 16
REPEATS = 2  # a character comes again at once, or came right before
PLACE_FEATURES = 6
"""Of a place in a caption or a clip: from half a period to 2 periods. Finer ones would be new in longer captions."""
START_SECONDS = 1 / 3
"""What a character takes before anything is learned."""


@dataclass(frozen=True)
class TextFeatures:
    """What the UNet hears of a caption."""

    tokens_BLC: Tensor  # one vector a character
    log_seconds_B: Tensor  # float32, logarithm of how long clips of the captions are expected to last
    distance_BTL: Tensor  # float32, characters between what a frame shows and each character
    mask_BL: Tensor  # bool, False for padding
    padding_B11L: Tensor  # float32, -inf for padding, else 0
    frames_BTC: Tensor  # one vector a frame: the caption as read from that frame's place in the clip

    @property
    def frames(self) -> int:
        """T."""
        return self.frames_BTC.shape[1]


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
    Two more maps are for characters that are doubled: the hand slides from the one to the other, whatever it shows.

    The maps start at random, so that a character's moments can be told apart from the first step on: with maps that
    start at zero, moving letters were not learned any sooner (docs/decisions.md).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.maps = nn.Linear(channels, (PHASE_MOMENTS + REPEATS) * channels, bias=False)
        nn.init.normal_(self.maps.weight, std=channels**-0.5)

    def forward(self, frames_BTC: Tensor, place_BT: Tensor, repeats_BLR: Tensor) -> Tensor:
        """Map what each frame reads, [B, T, C], to the same shape.

        Args:
            frames_BTC: what they read.
            place_BT: how many characters are over.
            repeats_BLR: of `repeats`.
        """
        moment_BT = place_BT.frac() * (PHASE_MOMENTS - 1)
        moments_K = torch.arange(PHASE_MOMENTS, device=frames_BTC.device, dtype=torch.float32)
        share_BTK = (1 - (moment_BT[..., None] - moments_K).abs()).clamp(min=0)
        shown_BT = place_BT.long().clamp(0, repeats_BLR.shape[1] - 1)  # also of a place that is no number
        share_BTK = torch.cat((share_BTK, repeats_BLR.gather(1, shown_BT[..., None].expand(-1, -1, REPEATS))), dim=-1)
        maps_BTKC = self.maps(frames_BTC).unflatten(-1, (PHASE_MOMENTS + REPEATS, -1))
        return frames_BTC + (share_BTK.to(frames_BTC.dtype)[..., None] * maps_BTKC).sum(dim=2)


class DurationHead(nn.Module):
    """Says how long each character of a caption takes.

    The duration of a clip is the sum over its characters, so it needs no captions of a length to know how long they
    take. From it, the frames of a clip learn which character they show, without the assumption that all take as long.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.line = nn.Linear(channels, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.constant_(self.line.bias, math.log(START_SECONDS))

    def forward(self, x_BLC: Tensor, mask_BL: Tensor) -> Tensor:
        """Map vectors of characters to the seconds of each: [B, L] float32, 0 for padding."""
        seconds_BL: Tensor = self.line(x_BLC).float().squeeze(-1).exp() * mask_BL
        return seconds_BL


def repeats(tokens_BL: Tensor) -> Tensor:
    """Return whether each token comes again right after itself, and whether it came right before: [B, L, 2] of 0 or 1.

    The hand moves between the two letters of LL, and only there does a letter depend on its neighbours. That two tokens
    are equal is hard to learn, each pair for itself.
    """
    again_BL = nn.functional.pad(tokens_BL[:, 1:] == tokens_BL[:, :-1], (0, 1)) & (tokens_BL != PADDING)
    return torch.stack((again_BL, again_BL.roll(1, dims=1)), dim=-1).float()


def characters_over(seconds_BL: Tensor, frames: int) -> Tensor:
    """Return how many characters are over in the middle of each frame, [B, frames] float32, from what each takes."""
    share_BL = seconds_BL / seconds_BL.sum(dim=1, keepdim=True)
    begins_BL = share_BL.cumsum(dim=1) - share_BL
    time_T = centred_positions(frames, seconds_BL.device)
    over_BTL = (time_T[None, :, None] - begins_BL[:, None]) / share_BL[:, None].clamp(min=1e-6)
    return (over_BTL.clamp(0, 1) * (share_BL > 0)[:, None]).sum(dim=-1)


@dataclass(frozen=True)
class _Characters:
    vectors_BLC: Tensor
    index_L: Tensor
    mask_BL: Tensor
    padding_B11L: Tensor
    seconds_BL: Tensor

    @property
    def log_seconds_B(self) -> Tensor:
        return self.seconds_BL.sum(dim=1).log()


class TextEncoder(nn.Module):
    """A small transformer over the characters of a caption, and a reader that asks it once for every frame.

    The reader gives each frame a vector of its own, not one pooled vector for the clip: each frame asks from the place
    in the caption that it shows, by what `DurationHead` says of the characters, and `AlignmentBias` makes near ones
    speak first. That is what lets a model spell a word it has never seen, also a longer one than any in training.
    """

    def __init__(self, embedding: nn.Module, channels: int, layers: int, heads: int) -> None:
        """`embedding` maps tokens [B, L] to vectors [B, L, channels]; "characters" below are what tokens mean."""
        super().__init__()
        if channels % heads != 0:
            raise ValueError(f"TEXT_CHANNELS ({channels}) must be a multiple of TEXT_HEADS ({heads})")
        self.embedding = embedding
        self.position = nn.Linear(PLACE_FEATURES, channels)
        self.neighbours = AlignmentBias(heads)
        self.layers = nn.ModuleList(_EncoderLayer(channels, heads) for _ in range(layers))
        self.duration = DurationHead(channels)
        self.frame_query = nn.Linear(PLACE_FEATURES, channels)
        self.alignment = AlignmentBias(heads)
        self.reader = _EncoderLayer(channels, heads)
        nn.init.eye_(self.reader.attention.output.weight)  # read from the first step on; the layers above start closed
        self.phase = CharacterPhase(channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, tokens_BL: Tensor, frames: int) -> TextFeatures:
        """Encode tokens [B, L] int64 for a clip of `frames` frames."""
        text = self._characters(tokens_BL)
        # What a frame shows follows from durations; the picture's error is no reason to expect others.
        place_BT = characters_over(text.seconds_BL.detach(), frames)
        distance_BTL = (place_BT[..., None] - text.index_L - 0.5).abs()
        bias = self.alignment(distance_BTL, text.padding_B11L).to(text.vectors_BLC.dtype)
        time_TC = self.frame_query(position_features(centred_positions(frames, tokens_BL.device), PLACE_FEATURES))
        query_BTC = time_TC[None].expand(tokens_BL.shape[0], -1, -1)
        frames_BTC = self.phase(self.reader(query_BTC, text.vectors_BLC, bias), place_BT, repeats(tokens_BL))
        return TextFeatures(
            text.vectors_BLC, text.log_seconds_B, distance_BTL, text.mask_BL, text.padding_B11L, frames_BTC
        )

    def log_seconds(self, tokens_BL: Tensor) -> Tensor:
        """Return how long clips of captions, tokens [B, L] int64, are expected to last: logarithms [B] float32."""
        return self._characters(tokens_BL).log_seconds_B

    def _characters(self, tokens_BL: Tensor) -> _Characters:
        mask_BL = tokens_BL != PADDING
        length_B = mask_BL.sum(dim=1).float()
        index_L = torch.arange(tokens_BL.shape[1], device=tokens_BL.device, dtype=torch.float32)
        position_BL = ((index_L[None] + 0.5) / length_B[:, None]).clamp(max=1.0)
        x_BLC = self.embedding(tokens_BL) + self.position(position_features(position_BL, PLACE_FEATURES))
        padding_B11L = torch.zeros_like(position_BL).masked_fill(~mask_BL, float("-inf"))[:, None, None, :]
        distance_1LL = (index_L[:, None] - index_L).abs()[None]
        bias = self.neighbours(distance_1LL, padding_B11L).to(x_BLC.dtype)
        for layer in self.layers:
            x_BLC = layer(x_BLC, None, bias)
        x_BLC = self.norm(x_BLC)
        return _Characters(x_BLC, index_L, mask_BL, padding_B11L, self.duration(x_BLC, mask_BL))


class LanguageEmbedding(nn.Module):
    """Vectors of the letters of several sign languages: the sum of the letter's, the language's and that of both.

    Many languages share most of their handshapes, so what is learned of a letter helps all of them. The third vector is
    zero at first, and learns where they differ.
    """

    def __init__(self, symbols: Sequence[str], channels: int) -> None:
        """`symbols` have language marks (`models.tokens.language_mark`); the first has the token FIRST_TOKEN."""
        super().__init__()
        marks = [language_mark(symbol) for symbol in symbols]
        letters = [symbol.removeprefix(mark) for symbol, mark in zip(symbols, marks, strict=True)]
        known_letters, known_marks = list(dict.fromkeys(letters)), list(dict.fromkeys(marks))
        first = list(range(FIRST_TOKEN))  # padding and the null caption belong to no language
        letter_of = first + [FIRST_TOKEN + known_letters.index(letter) for letter in letters]
        language_of = [0] * FIRST_TOKEN + [1 + known_marks.index(mark) for mark in marks]
        self.letter_of: Tensor
        self.language_of: Tensor
        self.register_buffer("letter_of", torch.tensor(letter_of), persistent=False)
        self.register_buffer("language_of", torch.tensor(language_of), persistent=False)
        self.letter = nn.Embedding(FIRST_TOKEN + len(known_letters), channels)
        self.language = nn.Embedding(1 + len(known_marks), channels)
        self.both = nn.Embedding(FIRST_TOKEN + len(symbols), channels)
        nn.init.zeros_(self.both.weight)

    def forward(self, tokens_BL: Tensor) -> Tensor:
        """Map tokens [B, L] int64 to vectors [B, L, channels]."""
        shared: Tensor = self.letter(self.letter_of[tokens_BL]) + self.language(self.language_of[tokens_BL])
        return shared + self.both(tokens_BL)


class CharacterEncoder(TextEncoder):
    """A text encoder whose characters have vectors of their own, trained from scratch."""

    def __init__(self, vocabulary_size: int, channels: int, layers: int, heads: int) -> None:
        super().__init__(nn.Embedding(vocabulary_size, channels), channels, layers, heads)
