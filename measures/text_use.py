"""Does the model use its text? Two answers: from its loss, and from its samples."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy
import torch
from torch import Tensor

from data.lengths import equal_lengths
from data.order import WHOLE_WORK, Part
from diffusion.guidance import Predict
from diffusion.loss import DiffusionObjective
from diffusion.schedule import evenly_spaced_timesteps
from measures.bootstrap import Interval, bootstrap_pairs, bootstrap_ratio
from measures.clips import at_equal_moments

TIMESTEP_BINS = 8

Caption = TypeVar("Caption", str, tuple[int, ...])


@dataclass(frozen=True)
class GaugeClips:
    """Fixed inputs, so that figures compare from step to step."""

    clips: tuple[Tensor, ...]  # [3, T, H, W] float32 in [-1, 1] each, of any lengths
    noises: tuple[Tensor, ...]  # each as large as its clip
    tokens_BL: Tensor  # the right captions
    shuffled_tokens_BL: Tensor | None  # for each clip a caption that says something else; None where there is none


@dataclass(frozen=True)
class TextUse:
    """Unweighted errors of the network's own target, on the same clips, noise and timesteps.

    What concerns shuffled captions is None, or empty, where no two captions differ.
    """

    correct: float
    shuffled: float | None
    null: float | None  # without a caption; None where it was not asked for
    predict_zero: float
    shuffled_gap: Interval | None  # shuffled - correct, with its 95 % interval over clips
    correct_by_bin: tuple[float, ...]
    shuffled_gap_by_bin: tuple[float, ...]


def other_captions(captions: Sequence[Caption], more: Iterable[Caption] = ()) -> list[Caption] | None:
    """Return for each clip a caption that belongs to another one: the next one round the list that differs.

    Args:
        captions: of the clips, in order, in any form.
        more: captions to choose from where all of the clips' own are the same.

    Returns:
        One wrong caption a clip, or None where no two captions differ, so that none can be wrong.
    """
    pool = list(captions)
    if len(set(pool)) < 2:
        pool.extend(itertools.islice((caption for caption in more if caption not in pool), 1))
    if len(set(pool)) < 2:
        return None
    count = len(pool)
    return [
        next(
            pool[(index + distance) % count] for distance in range(1, count) if pool[(index + distance) % count] != own
        )
        for index, own in enumerate(captions)
    ]


@torch.no_grad()
def measure_text_use(
    predict: Predict,
    objective: DiffusionObjective,
    clips: GaugeClips,
    most_frames: int,
    seed: int,
    part: Part = WHOLE_WORK,
    gather: Callable[[Tensor, int], Tensor] = lambda errors_KB, clips: errors_KB,
    *,
    without_caption: bool = True,
) -> TextUse:
    """Compare the loss with the right, a shuffled and no caption.

    Clip i is noised to timestep bin i modulo 8, so that B clips cover each bin B / 8 times at the cost of B forward
    passes a caption kind; where B is no multiple of 8, the first clips are used again, so that every bin counts the
    same. The gap between shuffled and right is the gauge: 0 means that the text is ignored. Its interval treats
    clips of all bins alike, which makes it too wide rather than too narrow.

    Args:
        predict: (noisy video, timestep, tokens, drop_caption) to prediction.
        most_frames: of a forward pass, all of its clips together.
        seed: of the bootstrap.
        part: which of several processes this one is; each measures every N-th clip, in as many forward passes.
        gather: joins what the processes measured, [K, b] on the device, to [K, b * processes], in the order of the
            clips; its second argument is b * processes.
        without_caption: whether to measure the loss without captions too.
    """
    device = clips.tokens_BL.device
    count = -(-len(clips.clips) // TIMESTEP_BINS) * TIMESTEP_BINS
    clip_B = torch.arange(count, device=device) % len(clips.clips)
    bins = evenly_spaced_timesteps(TIMESTEP_BINS, objective.schedule.num_timesteps).to(device)
    bin_B = torch.arange(count, device=device) % TIMESTEP_BINS
    # Where the processes do not divide the clips evenly, some measure one of the first ones again.
    own = torch.arange(-(-count // part.world_size), device=device) * part.world_size + part.rank
    own %= count
    own_clips = clip_B[own].tolist()
    groups = equal_lengths([clips.clips[clip].shape[1] for clip in own_clips], most_frames)
    errors: dict[str, list[Tensor]] = {"correct": [], "shuffled": [], "null": [], "zero": []}
    for group in groups:
        chosen = own[group]
        index = clip_B[chosen]
        video = torch.stack([clips.clips[own_clips[place]] for place in group])
        noise = torch.stack([clips.noises[own_clips[place]] for place in group])
        sample = objective.noise(video, noise, bins[bin_B[chosen]])
        keep = torch.zeros(video.shape[0], dtype=torch.bool, device=device)
        variants = {"correct": (clips.tokens_BL[index], keep)}
        if without_caption:
            variants["null"] = (clips.tokens_BL[index], ~keep)
        if clips.shuffled_tokens_BL is not None:
            variants["shuffled"] = (clips.shuffled_tokens_BL[index], keep)
        for name, (tokens, drop) in variants.items():
            prediction = predict(sample.noisy_video, sample.timestep_B, tokens, drop)
            found = objective.loss(sample, video, prediction).clips
            errors[name].append(found.unweighted_mse)
            if name == "correct":
                errors["zero"].append(found.predict_zero_mse)
    order = torch.tensor([place for group in groups for place in group], device=device).argsort()
    measured = {name: torch.cat(parts)[order] for name, parts in errors.items() if parts}
    together = gather(torch.stack(list(measured.values())), len(own) * part.world_size)
    error_of = dict(zip(measured, together[:, :count].cpu(), strict=True))
    mean_of = {name: error.mean().item() for name, error in error_of.items()}
    gap = error_of["shuffled"] - error_of["correct"] if "shuffled" in error_of else None
    interval = None
    if gap is not None:
        names = [str(clip) for clip in clip_B.tolist()]
        interval = bootstrap_ratio(gap.double().numpy(), numpy.ones(count), names, seed)
    of_bin = [bin_B.cpu() == index for index in range(TIMESTEP_BINS)]
    return TextUse(
        correct=mean_of["correct"],
        shuffled=mean_of.get("shuffled"),
        null=mean_of.get("null"),
        predict_zero=mean_of["zero"],
        shuffled_gap=interval,
        correct_by_bin=tuple(error_of["correct"][here].mean().item() for here in of_bin),
        shuffled_gap_by_bin=() if gap is None else tuple(gap[here].mean().item() for here in of_bin),
    )


def text_sensitivity(same_noise: Sequence[Tensor], other_noise: Sequence[Tensor]) -> float | None:
    """Return how much more clips differ between prompts than between two noises of one prompt.

    The ratio of two mean root-mean-square distances at equal moments: over all pairs of `same_noise` (N prompts, one
    noise), and between each of the first M of them and `other_noise` (the same M prompts, another noise). A model that
    ignores its text gives about 0, because clips from one noise are then the same clip.

    Returns:
        The ratio, or None where there is nothing to compare: fewer than two prompts, or no second noise.
    """
    count, repeats = len(same_noise), len(other_noise)
    if count < 2 or repeats < 1:
        return None
    flat = at_equal_moments(same_noise).flatten(1).float()
    distance = torch.cdist(flat, flat)
    across = distance.sum() / (count * (count - 1))
    within = (flat[:repeats] - at_equal_moments(other_noise).flatten(1).float()).norm(dim=1).mean()
    return None if within == 0 else (across / within).item()


def sensitivity_interval(video_WSCTHW: Tensor, seed: int) -> Interval | None:
    """Return the text sensitivity of clips with its 95 % interval over prompts.

    Args:
        video_WSCTHW: [W, S, 3, T, H, W], W prompts from the same S initial noises, at equal moments; at least two of
            each. The interval is one for these noises.
        seed: of the bootstrap.

    Returns:
        The mean distance between clips of different prompts and one noise, divided by that between clips of one prompt
        and different noises; None where a prompt's clips are all the same.
    """
    noises = video_WSCTHW.shape[1]
    flat_WSV = video_WSCTHW.flatten(2).float()
    flat_SWV = flat_WSV.transpose(0, 1)
    across_WW = torch.cdist(flat_SWV, flat_SWV).mean(dim=0).cpu().double().numpy()
    within_W = (torch.cdist(flat_WSV, flat_WSV).sum(dim=(1, 2)) / (noises * (noises - 1))).cpu().double().numpy()
    if within_W.min() <= 0:
        return None
    return bootstrap_pairs(across_WW, (within_W[:, None] + within_W[None, :]) / 2, seed)
