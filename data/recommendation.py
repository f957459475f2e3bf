"""Which settings suit a data set, from what its inspection found."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy

from common.field_types import MOST_FRAMES, SMALLEST_SIDE
from config import Config
from data.inspection import LARGEST_LOST_SHARE, InspectedClip, lost_share
from data.lengths import clip_lengths
from data.media.resample import ClipShape, Fit

LONG_CLIPS = 0.95
"""Share of the clips that keep their speed: the longest are often mistakes, and frames cost memory for all."""

LEAST_RATE = 0.1  # of FRAMES_PER_SECOND

READABLE_SIDE = 64
"""Pixels of the longer side, at least, where the pictures have as many: on fewer, fingers cannot be told apart."""

SMALL_REGION = 0.6
"""Share of the picture below which clips are better cut to where they move: hands then have 1.7 times the pixels."""

LARGEST_CUT_SHARE = 0.1
"""Share of the clips that may lose much of their pictures when they are cut."""


@dataclass(frozen=True)
class Recommendation:
    """Settings that differ from those of the inspection."""

    options: tuple[str, ...]  # of main.py; none if the settings suit the clips
    reasons: tuple[str, ...]  # a clause each


def recommend(
    config: Config, clips: Sequence[InspectedClip], seconds: Sequence[float] | numpy.ndarray
) -> Recommendation:
    """Return what to change in a config for a data set of these clips, of which there is at least one.

    With the options, the config is as valid as it was. `seconds` tells how long what is trained on lasts: the clips, or
    the sentences joined from them.
    """
    options: list[str] = []
    reasons = []
    if config.CLIP_TIMING == "natural":
        timing, reason = _timing(config, clips, seconds)
        options += timing
        reasons.append(reason)
    picture, reason = _picture(config, clips)
    return Recommendation((*options, *picture), (*reasons, reason))


def with_options(given: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return what was typed of main.py's options, with others, names and values in turn, in place of the same ones."""
    kept, is_replaced = [], False
    for word in given:
        if word.startswith("--"):
            is_replaced = word.split("=")[0] in options[::2]
        if not is_replaced:
            kept.append(word)
    return [*kept, *options]


def _timing(
    config: Config, clips: Sequence[InspectedClip], seconds: Sequence[float] | numpy.ndarray
) -> tuple[list[str], str]:
    """Return the options for how many frames clips have: no more a second than are stored, and enough for most."""
    options = []
    stored = statistics.median(clip.facts.frames / clip.facts.seconds for clip in clips)
    rate = max(min(config.FRAMES_PER_SECOND, float(f"{stored:.3g}")), LEAST_RATE)
    if rate != config.FRAMES_PER_SECOND:
        options += ["--frames-per-second", f"{rate:g}"]
    lengths = replace(clip_lengths(config), frames_per_second=rate, max_frames=MOST_FRAMES)
    long = float(numpy.quantile(seconds, LONG_CLIPS, method="inverted_cdf"))
    frames = lengths.of(long)
    if frames > config.MAX_FRAMES:
        options += ["--max-frames", str(frames)]
        batch = max(1, config.frames_at_once // frames)  # as many frames at once as before, as far as can be
        options += ["--batch-size", str(batch)] if batch < config.BATCH_SIZE else []
    what = "clips" if config.COMPOSE_SIGNS == 1 else "sentences"
    why = ", as most are stored" if options[:1] == ["--frames-per-second"] else ""
    return options, f"{LONG_CLIPS:.0%} of the {what} have at most {frames} frames at {rate:g} a second{why}"


def _picture(config: Config, clips: Sequence[InspectedClip]) -> tuple[list[str], str]:
    """Return the options for the shape of pictures and what is cut off."""
    filmed = [clip for clip in clips if clip.row.media.kind != "pose"]
    if not filmed:
        return [], "drawn poses fit any shape"
    regions = [(clip.facts, clip.facts.region) for clip in filmed if clip.facts.region is not None]
    share = statistics.median(region.share for _, region in regions) if regions else 1.0
    is_small = 2 * len(regions) > len(filmed) and share < SMALL_REGION
    if is_small:
        sizes = [
            ((region.bottom - region.top) * facts.height, (region.right - region.left) * facts.width)
            for facts, region in regions
        ]
        what = f"clips move within {share:.0%} of the picture"
    else:
        sizes = [(clip.facts.height, clip.facts.width) for clip in filmed]
        what = "pictures"
    size = _image_size(config, sizes)
    fit, cut = _fit(config, filmed, size, is_small)
    shape = statistics.median(wide / tall for tall, wide in sizes)
    proportions = f"{shape:.2g} times as wide as high" if shape >= 1 else f"{1 / shape:.2g} times as high as wide"
    reason = f"{what}, {proportions}" if is_small else f"{what} are {proportions}"
    options = []
    if size != config.IMAGE_SIZE:
        options += ["--image-size", ",".join(map(str, dict.fromkeys(size)))]
        attended = ",".join(map(str, _attention_sizes(config, size)))
        if attended != ",".join(map(str, config.SPATIAL_ATTENTION_SIZES)):
            options += ["--spatial-attention-sizes", attended]
    if fit != config.CLIP_FIT:
        options += ["--clip-fit", fit]
    return options, f"{reason}{cut}"


def _image_size(config: Config, sizes: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Return height and width in the median proportions of sizes: no smaller than the config's, and with the detail
    that they have up to READABLE_SIDE."""
    divisor = math.lcm(config.side_divisor, 2)  # videos have even sides
    least = -(-SMALLEST_SIDE // divisor) * divisor
    available = int(statistics.median(max(size) for size in sizes))
    longest = max(*config.IMAGE_SIZE, min(READABLE_SIDE, available) // divisor * divisor)
    shape = statistics.median(wide / tall for tall, wide in sizes)
    shortest = max(round(longest * min(shape, 1 / shape) / divisor) * divisor, least)
    return (longest, shortest) if shape < 1 else (shortest, longest)


def _attention_sizes(config: Config, size: tuple[int, int]) -> list[int]:
    """Return the shorter sides, at another size of the pictures, of the levels that attend."""
    return [side * min(size) // min(config.IMAGE_SIZE) for side in config.SPATIAL_ATTENTION_SIZES]


def _fit(config: Config, filmed: Sequence[InspectedClip], size: tuple[int, int], is_small: bool) -> tuple[Fit, str]:
    """Return the CLIP_FIT, and what is said of pictures that would lose too much."""
    if is_small:
        return "signer", ""
    shape = ClipShape(clip_lengths(config), size, "crop")
    losing = sum(lost_share(clip, shape) > LARGEST_LOST_SHARE for clip in filmed)
    if losing <= LARGEST_CUT_SHARE * len(filmed):
        return "crop", ""
    return "pad", f", but {losing} of {len(filmed)} have another shape, of which crop would cut off too much"
