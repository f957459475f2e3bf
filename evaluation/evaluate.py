"""Evaluation of a trained run: does it show what it is told, also what it has never seen, and as real clips do?"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from checkpoints.run_folder import SPLIT_FILE, listed_clips, read_split
from common.console import counted
from common.errors import UserError
from common.files import check_writable, named_if_unwritable, write_atomically
from common.limits import READS_REAL_CLIPS
from common.video_encoding import encode_png
from config import Config
from data.build import build_data
from data.captions import normalise_caption
from data.clip_set import ClipSetSplits
from data.composing import ComposedSplits
from data.fingerspelling import FingerspellingSplits
from data.fingerspelling.words import Word
from data.records import DataSplits
from data.sentences import SPACE
from evaluation import spelled
from evaluation.captioned import captioned_subject
from evaluation.clips import (
    Asked,
    EvaluationClips,
    Figures,
    Part,
    Subject,
    figures_as_json,
    make_clips,
    make_sensitivity_clips,
    read_captions,
)
from evaluation.metrics import NamedMetric, metric_figures, real_ceilings
from evaluation.report import (
    Judged,
    agreement_figures,
    caption_records,
    frame_figures,
    judge,
    likeness_figures,
    look_figures,
    memorisation_figures,
    moving_figures,
    retrieval_figures,
)
from evaluation.verdict import verdicts
from measures.fitting import SmallClips, progress, small_clips
from measures.recogniser_signs import sign_clips
from measures.recogniser_training import build_recogniser, spelled_words, training_device
from measures.text_use import sensitivity_interval
from measures.text_video import TextVideoJudge
from measures.text_video_training import CaptionedData, StoredCaptions, open_judge, spelled_captions
from sampling.sampler import contact_sheet
from sampling.trained_run import SamplingRequest, TrainedRun, as_captions, check_text, open_trained_run

SHEET_CAPTIONS = 16
SENSITIVITY_CAPTIONS = 8
NOTES = (
    "Every clip counts; none was chosen.",
    "A caption was in training if one of the clips of the run's steps showed it, however few these steps were.",
    "Intervals are 95 % and come from a bootstrap over captions; null where there are too few. Where all n captions "
    "give the same figure, such as a rate of 0, the interval has no width; up to 3 / n cannot be ruled out then.",
    "memorisation is about memorisation_chance where nothing is copied; blurred clips are near to everything and raise "
    "it too. Where all captions were in training, real clips of them are compared with the other training clips.",
)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(SamplingRequest):
    """What `python -m evaluation` was asked for."""

    captions: Path | None  # one a line; None for captions that the evaluation chooses
    part: Part | None  # of which it chooses, where a run has clips of DATA_ROOT
    samples: int  # clips of each caption
    output: Path
    contact_sheet: Path | None
    metrics: Sequence[NamedMetric]  # of others, besides our own
    seed: int

    @property
    def sheet(self) -> Path:
        """Where the contact sheet goes."""
        return self.output.with_suffix(".png") if self.contact_sheet is None else self.contact_sheet


def evaluate(request: EvaluationRequest) -> dict[str, object]:
    """Generate, judge, compare, and write the report and the contact sheet; return the report.

    Raises:
        UserError: no usable checkpoint, a caption the run cannot take, or a place that cannot be written.
    """
    run = open_trained_run(request)
    texts = _checked_captions(request, run)
    _prepare_output(request)
    splits = build_data(run.config, run.tokenizer.symbols)
    notes = check_unchanged(run, splits)
    if isinstance(splits, FingerspellingSplits):
        subject = spelled.spelled_subject(run, splits, texts, request.language, request.samples, request.seed)
    else:
        assert isinstance(splits, ClipSetSplits | ComposedSplits)
        subject = captioned_subject(run, splits, texts, request.captions, request.part, request.samples, request.seed)
    # Of real clips first, so that a metric that fails does so before minutes are spent on generating.
    rate = run.config.FRAMES_PER_SECOND
    ceilings = real_ceilings(request.metrics, subject.judged, rate)
    generated = make_clips(run, [each.text for each in subject.asked], request.samples, request.seed)
    of_clips = tuple(each for each in subject.asked for _ in range(request.samples))
    clips = EvaluationClips(of_clips, generated, subject.beside)
    judged = judge([each.text for each in of_clips], generated, subject.judged)
    everywhere = range(len(of_clips))
    # Of what people bring, for both that learn from it.
    training = None if isinstance(splits, FingerspellingSplits) else small_clips(splits.training, run.config.SEED)
    figures = {
        **retrieval_figures(judged, everywhere, request.seed),
        **agreement_figures(_text_video_judge(run, splits, training), judged, generated, subject.judged, request.seed),
        **likeness_figures(judged, request.seed),
        **moving_figures(clips, subject.judged, request.seed),
        **frame_figures(clips, subject.judged, request.seed),
        **look_figures(clips, request.seed),
        **_sensitivity(run, subject.asked, request.seed),
        **memorisation_figures(clips, subject.history, splits.training, subject.unseen, request.seed),
    }
    report: dict[str, object] = {"run": str(run.folder), "step": run.step}
    if isinstance(splits, FingerspellingSplits):
        report |= _spelled_report(request, run, splits, clips, judged, figures)
    else:
        assert training is not None
        report |= _captioned_report(request, run, splits, training, clips, judged, figures)
    report["metrics"], failures = metric_figures(request.metrics, ceilings, clips.labelled, subject.judged, rate)
    report |= _conditions(request, run, subject, [*failures, *notes])
    report["verdict"] = verdicts(figures, len(subject.asked))
    report["captions"] = caption_records(clips, judged)
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with named_if_unwritable(request.output):
        write_atomically(request.output, text.encode())
    with named_if_unwritable(request.sheet):
        write_atomically(request.sheet, encode_png(_sheet(subject.asked, clips, request.samples)))
    return report


def _captioned_report(
    request: EvaluationRequest,
    run: TrainedRun,
    splits: DataSplits,
    training: SmallClips,
    clips: EvaluationClips[Asked],
    judged: Judged,
    figures: Figures,
) -> dict[str, object]:
    """Return the figures of all captions and of each group, with what a recogniser of signs reads, if it can."""
    seed, config = request.seed, _with_recogniser(run.config)
    signs = splits if isinstance(splits, ComposedSplits) else None
    known = sign_clips(
        training,
        config.SEED,
        None if signs is None else signs.signs_of,
        None if signs is None else signs.training.edges,
        (lambda word: False) if signs is None else signs.split.is_held_out,
    )
    readable: dict[Asked, Word] = {}
    reason = known if isinstance(known, str) else ""
    if not isinstance(known, str):
        words = {each: known.word_of(each.text) for each in dict.fromkeys(clips.asked)}
        readable = {each: word for each, word in words.items() if set(word) <= set(known.symbols)}
    places = [place for place, each in enumerate(clips.asked) if each in readable]
    asked = [readable[clips.asked[place]] for place in places]
    readings = None
    if not isinstance(known, str) and places:
        recogniser = build_recogniser(config, known, run.compute.device)
        readings = spelled.read_clips(recogniser, clips.of(places), asked)

    def read(members: Iterable[Asked]) -> Figures:
        chosen = set(members)
        own = [index for index, place in enumerate(places) if clips.asked[place] in chosen]
        if readings is None or not own:
            return {}
        found = dict(spelled.spelling_figures([asked[index] for index in own], readings.of(own), seed))
        return {"word_error_rate": found.pop("letter_error_rate"), **found}

    groups = {}
    for name in dict.fromkeys(each.group for each in clips.asked):
        members = [each for each in dict.fromkeys(clips.asked) if each.group == name]
        groups[name] = _group(members, clips, judged, read(members), seed)
    of_all = read(clips.asked)
    ceiling = of_all.get("real_ceiling")
    if ceiling is not None and ceiling.value > READS_REAL_CLIPS:
        reason = (
            f"The recogniser misreads {ceiling.value:.0%} of the signs in real clips, so that word_error_rate says "
            "little: train with a higher RECOGNISER_STEPS."
        )
    return {
        **figures_as_json({**of_all, **figures}),
        "groups": groups,
        "about_word_error_rate": reason or None,
        "signs_read": []
        if readings is None
        else spelled.sign_records([clips.asked[place] for place in places], asked, readings),
    }


def _spelled_report(
    request: EvaluationRequest,
    run: TrainedRun,
    splits: FingerspellingSplits,
    every_clip: EvaluationClips[Asked],
    judged: Judged,
    figures: Figures,
) -> dict[str, object]:
    """Return what a run that spells has besides: what a recogniser reads."""
    seed = request.seed
    of_clips = tuple(word for word in every_clip.asked if isinstance(word, spelled.AskedWord))
    clips = EvaluationClips(of_clips, every_clip.generated, every_clip.real)
    words_read = spelled_words(splits, run.config.SEED)
    recogniser = build_recogniser(_with_recogniser(run.config), words_read, run.compute.device)
    readings = spelled.read_clips(recogniser, clips, [word.symbols for word in clips.asked])
    words = list(dict.fromkeys(clips.asked))
    figures = {**spelled.spelling_figures([word.symbols for word in clips.asked], readings, seed), **figures}

    def group(members: Sequence[spelled.AskedWord], more: Figures) -> dict[str, object]:
        chosen = set(members)
        places = [place for place, word in enumerate(clips.asked) if word in chosen]
        symbols = [clips.asked[place].symbols for place in places]
        spelling = spelled.spelling_figures(symbols, readings.of(places), seed)
        return {"words": len(members), **_group(members, clips, judged, {**spelling, **more}, seed)}

    groups = {}
    for name in dict.fromkeys(word.group for word in words):
        members = [word for word in words if word.group == name]
        groups[name] = group(members, _sensitivity(run, members, seed))
    languages = {}
    if len(splits.renderer.alphabets.of_languages) > 1:
        figures |= spelled.language_figures(clips, splits.renderer, seed)
        for code in dict.fromkeys(splits.language(word.symbols) for word in words):
            languages[code] = group([word for word in words if splits.language(word.symbols) == code], {})
    return {
        **figures_as_json(figures),
        "groups": groups,
        **({"languages": languages} if languages else {}),
        "samples_per_word": request.samples,
        "letters": spelled.letter_records(clips.asked, readings),
        "top_confusions": spelled.confusion_records(clips.asked, readings),
        "words": spelled.word_records(clips.asked, readings),
    }


def _group(
    members: Sequence[Asked], clips: EvaluationClips[Asked], judged: Judged, more: Figures, seed: int
) -> dict[str, object]:
    """Return the figures of some of the captions."""
    chosen = set(members)
    places = [place for place, asked in enumerate(clips.asked) if asked in chosen]
    figures = {**more, **retrieval_figures(judged, places, seed)}
    return {"captions": len(members), "clips": len(places), **figures_as_json(figures)}


def _conditions(
    request: EvaluationRequest, run: TrainedRun, subject: Subject, more_notes: Sequence[str]
) -> dict[str, object]:
    """Return how the figures came about."""
    notes = [*NOTES, *subject.notes, *more_notes]
    if run.samples_seen != subject.history.clips:
        notes.append(
            f"The run has seen {counted(run.samples_seen, 'clip')}, {subject.history.clips} by its last BATCH_SIZE: it "
            "was resumed with another one. Which captions training showed is therefore a guess; held-out ones are "
            "certain."
        )
    config = run.config
    return {
        "samples_per_caption": request.samples,
        "training_clips_compared": len(subject.history.rows),
        "sampler": {
            "name": config.SAMPLER,
            "steps": config.SAMPLING_STEPS,
            "guidance_scale": config.GUIDANCE_SCALE,
            "guidance_rescale": config.GUIDANCE_RESCALE,
            "guidance_interval": list(config.GUIDANCE_INTERVAL),
            "weights": "model" if request.raw_weights else "ema",
            "number_format": run.compute.precision,
        },
        "seeds": {"run": config.SEED, "evaluation": request.seed, "recogniser": config.SEED},
        "notes": notes,
    }


def _sensitivity(run: TrainedRun, asked: Sequence[Asked], seed: int) -> Figures:
    """Generate some of the captions again, from noises that they share: do captions differ more than noises?"""
    count = min(len(asked), SENSITIVITY_CAPTIONS)
    if count < 2 or run.config.SAMPLER == "ddpm":  # which adds noise of its own to every clip
        return {"text_sensitivity": None}
    picked = [asked[index * len(asked) // count].text for index in range(count)]
    return {"text_sensitivity": sensitivity_interval(make_sensitivity_clips(run, picked, seed), seed)}


def _checked_captions(request: EvaluationRequest, run: TrainedRun) -> list[str]:
    """Return the user's captions, or none where the user names none."""
    is_spelled = run.config.DATA_ROOT is None
    if request.part is not None and (is_spelled or request.captions is not None):
        option = f"--{request.part.replace('_', '-')}"
        what = "the run spells words; it is for clips of DATA_ROOT" if is_spelled else "--captions says what is asked"
        raise UserError(f"{option}: {what}; leave it out")

    def checked(where: str, text: str) -> str:
        (caption,) = as_captions([text], request.language, run.config, run.tokenizer)
        check_text(where, caption, run.config, run.tokenizer, run.signs)
        return SPACE.join(run.signs.segment(caption)) if run.signs is not None else normalise_caption(caption)

    as_captions((), request.language, run.config, run.tokenizer)
    return [] if request.captions is None else read_captions(request.captions, checked)


