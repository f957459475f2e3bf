"""The figures of an evaluation that any run has: do clips show what was asked, move, and are they copies?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

import numpy
import torch
from torch import Tensor

from data.clip_splits import caption_key
from data.records import ClipSource
from evaluation.clips import (
    FEWEST_REAL_CLIPS,
    REFERENCE_CLIPS,
    Asked,
    EvaluationClips,
    Figures,
    RealClips,
    TrainingHistory,
    in_unit_range,
    next_of_each,
    places_of_each,
)
from measures.bootstrap import Interval, bootstrap_ratio
from measures.clips import (
    are_copies,
    chroma,
    clip_distances,
    hold_share,
    motion_energy,
    share_by_chance,
    sharpness,
    small_copies,
)
from measures.likeness import (
    NEIGHBOURS,
    clip_statistics,
    density_coverage,
    kernel_distance,
    map_agreement,
    motion_map,
    moving_error,
    moving_sharpness,
)
from measures.retrieval import (
    RETRIEVAL_POOL,
    Ranking,
    clip_features,
    moving_and_held,
    pictures_by_caption,
    rank_captions,
    shuffled_floor_interval,
    top_k_interval,
    warped_distances,
)
from measures.text_video import RANKS, TextVideoJudge, text_agreement, text_distances

ROWS_AT_ONCE = 512
SAME_CLIP = 2e-3  # as a distance, see `clip_distances`: a quarter of a grey level, above the error of its float32

LOOKS = {
    "motion_energy_ratio": motion_energy,
    "hold_ratio": hold_share,
    "sharpness_ratio": sharpness,
    "chroma_ratio": chroma,
}


@dataclass(frozen=True)
class Judged:
    """Generated and real clips, each as far from every reference as dynamic time warping says."""

    asked: tuple[str, ...]  # [N], the caption of each generated clip
    distance_NM: Tensor
    features: tuple[Tensor, ...]  # [N], of generated clips
    real_asked: tuple[str, ...]  # [Q]
    real_distance_QM: Tensor
    real_features: tuple[Tensor, ...]
    captions_M: tuple[str, ...]  # of the references
    reference_features: tuple[Tensor, ...]

    def nearest(self, place: int) -> str:
        """Return the caption of the reference that is nearest to a generated clip."""
        return self.captions_M[int(self.distance_NM[place].argmin())]

    @cached_property
    def of_asked_M(self) -> Tensor:
        """Which references show a caption that was asked for; the others only make retrieval harder."""
        wanted = set(map(caption_key, self.asked))
        return torch.tensor([caption_key(caption) in wanted for caption in self.captions_M])


def judge(asked: Sequence[str], generated: Iterable[numpy.ndarray], real: RealClips) -> Judged:
    """Compare clips with all references by the judge that needs no training."""
    features = tuple(map(clip_features, in_unit_range(generated)))
    real_features = tuple(clip_features(clip) for clip in in_unit_range(each.clip for each in real.queries))
    references = tuple(clip_features(clip) for clip in in_unit_range(each.clip for each in real.references))
    distances = warped_distances([*features, *real_features], references)
    return Judged(
        asked=tuple(asked),
        distance_NM=distances[: len(features)],
        features=features,
        real_asked=tuple(each.caption for each in real.queries),
        real_distance_QM=distances[len(features) :],
        real_features=real_features,
        captions_M=tuple(each.caption for each in real.references),
        reference_features=references,
    )


def retrieval_figures(judged: Judged, places: Sequence[int], seed: int) -> Figures:
    """Return how often the nearest real clip has the caption that was asked for, with ceiling and floor.

    `places`: of the generated clips that count; the ceiling is that of real clips of their captions.
    """
    asked = [judged.asked[place] for place in places]
    wanted = set(map(caption_key, asked))
    queries = [place for place, caption in enumerate(judged.real_asked) if caption_key(caption) in wanted]

    def ranked(distance_NM: Tensor, rows: Sequence[int], captions: Sequence[str]) -> Ranking | None:
        return (
            rank_captions(distance_NM[list(rows)], captions, judged.captions_M, RETRIEVAL_POOL, seed) if rows else None
        )

    generated = ranked(judged.distance_NM, places, asked)
    real = ranked(judged.real_distance_QM, queries, [judged.real_asked[place] for place in queries])

    def share(ranking: Ranking | None, k: int) -> Interval | None:
        return None if ranking is None else top_k_interval(ranking, k, seed)

    floor = None
    if generated is not None and len(generated.captions) > 1:
        floor = shuffled_floor_interval(generated, 1, seed)
    return {
        "retrieval_top1": share(generated, 1),
        "retrieval_top5": share(generated, 5),
        "retrieval_real_ceiling": share(real, 1),
        "retrieval_real_ceiling_top5": share(real, 5),
        "retrieval_shuffled_floor": floor,
    }


def agreement_figures(
    text_video: TextVideoJudge, judged: Judged, clips: Sequence[numpy.ndarray], real: RealClips, seed: int
) -> Figures:
    """Return what the judge that learned from real clips says of generated ones, beside real ones.

    judges_agree is the share of the clips that both judges, among the captions that were asked for, take for what was
    asked, or neither does.

    Args:
        text_video: trained.
        judged: what the other judge says.
        clips: the generated ones.
        real: whose queries are the ceiling.
        seed: of pools and bootstrap.
    """

    distances = text_distances(text_video, list(in_unit_range(clips)), judged.asked)
    generated = text_agreement(distances, seed)
    videos = list(in_unit_range(each.clip for each in real.queries))
    of_real = text_agreement(text_distances(text_video, videos, [each.caption for each in real.queries]), seed)
    agree = None
    if len(distances.captions) > 1:
        captions = list(compress(judged.captions_M, judged.of_asked_M.tolist()))
        near = judged.distance_NM[:, judged.of_asked_M].argmin(dim=1).tolist()
        nearest = [distances.captions[place] for place in distances.distance_NM.argmin(dim=1).tolist()]
        both = zip(near, nearest, distances.asked, strict=True)
        same = [(found == own) == (caption_key(captions[place]) == caption_key(own)) for place, found, own in both]
        agree = bootstrap_ratio(numpy.array(same, float), numpy.ones(len(same)), judged.asked, seed)
    figures: dict[str, Interval | None] = {}
    for k in RANKS:
        figures[f"r_precision_{k}"] = None if generated is None else generated.r_precision[k]
        figures[f"r_precision_{k}_real_ceiling"] = None if of_real is None else of_real.r_precision[k]
        figures[f"r_precision_{k}_shuffled_floor"] = None if generated is None else generated.r_precision_shuffled[k]
    return {
        **figures,
        "judges_agree": agree,
        "text_distance": None if generated is None else generated.distance,
        "text_distance_real": None if of_real is None else of_real.distance,
        "text_distance_shuffled": None if generated is None else generated.distance_shuffled,
    }


def likeness_figures(judged: Judged, seed: int) -> Figures:
    """Return how far generated clips are from real ones as a distribution, beside real ones from real ones."""
    captions = tuple(compress(judged.captions_M, judged.of_asked_M.tolist()))
    if len(set(map(caption_key, captions))) < 2:  # clips of one caption are no distribution
        return {}
    of_references = tuple(compress(judged.reference_features, judged.of_asked_M.tolist()))
    sets = (judged.features, judged.real_features, of_references)
    generated, queries, references = map(clip_statistics, sets)
    figures: dict[str, Interval | None] = {
        "kernel_distance": kernel_distance(generated, references, seed, (judged.asked, captions)),
        "kernel_distance_real": kernel_distance(queries, references, seed, (judged.real_asked, captions)),
    }
    if len(references) > NEIGHBOURS:
        for name, clips in (("", generated), ("_real", queries)):
            density, coverage = density_coverage(clips, references)
            figures |= {
                f"density{name}": Interval(density, None, None),
                f"coverage{name}": Interval(coverage, None, None),
            }
    return figures


def moving_figures(clips: EvaluationClips[Asked], real: RealClips, seed: int) -> Figures:
    """Return what becomes of what moves, which whole frames hide: hands are few of their pixels.

    Generated clips, and the real queries, are compared with a reference of the same caption; the agreement of motion
    maps also with the reference of another one.
    """
    references, others = real.by_caption, next_of_each(real.by_caption)
    maps = dict(zip(references, map(motion_map, in_unit_range(references.values())), strict=True))
    figures: dict[str, Interval | None] = {}
    for name, compared in (("", real.comparable(clips.labelled)), ("_real", real.queries)):
        rows = []
        for caption, pixels in compared:
            own_key = caption_key(caption)
            clip, own = in_unit_range((pixels, references[own_key]))
            own_map, clip_map = maps[own_key], motion_map(clip)
            rows.append(
                (
                    float(map_agreement(clip_map, own_map)),
                    float(map_agreement(clip_map, maps[others[own_key]])),
                    float(moving_sharpness(clip, clip_map)),
                    float(moving_sharpness(own, own_map)),
                    float(moving_error(clip, own, own_map)),
                )
            )
        if not rows:
            continue
        names = [caption for caption, _ in compared]
        agreement, of_other, sharp, sharp_of_real, error = numpy.array(rows).T
        ones = numpy.ones(len(rows))
        figures |= {
            f"motion_map_agreement{name}": bootstrap_ratio(agreement, ones, names, seed),
            f"motion_map_agreement_others{name}": (
                bootstrap_ratio(of_other, ones, names, seed) if len(references) > 1 else None
            ),
            f"moving_sharpness_ratio{name}": (
                bootstrap_ratio(sharp, sharp_of_real, names, seed) if sharp_of_real.any() else None
            ),
            f"moving_error{name}": bootstrap_ratio(error, ones, names, seed),
        }
    return figures


def frame_figures(clips: EvaluationClips[Asked], real: RealClips, seed: int) -> Figures:
    """Return how far frames are from the nearest frame of real clips of the caption, moving ones beside held ones.

    moving_frame_ratio is the distance of moving frames as a multiple of that of held ones, over clips that have both.
    Letter and sign error rates forgive a hand that is a smear while it moves; this does not.
    """
    videos = in_unit_range(each.clip for each in real.references)
    pictures = pictures_by_caption(zip((each.caption for each in real.references), videos, strict=True))
    figures: dict[str, Interval | None] = {}
    for name, compared in (("", real.comparable(clips.labelled)), ("_real", real.queries)):
        rows, names = [], []
        for caption, pixels in compared:
            (clip,) = in_unit_range([pixels])
            found = moving_and_held(clip, pictures[caption_key(caption)])
            if found is not None:
                rows.append(found)
                names.append(caption)
        if not rows:
            continue
        moving, held = numpy.array(rows).T
        ones = numpy.ones(len(rows))
        figures |= {
            f"moving_frame_distance{name}": bootstrap_ratio(moving, ones, names, seed),
            f"held_frame_distance{name}": bootstrap_ratio(held, ones, names, seed),
            f"moving_frame_ratio{name}": bootstrap_ratio(moving, held, names, seed) if held.any() else None,
        }
    return figures


def look_figures(clips: EvaluationClips[Asked], seed: int) -> Figures:
    """Return what generated clips have, as a ratio to what real clips of the same captions have; 1 is right.

    None where the real clips have nothing of it.
    """
    names = [asked.text for asked in clips.asked]
    generated, real = _looks(clips.generated), _looks(clips.real)
    return {
        name: bootstrap_ratio(generated[name], real[name], names, seed) if real[name].any() else None for name in LOOKS
    }


def _looks(clips: Sequence[numpy.ndarray]) -> dict[str, numpy.ndarray]:
    found = [[float(measure(clip)) for measure in LOOKS.values()] for clip in in_unit_range(clips)]
    return dict(zip(LOOKS, numpy.array(found).T, strict=True))


def memorisation_figures(
    clips: EvaluationClips[Asked],
    history: TrainingHistory,
    training: ClipSource,
    unseen_real: Sequence[numpy.ndarray],
    seed: int,
) -> Figures:
    """Compare clips of captions that training did not show with training clips; of all where it showed all.

    Real clips say how near is too near: unseen ones, or, where training showed all captions, those training clips that
    show them, each compared with all others. Unseen clips would then be of other captions, and farther away.

    `unseen_real`: real clips, uint8 [T, H, W, 3] each, that training did not show.

    Returns:
        memorisation is the share of generated clips that count as copied, memorisation_chance what it is on average
        where nothing is; with the mean distances of generated and real clips to their nearest training clips. None
        where there are fewer than FEWEST_REAL_CLIPS.
    """
    new = [index for index, asked in enumerate(clips.asked) if not asked.in_training]
    chosen = new or list(range(len(clips.asked)))
    rows = history.rows
    own: list[int] = []  # places of the real clips among the rows
    if not new:
        wanted = {caption_key(asked.text) for asked in clips.asked}
        own = [place for place, row in enumerate(rows) if caption_key(row.caption) in wanted][:REFERENCE_CLIPS]
    real_clips = list(unseen_real) if new else [training.load(rows[place]) for place in own]
    others = len(rows) if new else len(rows) - 1
    if not real_clips or not others:
        return {"memorisation": None}
    generated = _copies(clips.generated[index] for index in chosen)
    real = _copies(real_clips)
    nearest = torch.full((len(generated) + len(real),), torch.inf)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        copies = _copies(map(training.load, rows[start : start + ROWS_AT_ONCE]))
        distances = clip_distances(torch.cat((generated, real)), copies)
        for index, place in enumerate(own):
            if start <= place < start + len(copies):
                distances[len(generated) + index, place - start] = torch.inf  # from itself
        nearest = torch.minimum(nearest, distances.amin(dim=1))
    of_generated, of_real = nearest[: len(generated)], nearest[len(generated) :]
    if own:
        of_real = of_real[of_real > SAME_CLIP]  # some sets have a clip twice
    if len(of_real) < FEWEST_REAL_CLIPS:
        return {"memorisation": None}
    names = [clips.asked[index].text for index in chosen]
    ones = numpy.ones(len(chosen))
    return {
        "memorisation": bootstrap_ratio(are_copies(of_generated, of_real).numpy(), ones, names, seed),
        "memorisation_chance": Interval(share_by_chance(len(of_real)), None, None),
        "nearest_training_distance": bootstrap_ratio(of_generated.double().numpy(), ones, names, seed),
        "nearest_training_distance_real": Interval(float(of_real.mean()), None, None),
    }


def _copies(clips: Iterable[numpy.ndarray]) -> Tensor:
    return torch.cat([small_copies([clip]) for clip in in_unit_range(clips)])


def caption_records(clips: EvaluationClips[Asked], judged: Judged) -> list[dict[str, object]]:
    """Return one record a caption, in the order of the clips: what these are nearest to."""
    records: list[dict[str, object]] = []
    for one, places in places_of_each(clips.asked).items():
        nearest = [judged.nearest(place) for place in places]
        right = sum(caption_key(found) == caption_key(one.text) for found in nearest)
        records.append(
            {"caption": one.text, "in_training": one.in_training, "retrieved": right / len(places), "nearest": nearest}
        )
    return records
