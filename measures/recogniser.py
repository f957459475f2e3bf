"""Reads finger-spelled words, or signs, from clips: a small network for frames, a smaller one for time, and CTC."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.field_types import language_mark
from data.lengths import equal_lengths

BLANK = 0  # the CTC class of "nothing new"; symbol i of the alphabet has class i + 1
FRAME_CHANNELS = (24, 48, 96)
TIME_CHANNELS = 128
FRAME_FEATURES = 16 * FRAME_CHANNELS[-1]  # 4 x 4 places
GROUPS = 8
MOST_FRAMES = 1024  # that are read at once
IMPOSSIBLE = -1e4  # a score; minus infinity would make gradients that are no numbers
LARGEST_SIDE = 64
"""Pixels a side that frames are averaged down to first: letters can be told apart there, and the cost stays bounded."""
WHOLE_SIDE = 32
"""The same where whole pictures are looked at, of clips that may be long."""


@dataclass(frozen=True)
class Reading:
    """What the network says of clips, as unnormalised log-probabilities."""

    ctc_BTK: Tensor  # [B, T, 1 + symbols], class 0 is CTC's blank
    frames_BTS: Tensor  # [B, T, symbols], which symbol each frame shows; only training uses it


def frame_network(channels: int = 3) -> nn.Sequential:
    """Return the convolutions that every frame passes through: [N, channels, H, W] to [N, FRAME_FEATURES]."""
    layers: list[nn.Module] = []
    for width in FRAME_CHANNELS:
        layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, width), nn.SiLU()]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())


def whole_frames(clip_CTHW: Tensor) -> Tensor:
    """Return a clip's whole frames, clipped to [-1, 1] and averaged down to at most WHOLE_SIDE a side: [T, 3, h, w]."""
    height, width = clip_CTHW.shape[2:]
    size = (min(height, WHOLE_SIDE), min(width, WHOLE_SIDE))
    return nn.functional.adaptive_avg_pool2d(clip_CTHW.float().clamp(-1, 1).transpose(0, 1), size)


class LetterRecogniser(nn.Module):
    """From clips to symbols.

    Every frame passes through the same convolutions; two convolutions over time look at its neighbours; a linear layer
    gives the classes of connectionist temporal classification (CTC, Graves et al. 2006, ICML). A second linear layer
    says which letter each frame shows. Without it, CTC may stay for thousands of steps where it begins, at "blank" for
    every frame, because one letter in a dozen frames hardly tells the convolutions what to look for.
    """

    def __init__(self, symbols: Sequence[str], *, of_signs: bool = False) -> None:
        """Make one without training.

        Args:
            symbols: that it tells apart.
            of_signs: whether they are signs, which people make all over the picture. Else they are letters, each with
                the `language_mark` of its alphabet, and drawn in the middle of the picture.
        """
        super().__init__()
        self.symbols = tuple(symbols)
        self.of_signs = of_signs
        self.frame = frame_network()
        self.embed = nn.Linear(FRAME_FEATURES, TIME_CHANNELS)
        self.time = nn.ModuleList(nn.Conv1d(TIME_CHANNELS, TIME_CHANNELS, 3, padding=1) for _ in range(2))
        self.ctc = nn.Linear(TIME_CHANNELS, 1 + len(self.symbols))
        self.letters = nn.Linear(TIME_CHANNELS, len(self.symbols))
        marks = list(map(self.mark_of, self.symbols))
        self._letters_of = {mark: [each == mark for each in marks] for mark in marks}

    def mark_of(self, symbol: str) -> str:
        """Return which language's a symbol is; "" where there is one."""
        return "" if self.of_signs else language_mark(symbol)

    def forward(self, video_BCTHW: Tensor) -> Reading:
        """Read clips, [B, 3, T, H, W] in [-1, 1]; values outside are clipped, as they are when a video is written.

        Of pictures that are not square, letters are read in the square in the middle, in which hands are drawn.
        """
        frames, height, width = video_BCTHW.shape[2:]
        if self.of_signs:
            images = torch.cat(list(map(whole_frames, video_BCTHW)))
        else:
            side = min(height, width)
            square = video_BCTHW[..., (height - side) // 2 :, (width - side) // 2 :][..., :side, :side]
            images = square.clamp(-1, 1).transpose(1, 2).flatten(0, 1)
            if side > LARGEST_SIDE:
                images = nn.functional.adaptive_avg_pool2d(images, LARGEST_SIDE)
        hidden_BTD = nn.functional.silu(self.embed(self.frame(images))).unflatten(0, (-1, frames))
        seen_BTS = self.letters(hidden_BTD)
        hidden_BDT = hidden_BTD.transpose(1, 2)
        for layer in self.time:
            hidden_BDT = hidden_BDT + nn.functional.silu(layer(hidden_BDT))
        return Reading(self.ctc(hidden_BDT.transpose(1, 2)), seen_BTS)

    def within_languages(self, reading: Reading, marks: Sequence[str]) -> Reading:
        """Rule out, for each clip, the letters of other sign languages than its own.

        Many handshapes stand for different letters in different languages, so that nobody could read them otherwise.

        `marks`: the `language_mark` of each clip's letters.
        """
        own_BS = torch.tensor([self._letters_of[mark] for mark in marks]).to(reading.frames_BTS.device)
        own_BK = nn.functional.pad(own_BS, (1, 0), value=True)
        return Reading(
            reading.ctc_BTK.masked_fill(~own_BK[:, None], IMPOSSIBLE),
            reading.frames_BTS.masked_fill(~own_BS[:, None], IMPOSSIBLE),
        )

    @torch.no_grad()
    def read(self, clips: Sequence[Tensor], marks: Sequence[str] | None = None) -> list[tuple[str, ...]]:
        """Return the symbols of each clip by best path decoding: the likeliest class a frame, repeats merged.

        Args:
            clips: [3, T, H, W] float in [-1, 1] each, on any device.
            marks: see `within_languages`; None where there is one language.
        """
        marks = marks or [""] * len(clips)
        device = self.ctc.weight.device
        readings: dict[int, tuple[str, ...]] = {}
        for group in equal_lengths([clip.shape[1] for clip in clips], MOST_FRAMES):
            video = torch.stack([clips[place] for place in group]).to(device).float()
            reading = self.within_languages(self(video), [marks[place] for place in group])
            for place, path in zip(group, reading.ctc_BTK.argmax(dim=2).tolist(), strict=True):
                readings[place] = tuple(self.symbols[kind - 1] for kind, _ in itertools.groupby(path) if kind != BLANK)
        return [readings[place] for place in range(len(clips))]
