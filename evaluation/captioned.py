"""Which captions an evaluation asks for where a run has clips of DATA_ROOT, and the real clips that judges see."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy

from common.console import counted
from common.errors import UserError
from common.randomness import derive_seed, numpy_generator
from data.clip_set import ClipSetSplits
from data.clip_splits import asks_for_unknown_words, caption_key, hash_order
from data.composing import ComposedSplits
from data.records import to_pixels
from data.sentences import SPACE
from evaluation.clips import (
    COMPARED_CLIPS,
    FEWEST_REAL_CLIPS,
    REFERENCE_CLIPS,
    REFERENCES_A_CAPTION,
    Asked,
    Labelled,
    Part,
    RealClips,
    Subject,
    TrainingHistory,
    in_unit_range,
    training_history,
)
from measures.retrieval import RETRIEVAL_POOL, another_look, shares_a_frame
from sampling.trained_run import TrainedRun, check_text

CAPTIONS_ASKED = 100  # at most, where the user names none
SENTENCES_A_LENGTH = 24


def captioned_subject(
    run: TrainedRun,
    splits: ClipSetSplits | ComposedSplits,
    texts: Sequence[str],
    file: Path | None,
    part: Part | None,
    samples: int,
    seed: int,
) -> Subject:
    """Return what a run on clips of DATA_ROOT is asked for.

    Args:
        run: that is evaluated.
        splits: its data.
        texts: to ask for; none for `default_captions`.
        file: where the texts come from.
        part: what default captions are of.
        samples: clips of each caption.
        seed: of all choices.

    Raises:
        UserError: no clip shows one of the texts.
    """
    notes: list[str] = []
    chosen = texts
    if not texts:
        drawn, reason = default_captions(splits, part, seed)
        chosen = [caption for caption in drawn if can_be_asked(run, caption)]
        notes += [reason] if reason else []
        if len(chosen) < len(drawn):
            left_out = counted(len(drawn) - len(chosen), "caption is", "captions are")
            notes.append(f"{left_out} not asked for, because the model reads nothing of them.")
        if not chosen:
            raise UserError("DATA_ROOT: the model reads nothing of any caption; name some with --captions")
    beside = [splits.real_clips(caption, samples) for caption in chosen]
    for caption, clips in zip(chosen, beside, strict=True):
        if not clips:
            where = "DATA_ROOT" if file is None else f"--captions {file}"
            raise UserError(
                f"{where}: {caption!r}: no clip of the data set shows it, so nothing can be "
                "compared with it; leave it out, and let generate.py sign it"
            )
    history = training_history(run, splits.training, set(map(caption_key, chosen)), COMPARED_CLIPS)
    more = other_captions(splits, chosen, max(0, RETRIEVAL_POOL - len(chosen)), seed)
    real = real_clips(splits, chosen, more, seed)
    unseen = unseen_clips(splits, REFERENCE_CLIPS, seed)
    queries = counted(len(real.queries), "real clip")
    if real.in_another_look:
        notes.append(
            f"Real ceilings: {queries}, of which {real.in_another_look} in another look (place, size, speed, light, "
            "colours) of a reference clip, or of recordings in common with one: their captions have no others."
        )
    if trained := sum(not splits.has_unseen_clip(each.caption) for each in real.queries):
        notes.append(
            f"Real ceilings: {queries}, of which training showed {trained}, or their signs. The second judge and the "
            "recogniser learned from them and may recognise others less often."
        )
    asked = asked_captions(chosen, history)
    if not unseen and not all(each.in_training for each in asked):
        notes.append("memorisation cannot be told: training had all clips, so nothing says how near is too near.")
    elif len(unseen) < FEWEST_REAL_CLIPS and not all(each.in_training for each in asked):
        notes.append(
            f"memorisation cannot be told: {counted(len(unseen), 'real clip')} do not say how near is too near."
        )
    elif isinstance(splits, ComposedSplits):
        notes.append(
            "memorisation is of sentences as wholes: a model that joins training clips to a new one copies nothing."
        )
    return Subject(
        asked=asked,
        history=history,
        beside=tuple(clips[sample % len(clips)] for clips in beside for sample in range(samples)),
        judged=real,
        unseen=unseen,
        notes=tuple(notes),
    )


def can_be_asked(run: TrainedRun, caption: str) -> bool:
    """Return whether the run can be asked for a caption of its data: the model reads something of it."""
    with suppress(UserError):
        check_text("", caption, run.config, run.tokenizer, run.signs)
        return True
    return False


def default_captions(splits: ClipSetSplits | ComposedSplits, part: Part | None, seed: int) -> tuple[list[str], str]:
    """Return captions to ask for, drawn by the seed, and why it is these.

    `part`: None takes those of held-out clips, unless most of them are signs that no training clip shows; of composed
    sentences, single signs too, which are never held out.
    """
    if isinstance(splits, ComposedSplits):
        captions = _default_sentences(splits, part, seed)
        if part is None and not any(map(splits.is_held_out, captions)):
            reason = "Trained sentences are asked for, because none is held out."
            return _default_sentences(splits, "trained", seed), reason
        return captions, ""
    split, reason = splits.split, ""
    if part == "held_out" and split.is_shared:
        raise UserError("--held-out: the data set was too small to hold any clip out; leave it out")
    if split.is_shared:
        part, reason = "trained", "Trained captions are asked for, because no clip could be held out."
    elif part is None and asks_for_unknown_words(split):
        part, reason = "trained", "Trained captions are asked for, because no model can know the held-out ones."
    clips = split.training if part == "trained" else split.held_out
    distinct = {caption_key(clip.row.caption): clip.row.caption for clip in clips}
    return _drawn(distinct.values(), CAPTIONS_ASKED, seed), reason


def _default_sentences(splits: ComposedSplits, part: Part | None, seed: int) -> list[str]:
    split = splits.split
    signs = [] if part == "held_out" else _drawn(split.signs.names, SENTENCES_A_LENGTH, seed)
    sentences: dict[str, None] = {}
    for length in range(2, split.max_signs + 1):
        generator = numpy_generator(seed, "evaluation_sentences", length)
        for _ in range(SENTENCES_A_LENGTH):
            sentence = split.draw(length, split.signs.names, generator, held_out=part != "trained")
            if sentence is None:  # and it took as many draws to find out as all others take
                break
            sentences[SPACE.join(sentence)] = None
    if not (signs or sentences):
        raise UserError(
            f"--held-out: HELD_OUT_WORD_FRACTION={split.held_out_sentence_fraction} and "
            f"HELD_OUT_BIGRAM_FRACTION={split.held_out_pair_fraction} hold out no sentence of the run; leave it out"
        )
    return [*signs, *sentences]


def _drawn(captions: Iterable[str], most: int, seed: int) -> list[str]:
    """Return so many captions at most, sorted."""
    ordered = sorted(captions)
    chosen = numpy_generator(seed, "evaluation_captions").permutation(len(ordered))[:most]
    return [ordered[index] for index in sorted(chosen.tolist())]


def other_captions(splits: ClipSetSplits | ComposedSplits, asked: Iterable[str], count: int, seed: int) -> list[str]:
    """Return up to so many captions that have real clips and are not asked for: they fill the judges' pools."""
    if count == 0:
        return []
    if isinstance(splits, ComposedSplits):
        more = _default_sentences(splits, None, derive_seed(seed, "other_sentences"))
    else:
        clips = hash_order((*splits.split.held_out, *splits.split.training), seed)
        more = [clip.row.caption for clip in clips]
    known = set(map(caption_key, asked))
    return [text for key, text in {caption_key(text): text for text in more}.items() if key not in known][:count]