def check_unchanged(run: TrainedRun, splits: DataSplits) -> list[str]:
    """Return what is to be noted of the data since the training.

    Raises:
        UserError: the training clips are not those that the run was trained on: no figure would be right.
    """
    path = run.folder / SPLIT_FILE
    split = read_split(path)
    then, now = listed_clips(split, "training"), listed_clips(splits.summary.report, "training")
    if then and then != now:
        changed = sorted({str(clip[0]) for clip in then ^ now})
        clips = counted(len(changed), "training clip is", "training clips are")
        raise UserError(
            f"DATA_ROOT={str(run.config.DATA_ROOT)!r}: {clips} new, gone or changed since {path} was written, such as "
            f"{changed[0]}, so that nothing says what training showed. Put the data back as they were."
        )
    if split.get("formerly_trained"):
        return [
            "The run was resumed with other training clips. Which captions training showed is therefore a guess; "
            "held-out ones are certain."
        ]
    return []


def _text_video_judge(run: TrainedRun, splits: DataSplits, training: SmallClips | None) -> TextVideoJudge:
    """Return the judge that learns from real training clips; train it and report that where none is cached."""
    config = _with_recogniser(run.config)
    data: CaptionedData
    if isinstance(splits, FingerspellingSplits):
        data = spelled_captions(splits, config.SEED)
    else:
        assert training is not None
        data = StoredCaptions(training, config.SEED)
    report = progress(config.RECOGNISER_STEPS, "judge", "Training the judge of text and video")
    device = training_device(config, run.compute.device)
    return open_judge(
        data, config.RECOGNISER_STEPS, config.CACHE_DIR, report, device=device, num_workers=config.NUM_WORKERS
    )


