"""Does a clip show its caption? A judge without weights: the caption of the nearest real clip under time warping.

Nothing in it is trained, so that no generator can be tuned to it, and it takes any signs: letters, words, sentences.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from common.randomness import numpy_generator, torch_generator
from data.clip_splits import caption_key
from logging_system.statistics import tensors
from measures.bootstrap import Interval, bootstrap_ratio
from measures.clips import at_moments, moving_frames, shrunk

RETRIEVAL_POOL = 100
"""Captions that a clip is ranked among, its own among them."""

LARGEST_SIDE = 64
"""Pixels a side that frames are averaged down to first, so that the cost stays bounded."""

MOST_MOMENTS = 64
"""Longer clips are described at this many moments, evenly spread over each."""

WINDOW_SIDE = 32
"""Cells a side of the window that is described. It lies where the clip's energy is, and is as large."""

WINDOW_REACH = 2.2
"""From the window's middle to its edge, in standard deviations of where the energy is: the hand is in it, with its
fingers."""

STILL_WEIGHT = 0.02
"""What a pixel that never changes counts, beside 1 for the one that changes most: clothes and walls say nothing of a
sign."""

NOW_WEIGHT = 0.7
"""Of how far a pixel is from its median over time: where the hand is now. The rest is of the deviation over the clip:
where the hand is at some time, also while it holds still in its usual place, as it does for a single letter."""

CALM_QUANTILE, NOISE_FACTOR = 0.25, 1.5
"""The calmest quarter of a picture shows grain alone, and what deviates less than so many times as much is grain."""

NEIGHBOURHOOD = 5
"""Cells round one in which changes count as its own, so that edges of a hand count and not only what it covers."""

NEAR_CELLS = 2
"""Of the window, by which two frames may be apart and still be the same picture."""

CELLS, ORIENTATIONS = 6, 8
PATH_WEIGHT = 0.5
"""Of where the energy is at each moment, beside the shapes: J and Z are drawn in the air, and signs are movements."""

MOST_COSTS = 2**25  # numbers that are held at once while clips are compared

SCALES, SPEEDS = (0.9, 1.1), (0.85, 1.18)
LARGEST_SHIFT = 0.05  # of the picture
LARGEST_LIGHT, LARGEST_TINT = 0.15, 0.15
GRAIN = (0.0, 0.03)  # standard deviation, of values in [-1, 1]


def clip_features(clip_CTHW: Tensor) -> Tensor:
    """Describe each moment of a clip by the directions of its edges, wherever in the picture the signer is.

    Histograms of oriented gradients (Dalal and Triggs 2005) without the sign of the gradient, so that a light hand
    before a dark wall is like a dark one before a light wall, in a window round what moves and has edges. Each
    histogram counts the same, however strong its edges are (the Hellinger kernel, Arandjelovic and Zisserman 2012).

    Args:
        clip_CTHW: [3, T, H, W] float in [-1, 1], on any device; values outside are clipped.

    Returns:
        [min(T, MOST_MOMENTS), F] float32 on the CPU; shapes have length 1, and the path a smaller one.
    """
    grey_THW = _smoothed(_grey(at_moments(clip_CTHW, min(clip_CTHW.shape[1], MOST_MOMENTS))), 3)
    window_TSS = _in_window(grey_THW[:, None], grey_THW)[:, 0]
    down_TSS, right_TSS = _gradients(window_TSS)
    changes_TSS = (1 - NOW_WEIGHT) * _deviation(window_TSS) + NOW_WEIGHT * _change(window_TSS)
    energy_TSS = torch.hypot(down_TSS, right_TSS) * (STILL_WEIGHT + changes_TSS)
    turn_TSS = torch.atan2(down_TSS, right_TSS) / math.pi * ORIENTATIONS  # a half turn is the same direction again
    bins_O = torch.arange(ORIENTATIONS)
    away_TOSS = (turn_TSS[:, None] - bins_O[:, None, None] + ORIENTATIONS / 2) % ORIENTATIONS - ORIENTATIONS / 2
    directed_TOSS = energy_TSS[:, None] * (1 - away_TOSS.abs()).clamp_min(0)
    places_S = (torch.arange(WINDOW_SIDE) + 0.5) * CELLS / WINDOW_SIDE
    shares_CS = (1 - (places_S - (torch.arange(CELLS)[:, None] + 0.5)).abs()).clamp_min(0)
    histogram_TF = torch.einsum("tohw,ih,jw->toij", directed_TOSS, shares_CS, shares_CS).flatten(1)
    shapes_TF = (histogram_TF / _positive(histogram_TF.sum(dim=1, keepdim=True))).sqrt()
    middle_T2 = _middle(energy_TSS) / (WINDOW_SIDE / 2)
    return torch.cat([shapes_TF, PATH_WEIGHT * (middle_T2 - middle_T2.mean(dim=0))], dim=1)