def unseen_clips(splits: ClipSetSplits | ComposedSplits, most: int, seed: int) -> list[numpy.ndarray]:
    """Return real clips that training did not show; none where it showed all."""
    if isinstance(splits, ComposedSplits):
        rows = [splits.validation.row(0, index) for index in range(min(most, len(splits.validation)))]
        return [splits.validation.load(row) for row in rows]
    if splits.split.is_shared:
        return []
    clips = hash_order((*splits.split.held_out, *splits.split.test), seed)[:most]
    return [splits.reader.load(clip) for clip in clips]


def asked_captions(captions: Sequence[str], history: TrainingHistory) -> list[Asked]:
    """Return each caption with whether training showed it; a repeated one counts once."""
    shown = set(map(caption_key, history.captions))
    distinct = {caption_key(caption): caption for caption in captions}
    return [Asked(caption, key in shown) for key, caption in distinct.items()]


def real_clips(
    splits: ClipSetSplits | ComposedSplits, asked: Sequence[str], more: Sequence[str], seed: int
) -> RealClips:
    """Return references for each caption that has a real clip, and a query for each that is asked for.

    Where a caption has several clips, the first, which is a held-out one where there is any, is the query, and those
    that have no recording in common with it are references. Where there are none, it is shown in another look.
    """
    references: list[Labelled] = []
    queries: list[Labelled] = []
    looks = 0
    for caption in asked:
        query, *clips = splits.real_clips(caption, REFERENCES_A_CAPTION + 1)
        apart = [clip for clip in clips if not shares_a_frame(query, [clip])]
        if not apart:
            (clip,) = in_unit_range([query])
            look_seed = derive_seed(seed, f"evaluation_look/{caption_key(caption)}")
            apart, query = clips or [query], to_pixels(another_look(clip, look_seed))
            looks += 1
        queries.append(Labelled(caption, query))
        references += [Labelled(caption, clip) for clip in apart]
    for caption in more:
        references += [Labelled(caption, clip) for clip in splits.real_clips(caption, REFERENCES_A_CAPTION)]
    return RealClips(tuple(references), tuple(queries), looks)
