"""Judges clips by their captions: encoders of videos and of texts, whose embeddings agree where both say the same.

They are trained on real clips alone (`measures.text_video_training`). A caption is NFC text of any script; capitals
make no difference (`data.clip_splits.caption_key`).
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from torch import Tensor, nn

from data.clip_splits import caption_key
from measures.bootstrap import Interval, bootstrap_pairs, bootstrap_ratio
from measures.recogniser import FRAME_FEATURES, frame_network, whole_frames
from measures.retrieval import rank_captions, shuffled_floor_interval, top_k_interval

CHANNELS = 128
PLACES = 8  # of a clip, and of a caption, that are looked at
PLACE_CHANNELS = 32  # that an embedding has of each of them
MOST_MOMENTS = 32  # of a clip, evenly spread, that are looked at
MOST_FRAMES = 1024  # that are embedded at once
MOST_CAPTIONS = 256  # the same
RANKS = (1, 5, 10)  # of R-precision
POOL = 32  # captions that a clip is compared with, its own among them
UNKNOWN = 0  # the class of characters that no training caption has
CHARACTER_WIDTH = 5  # that a convolution over characters sees
FIRST_SCALE = 1 / 0.07  # of cosines (Radford et al. 2021, section 2.5)
LARGEST_SCALE = 100.0


class Frames(NamedTuple):
    """The frames of several clips."""

    images_FCHW: Tensor  # float32, C = 6: red, green, blue in [-1, 1], and how far each is from its mean over the clip
    lengths: tuple[int, ...]  # of each clip


class Characters(NamedTuple):
    """Several captions, padded to the longest."""

    class_BL: Tensor  # int64; UNKNOWN, or the place in the encoder's characters + 1
    by_character_BL: Tensor  # where each is in its caption, from 0 to 1, if all characters take the same time
    by_word_BL: Tensor  # the same if all words do
    is_one_BL: Tensor  # bool, whether there is a character


class Places(nn.Module):
    """What is where in a sequence of any length: attention of PLACES learned queries, each drawn to a place of its own.

    Attention without places would not tell AB from BA. Every place has the same projection, so that what is learned of
    a letter at the beginning holds at the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.content = nn.Linear(CHANNELS, PLACES)
        self.focus = nn.Parameter(torch.tensor(math.log(PLACES**2 / 2)))  # the standard deviation of a place is its own
        self.project = nn.Linear(CHANNELS, PLACE_CHANNELS)

    def forward(self, hidden_BTD: Tensor, place_BT: Tensor, is_one_BT: Tensor) -> Tensor:
        """Return embeddings of length 1: [B, PLACES * PLACE_CHANNELS]."""
        centre_P = (torch.arange(PLACES, device=place_BT.device) + 0.5) / PLACES
        away_BTP = place_BT[:, :, None] - centre_P
        score_BTP = self.content(hidden_BTD) - self.focus.exp() * away_BTP.square()
        weight_BTP = score_BTP.masked_fill(~is_one_BT[:, :, None], -torch.inf).softmax(dim=1)
        seen_BPD = weight_BTP.transpose(1, 2) @ hidden_BTD
        return nn.functional.normalize(self.project(seen_BPD).flatten(1), dim=1)