def frame_pictures(clip_CTHW: Tensor) -> Tensor:
    """Return what each frame looks like close up: [T, 3, WINDOW_SIDE, WINDOW_SIDE] float32 on the CPU.

    The window round what moves and has edges, in colours that have mean 0 and deviation 1 over the clip, each averaged
    with its neighbours: place, size, light, tint and grain count little, and single fingers do.
    """
    frames_TCHW = clip_CTHW.detach().float().clamp(-1, 1).transpose(0, 1).cpu()
    small_TCHW = shrunk(frames_TCHW.flatten(0, 1), LARGEST_SIDE).unflatten(0, (-1, 3))
    window_TCSS = _in_window(small_TCHW, _smoothed(_grey(clip_CTHW), 3))
    smooth_TCSS = _smoothed(window_TCSS.flatten(0, 1), 3).unflatten(0, (-1, 3))
    deviation_C11, mean_C11 = torch.std_mean(smooth_TCSS, dim=(0, 2, 3), correction=0, keepdim=True)
    return (smooth_TCSS - mean_C11) / _positive(deviation_C11)


def pictures_by_caption(clips: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the `frame_pictures` of all clips of each caption, one after the other, by `caption_key`."""
    found: dict[str, list[Tensor]] = {}
    for caption, clip in clips:
        found.setdefault(caption_key(caption), []).append(frame_pictures(clip))
    return {caption: torch.cat(of_caption) for caption, of_caption in found.items()}


def frame_distances(pictures_TCSS: Tensor, references_RCSS: Tensor) -> Tensor:
    """Return how far each frame is from the nearest of some real ones: [T].

    Args:
        pictures_TCSS: from `frame_pictures`.
        references_RCSS: the same of real clips, at least one frame.

    Returns:
        Root mean square difference, the smallest of all shifts by up to NEAR_CELLS cells; 0 is the same picture.
    """
    inner = WINDOW_SIDE - 2 * NEAR_CELLS
    middle_RV = references_RCSS[:, :, NEAR_CELLS:-NEAR_CELLS, NEAR_CELLS:-NEAR_CELLS].flatten(1)
    found = [
        torch.cdist(pictures_TCSS[:, :, down : down + inner, right : right + inner].flatten(1), middle_RV).amin(dim=1)
        for down in range(2 * NEAR_CELLS + 1)
        for right in range(2 * NEAR_CELLS + 1)
    ]
    return torch.stack(found).amin(dim=0) / middle_RV.shape[1] ** 0.5


def moving_and_held(clip_CTHW: Tensor, references_RCSS: Tensor) -> tuple[float, float] | None:
    """Return how far the frames of a clip are from real ones: the mean of those that move, and of those that are held.

    None where it has not both.

    `references_RCSS`: as `frame_distances` takes them.
    """
    moves_T = moving_frames(clip_CTHW).cpu()
    if moves_T.all() or not moves_T.any():
        return None
    distance_T = frame_distances(frame_pictures(clip_CTHW), references_RCSS)
    return distance_T[moves_T].mean().item(), distance_T[~moves_T].mean().item()


def _in_window(values_TCHW: Tensor, grey_THW: Tensor) -> Tensor:
    """Return what is in a clip's window, [T, C, WINDOW_SIDE, WINDOW_SIDE]: the same place in all frames.

    By the whole clip, because a window that followed the hand would lose where the hand is.
    """
    energy_HW = torch.hypot(*_gradients(grey_THW)).mean(dim=0) * (STILL_WEIGHT + _deviation(grey_THW))
    window_TSS2 = _window(energy_HW).expand(len(grey_THW), -1, -1, -1)
    return functional.grid_sample(values_TCHW, window_TSS2, padding_mode="border", align_corners=False)


def _grey(clip_CTHW: Tensor) -> Tensor:
    """Return the brightness, averaged down: [T, h, w] float32 on the CPU."""
    grey_THW = tensors.brightness(clip_CTHW.detach()[None].clamp(-1, 1))[0].cpu()
    return shrunk(grey_THW, LARGEST_SIDE)


def _gradients(grey_THW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the slope downwards and to the right of every pixel, each [T, H, W]."""
    padded = functional.pad(grey_THW[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2, (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2


def _smoothed(grey_THW: Tensor, side: int) -> Tensor:
    """Average each pixel with its neighbours in a square of odd side: grain has edges in all directions."""
    padded = functional.pad(grey_THW[:, None], (side // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, side, stride=1)[:, 0]


def _deviation(grey_THW: Tensor) -> Tensor:
    """Return how much each pixel changes over the clip, beyond grain: [H, W], 1 for the one that changes most."""
    deviation_HW = grey_THW.std(dim=0, correction=0)
    over_HW = (deviation_HW - NOISE_FACTOR * deviation_HW.quantile(CALM_QUANTILE)).clamp_min(0)
    return over_HW / _positive(over_HW.amax())


def _change(grey_THW: Tensor) -> Tensor:
    """Return how far each pixel is from its median over time at each moment: [T, H, W], 1 for the one that is most."""
    change_THW = _smoothed((grey_THW - grey_THW.median(dim=0).values).abs(), NEIGHBOURHOOD)
    return change_THW / _positive(change_THW.amax())


def _middle(energy_THW: Tensor) -> Tensor:
    """Return where the energy is, in pixels from the top left corner: [T, 2]; the picture's middle without any."""
    height, width = energy_THW.shape[1:]
    down_H, right_W = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    total_T = energy_THW.sum(dim=(1, 2))
    middle_T2 = torch.stack([energy_THW.sum(dim=2) @ down_H, energy_THW.sum(dim=1) @ right_W], dim=1)
    nowhere_2 = torch.tensor([height / 2, width / 2])
    return torch.where(total_T[:, None] > 0, middle_T2 / _positive(total_T)[:, None], nowhere_2)


def _window(energy_HW: Tensor) -> Tensor:
    """Return where the window's cells are, as `grid_sample` takes it: [1, S, S, 2] in [-1, 1]."""
    height, width = energy_HW.shape
    down, right = _middle(energy_HW[None])[0]
    squares_HW = (torch.arange(height)[:, None] + 0.5 - down).square() + (torch.arange(width) + 0.5 - right).square()
    spread = ((energy_HW * squares_HW).sum() / _positive(energy_HW.sum()) / 2).sqrt()
    reach = (WINDOW_REACH * spread).clamp_min(2)
    cells_S = (torch.arange(WINDOW_SIDE) + 0.5) / WINDOW_SIDE * 2 - 1
    down_S, right_S = (down + reach * cells_S) / height * 2 - 1, (right + reach * cells_S) / width * 2 - 1
    return torch.stack([right_S.expand(WINDOW_SIDE, -1), down_S[:, None].expand(-1, WINDOW_SIDE)], dim=2)[None]


def _positive(value: Tensor) -> Tensor:
    return value.clamp_min(torch.finfo(torch.float32).tiny)


def warped_distances(queries: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """Return how far each query is from each reference under dynamic time warping.

    The symmetric form of Sakoe and Chiba (1978): a step in both clips counts twice, so that every path has the weight
    T1 + T2, by which the sum is divided. A clip that is shown slower is at 0 from itself.

    Args:
        queries: N of [T', F], from `clip_features`.
        references: M of the same, with the same F.

    Returns:
        [N, M] float32: the mean Euclidean distance between moments that belong together.
    """
    frames = max(map(len, queries)) * sum(map(len, references))
    size = max(1, MOST_COSTS // frames)
    chunks = [queries[start : start + size] for start in range(0, len(queries), size)]
    return torch.cat([_warped(chunk, references) for chunk in chunks])


def joint_error(poses_TJD: Tensor, real_TJD: Tensor) -> float:
    """Return the mean distance of joints that belong together under dynamic time warping: DTW-MJE, "mean joint error".

    As in Huang et al. 2021 (Towards fast and high-quality sign language production), with the steps and weights of
    `warped_distances`.

    Args:
        poses_TJD: [T, J, D] float, the places of J joints at each moment.
        real_TJD: [T', J, D] in the same order and units, which are those of the result.

    Raises:
        ValueError: the joints differ in number or dimensions.
    """
    if poses_TJD.shape[1:] != real_TJD.shape[1:]:
        raise ValueError(f"poses {tuple(poses_TJD.shape)} and {tuple(real_TJD.shape)} have different joints")
    cost_TT = torch.cdist(poses_TJD.float().transpose(0, 1), real_TJD.float().transpose(0, 1)).mean(dim=0)
    ends = [torch.tensor([len(poses)]) for poses in (poses_TJD, real_TJD)]
    return float(_along_the_best_path(cost_TT[..., None, None], *ends))


def _warped(queries: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    padded = [torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True) for clips in (queries, references)]
    flat = torch.cdist(padded[0].flatten(0, 1), padded[1].flatten(0, 1))
    cost_TTNM = flat.view(*padded[0].shape[:2], *padded[1].shape[:2]).permute(1, 3, 0, 2).contiguous()
    ends_N, ends_M = (torch.tensor([len(clip) for clip in clips]) for clips in (queries, references))
    return _along_the_best_path(cost_TTNM, ends_N, ends_M)


def _along_the_best_path(cost_TTNM: Tensor, ends_N: Tensor, ends_M: Tensor) -> Tensor:
    """Return the mean cost of each pair's cheapest path: [N, M].

    All pairs at once go through the same cells; a pair's cost is what stands in the cell where both end.
    """
    found = torch.zeros(len(ends_N), len(ends_M))
    above: list[Tensor] = []
    for first, cost_TNM in enumerate(cost_TTNM):
        row: list[Tensor] = []
        for second, cost in enumerate(cost_TNM):
            ways = [above[second] + cost] if first else []
            if second:
                ways.append(row[-1] + cost)
            if first and second:
                ways.append(above[second - 1] + 2 * cost)
            best = torch.stack(ways).amin(dim=0) if ways else 2 * cost
            row.append(best)
        for second in set(ends_M.tolist()):
            here = torch.outer(ends_N == first + 1, ends_M == second)
            found[here] = row[second - 1][here]
        above = row
    return found / (ends_N[:, None] + ends_M[None])


def another_look(clip_CTHW: Tensor, seed: int) -> Tensor:
    """Show a real clip again as if it had been filmed anew: what the best of generators would show of its caption.

    Place, size, speed, light, colour and grain change; nothing is mirrored, because hands differ. Frames are left out
    or repeated, never mixed: mixed frames are what a bad generator shows.

    Args:
        clip_CTHW: [3, T, H, W] float in [-1, 1].
        seed: of all that changes.

    Returns:
        [3, T', H, W] float32 in [-1, 1] on the CPU, with T' between T / 1.18 and T / 0.85.
    """
    generator = torch_generator(seed, "another_look")
    frames, height, width = clip_CTHW.shape[1:]

    def between(low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=generator).item()

    shown = max(1, round(frames / between(*SPEEDS)))
    size = between(*SCALES)
    shift = [2 * between(-LARGEST_SHIFT, LARGEST_SHIFT) for _ in range(2)]
    place = torch.tensor([[1 / size, 0, shift[0]], [0, 1 / size, shift[1]]])
    grid = functional.affine_grid(place[None], [1, 3, height, width], align_corners=False).expand(shown, -1, -1, -1)
    video_TCHW = at_moments(clip_CTHW.detach().float().cpu(), shown).transpose(0, 1)
    filmed = functional.grid_sample(video_TCHW, grid, "bicubic", "border", align_corners=False).transpose(0, 1)
    contrast = between(1 - LARGEST_LIGHT, 1 + LARGEST_LIGHT)
    tint_C = torch.tensor([between(-LARGEST_TINT, LARGEST_TINT) for _ in range(3)])
    light = between(-LARGEST_LIGHT, LARGEST_LIGHT)
    grain = between(*GRAIN) * torch.randn(filmed.shape, generator=generator)
    return (contrast * filmed + light + tint_C[:, None, None, None] + grain).clamp(-1, 1)


def shares_a_frame(clip: numpy.ndarray, others: Iterable[numpy.ndarray]) -> bool:
    """Return whether a clip has a frame of one of the others: they are from the same recording.

    The clips are uint8 [T, H, W, 3].
    """
    frames = {frame.tobytes() for other in others for frame in other}
    return any(frame.tobytes() in frames for frame in clip)


@dataclass(frozen=True)
class Ranking:
    """How near the captions that were asked for are to each query, among the captions of its pool."""

    asked: tuple[str, ...]  # [N], of each query
    captions: tuple[str, ...]  # [W], the different ones of these, as `caption_key` writes them
    rank_NW: numpy.ndarray  # int64: how many captions of a caption's pool are nearer to the query; 0 is the nearest

    @property
    def rank_N(self) -> numpy.ndarray:
        """The rank of the caption that each query was asked for."""
        place = {caption: index for index, caption in enumerate(self.captions)}
        return self.rank_NW[numpy.arange(len(self.asked)), [place[caption_key(caption)] for caption in self.asked]]


def rank_captions(
    distance_NM: Tensor, asked: Sequence[str], captions_M: Sequence[str], pool: int, seed: int
) -> Ranking | None:
    """Rank the captions of the references by how near the nearest clip of each is to each query.

    A query's pool is the caption that it is asked for and `pool - 1` others, or all others where there are fewer: the
    same ones for every query, but for its own. Captions that differ in capitals alone are one. Captions at the same
    distance are ranked by lot, so that a clip from which nothing can be told is right no more often than by chance.

    Args:
        distance_NM: of N queries from M references; what is not a number counts as infinitely far.
        asked: the caption of each query, which some reference has.
        captions_M: of the references.
        pool: captions that a query is ranked among, at most.
        seed: of the choice of the others, and of the lots.

    Returns:
        None where there is nothing to rank: the references have one caption alone.

    Raises:
        ValueError: no reference has a caption that was asked for.
    """
    names = sorted(set(map(caption_key, captions_M)))
    if missing := sorted(set(map(caption_key, asked)) - set(names)):
        raise ValueError(f"no reference has the caption {missing[0]!r}; give one for each that is asked for")
    if len(names) < 2:
        return None
    place = {name: index for index, name in enumerate(names)}
    known_NM = numpy.nan_to_num(distance_NM.cpu().numpy(), nan=numpy.inf, posinf=numpy.inf)
    column_M = numpy.array([place[caption_key(caption)] for caption in captions_M])
    distance_NC = numpy.full((len(asked), len(names)), numpy.inf)
    for index in range(len(names)):
        distance_NC[:, index] = known_NM[:, column_M == index].min(axis=1)
    generator = numpy_generator(seed, "ranking")
    order = generator.permutation(len(names))
    lot_NC = generator.random(distance_NC.shape)
    captions = tuple(sorted(set(map(caption_key, asked))))
    rank_NW = numpy.empty((len(asked), len(captions)), dtype=numpy.int64)
    for index, caption in enumerate(captions):
        own = place[caption]
        others = order[order != own][: pool - 1]
        away_N1, lot_N1 = distance_NC[:, [own]], lot_NC[:, [own]]
        nearer = (distance_NC[:, others] < away_N1) | (
            (distance_NC[:, others] == away_N1) & (lot_NC[:, others] < lot_N1)
        )
        rank_NW[:, index] = nearer.sum(axis=1)
    return Ranking(tuple(asked), captions, rank_NW)


def top_k_interval(ranking: Ranking, k: int, seed: int) -> Interval:
    """Return the share of the queries whose caption is among the k nearest, with its interval over captions."""
    return _share(ranking, ranking.rank_N < k, seed)


def shuffled_floor_interval(ranking: Ranking, k: int, seed: int) -> Interval:
    """Return what the same clips would score if the captions had been dealt out among them by lot.

    That is what a generator scores that ignores its text: k / pool where all captions are asked for.
    """
    return _share(ranking, (ranking.rank_NW < k).mean(axis=1), seed)


def _share(ranking: Ranking, hits_N: numpy.ndarray, seed: int) -> Interval:
    names = list(map(caption_key, ranking.asked))
    return bootstrap_ratio(hits_N.astype(numpy.float64), numpy.ones(len(names)), names, seed)