def _with_recogniser(config: Config) -> Config:
    """Train what judges clips even where the run was told to do without."""
    if config.RECOGNISER_STEPS > 0:
        return config
    return config.model_copy(update={"RECOGNISER_STEPS": Config().RECOGNISER_STEPS})


def _sheet(asked: Sequence[Asked], clips: EvaluationClips[Asked], samples: int) -> numpy.ndarray:
    """Draw the first clip of each caption, or of captions spread over the list, below a real one."""
    count = min(len(asked), SHEET_CAPTIONS)
    picked = [index * len(asked) // count for index in range(count)]
    labels = [asked[index].text + ("" if asked[index].in_training else "\n(not trained)") for index in picked]
    places = [index * samples for index in picked]
    return contact_sheet(labels, [clips.generated[place] for place in places], [clips.real[place] for place in places])


def _prepare_output(request: EvaluationRequest) -> None:
    """Fail before the work, not after it, if one of the two files cannot be written."""
    sheet = request.sheet
    if sheet.suffix.lower() != ".png":
        raise UserError(f"--contact-sheet {sheet}: a contact sheet is a PNG; name a file that ends in .png")
    if request.captions is not None:
        for option, path in (("--output", request.output), ("--contact-sheet", sheet)):
            if path.exists() and request.captions.exists() and path.samefile(request.captions):
                raise UserError(f"{option} {path}: that is the file of the captions; name another one")
    if sheet.absolute() == request.output.absolute():
        raise UserError(f"--output {request.output}: the contact sheet goes there; name a file such as report.json")
    check_writable("--output", request.output)
    check_writable("--contact-sheet", sheet)