class TextVideoJudge(nn.Module):
    """Both encoders.

    The video encoder has the recogniser's convolutions for frames, and two over time. The text encoder has an embedding
    for each character and convolutions over their neighbours: what is learned of a letter or a word holds in captions
    that were never seen.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        super().__init__()
        self.characters = tuple(characters)
        self._class_of = {character: index + 1 for index, character in enumerate(self.characters)}
        self.frame = frame_network(6)
        self.embed = nn.Linear(FRAME_FEATURES, CHANNELS)
        self.time = nn.ModuleList(nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.video_places = Places()
        self.character = nn.Embedding(1 + len(self.characters), CHANNELS)
        self.context = nn.ModuleList(
            nn.Conv1d(CHANNELS, CHANNELS, CHARACTER_WIDTH, padding=CHARACTER_WIDTH // 2) for _ in range(2)
        )
        self.by_word = nn.Parameter(torch.tensor(0.0))
        self.text_places = Places()
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by in the loss, a scalar."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def video(self, frames: Frames) -> Tensor:
        """Embed clips: [B, E], of length 1."""
        hidden_FD = nn.functional.silu(self.embed(self.frame(frames.images_FCHW)))
        hidden_BTD = nn.utils.rnn.pad_sequence(list(hidden_FD.split(frames.lengths)), batch_first=True)
        count_B1 = torch.tensor(frames.lengths, device=hidden_FD.device)[:, None]
        time_T = torch.arange(hidden_BTD.shape[1], device=hidden_FD.device)
        is_one_BT = time_T < count_B1
        hidden_BTD = _with_neighbours(self.time, hidden_BTD, is_one_BT)
        return self.video_places(hidden_BTD, (time_T + 0.5) / count_B1, is_one_BT)

    def text(self, captions: Characters) -> Tensor:
        """Embed captions: [B, E], of length 1."""
        is_one_BL = captions.is_one_BL
        hidden_BLD = _with_neighbours(
            self.context, self.character(captions.class_BL) * is_one_BL[:, :, None], is_one_BL
        )
        place_BL = torch.lerp(captions.by_character_BL, captions.by_word_BL, self.by_word.sigmoid())
        return self.text_places(hidden_BLD, place_BL, is_one_BL)

    def read(self, captions: Sequence[str]) -> Characters:
        """Return captions as the text encoder takes them, on the CPU; each has a character at least."""
        keys = list(map(text_key, captions))
        longest = max(map(len, keys))
        class_BL = torch.zeros(len(keys), longest, dtype=torch.int64)
        by_character_BL, by_word_BL = torch.zeros(2, len(keys), longest)
        for index, key in enumerate(keys):
            words = key.split(" ")
            for word, text in enumerate(words):
                begin = sum(len(each) + 1 for each in words[:word])
                within = torch.arange(0.5, len(text)) / max(1, len(text))
                by_word_BL[index, begin : begin + len(text)] = (word + within) / len(words)
                by_word_BL[index, begin + len(text) : begin + len(text) + 1] = (word + 1) / len(words)  # the space
            by_character_BL[index, : len(key)] = torch.arange(0.5, len(key)) / len(key)
            class_BL[index, : len(key)] = torch.tensor([self._class_of.get(each, UNKNOWN) for each in key])
        lengths_B1 = torch.tensor(list(map(len, keys)))[:, None]
        return Characters(class_BL, by_character_BL, by_word_BL, torch.arange(longest) < lengths_B1)


def _with_neighbours(layers: nn.ModuleList, hidden_BTD: Tensor, is_one_BT: Tensor) -> Tensor:
    """Add what convolutions see; behind a sequence is nothing, however much longer others of the batch are."""
    hidden_BDT, is_one_B1T = hidden_BTD.transpose(1, 2), is_one_BT[:, None]
    for layer in layers:
        hidden_BDT = hidden_BDT + nn.functional.silu(layer(hidden_BDT)) * is_one_B1T
    return hidden_BDT.transpose(1, 2)


def text_key(caption: str) -> str:
    """Return what the text encoder reads of a caption; captions with one key are one caption."""
    return caption_key(unicodedata.normalize("NFC", " ".join(caption.split())))


def frames_of(clips: Sequence[Tensor]) -> Frames:
    """Return clips, [3, T, H, W] in [-1, 1] of one size each, as the video encoder takes them."""
    found = [whole_frames(clip[:, _moments(clip.shape[1])]) for clip in clips]
    moving = [torch.cat([frames, frames - frames.mean(dim=0)], dim=1) for frames in found]
    return Frames(torch.cat(moving), tuple(map(len, found)))


def _moments(frames: int) -> Tensor:
    """Return at most MOST_MOMENTS frames of a clip, evenly spread."""
    count = min(frames, MOST_MOMENTS)
    return ((torch.arange(count) + 0.5) * frames / count).long()


@torch.no_grad()
def embed_clips(judge: TextVideoJudge, clips: Sequence[Tensor]) -> Tensor:
    """Return the embeddings of clips, on the CPU.

    Args:
        judge: trained.
        clips: [3, T, H, W] float in [-1, 1] each, of one size and of any lengths; values outside are clipped.

    Returns:
        [N, E] float32, of length 1.
    """
    device, many = judge.log_scale.device, MOST_FRAMES // MOST_MOMENTS
    groups = [clips[start : start + many] for start in range(0, len(clips), many)]
    frames = (frames_of(group) for group in groups)
    return torch.cat([judge.video(Frames(each.images_FCHW.to(device), each.lengths)).cpu() for each in frames])


@torch.no_grad()
def embed_texts(judge: TextVideoJudge, captions: Sequence[str]) -> Tensor:
    """Return the embeddings of captions, [N, E] float32 of length 1, on the CPU."""
    device = judge.log_scale.device
    groups = [captions[start : start + MOST_CAPTIONS] for start in range(0, len(captions), MOST_CAPTIONS)]
    return torch.cat(
        [judge.text(Characters(*(each.to(device) for each in judge.read(group)))).cpu() for group in groups]
    )


@dataclass(frozen=True)
class TextDistances:
    """How far clips are from captions."""

    asked: tuple[str, ...]  # [N], the `text_key` of what each clip was asked to show
    captions: tuple[str, ...]  # [M], the different ones of these
    distance_NM: Tensor  # float32, 1 - cosine: from 0, the same, to 2


def text_distances(judge: TextVideoJudge, clips: Sequence[Tensor], asked: Sequence[str]) -> TextDistances:
    """Compare each clip with each caption that was asked for.

    Args:
        judge: trained.
        clips: [3, T, H, W] each; generated ones, or real ones for the ceiling.
        asked: the caption of each.
    """
    keys = tuple(map(text_key, asked))
    captions = tuple(dict.fromkeys(keys))
    return TextDistances(keys, captions, 1 - embed_clips(judge, clips) @ embed_texts(judge, captions).T)


@dataclass(frozen=True)
class TextAgreement:
    """How well clips agree with their captions; of real clips, the ceiling."""

    r_precision: Mapping[int, Interval]  # by k of RANKS: how often the clip's own caption is among the k nearest
    r_precision_shuffled: Mapping[int, Interval]  # the floor: the same if captions were dealt out by lot
    distance: Interval  # mean of 1 - cosine to the clip's own caption
    distance_shuffled: Interval  # the floor: to other captions


def text_agreement(distances: TextDistances, seed: int) -> TextAgreement | None:
    """Return R-precision in pools of POOL captions (Guo et al. 2022) and distances; None where all captions are one."""
    ranking = rank_captions(distances.distance_NM, distances.asked, distances.captions, POOL, seed)
    if ranking is None:
        return None
    count = len(distances.captions)
    place_N = numpy.array([distances.captions.index(caption) for caption in distances.asked])
    distance_NM = distances.distance_NM.double().numpy()
    own_N = distance_NM[numpy.arange(len(place_N)), place_N]
    sum_MM = numpy.zeros((count, count))
    numpy.add.at(sum_MM, place_N, distance_NM)
    clips_MM = numpy.bincount(place_N, minlength=count)[:, None] * numpy.ones(count)
    return TextAgreement(
        {k: top_k_interval(ranking, k, seed) for k in RANKS},
        {k: shuffled_floor_interval(ranking, k, seed) for k in RANKS},
        bootstrap_ratio(own_N, numpy.ones(len(own_N)), distances.asked, seed),
        bootstrap_pairs(sum_MM, clips_MM, seed),
    )
