"""Evaluation of a trained run: does it spell what it is told, and words that it has never seen?"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from common.console import counted
from common.errors import UserError
from common.files import check_writable, named_if_unwritable, write_atomically
from common.randomness import derive_seed, numpy_generator
from common.video_encoding import encode_png
from config import Config
from data.build import build_data
from data.fingerspelling import FingerspellingSplits
from evaluation.clips import (
    AskedWord,
    EvaluationClips,
    TrainingHistory,
    asked_words,
    default_words,
    make_clips,
    make_sensitivity_clips,
    read_words,
    training_history,
)
from evaluation.report import (
    Figures,
    Readings,
    confusion_records,
    figures_as_json,
    language_figures,
    letter_records,
    look_figures,
    memorisation_figures,
    read_clips,
    spelling_figures,
    word_records,
)
from measures.recogniser_training import build_recogniser
from measures.text_use import sensitivity_interval
from sampling.sampler import contact_sheet
from sampling.trained_run import SamplingRequest, TrainedRun, as_captions, check_text, open_trained_run

SHEET_WORDS = 16
SENSITIVITY_WORDS = 8
COMPARED_CLIPS = 8192  # of the training, for memorisation
REFERENCE_CLIPS = 256  # real ones that training did not show
NOTES = (
    "Every clip counts; none was chosen.",
    "Real clips come from one recording of each letter: between them only size, place, colour, stroke and timing vary. "
    "The real ceiling says how well the recogniser copes with that, not with other signers.",
    "Intervals are 95 % and come from a bootstrap over words; null where there are too few. Where all n words give the "
    "same figure, such as a rate of 0, the interval has no width; up to 3 / n cannot be ruled out then.",
    "memorisation is about 0.05 where nothing is copied; blurred clips are near to everything and raise it too.",
)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(SamplingRequest):
    """What `python -m evaluation` was asked for."""

    words: Path | None  # one a line; None for words that the evaluation chooses
    samples_per_word: int
    output: Path
    contact_sheet: Path | None
    seed: int

    @property
    def sheet(self) -> Path:
        """Where the contact sheet goes."""
        return self.output.with_suffix(".png") if self.contact_sheet is None else self.contact_sheet


def evaluate(request: EvaluationRequest) -> dict[str, object]:
    """Generate, read, compare, and write the report and the contact sheet; return the report.

    Raises:
        UserError: no usable checkpoint, a word the run cannot take, or a place that cannot be written.
    """
    run = open_trained_run(request)
    texts = _checked_words(request, run)
    _prepare_output(request)
    splits = build_data(run.config, run.tokenizer.symbols)
    assert isinstance(splits, FingerspellingSplits)
    asked = texts or default_words(splits.split, request.language, request.seed)
    wanted = list(map(splits.split.alphabets.segment, asked))
    history = training_history(run, splits, wanted, COMPARED_CLIPS)
    words = asked_words(wanted, history, splits.split)
    recogniser = build_recogniser(_with_recogniser(run.config), splits, run.compute.device)
    clips = make_clips(run, splits, words, request.samples_per_word, request.seed)
    readings = read_clips(recogniser, clips)
    figures = {
        **spelling_figures(clips.words, readings, request.seed),
        **look_figures(clips, request.seed),
        **_sensitivity(run, words, request.seed),
        **memorisation_figures(clips, history, splits.training, _unseen_real(splits, request.seed), request.seed),
    }
    groups: dict[str, dict[str, object]] = {}
    for group in dict.fromkeys(word.group for word in words):
        members = [word for word in words if word.group == group]
        groups[group] = _group(members, clips, readings, request.seed, _sensitivity(run, members, request.seed))
    languages: dict[str, dict[str, object]] = {}
    if len(splits.renderer.alphabets.of_languages) > 1:
        figures |= language_figures(clips, splits.renderer, request.seed)
        for code in dict.fromkeys(map(splits.language, wanted)):
            members = [word for word in words if splits.language(word.symbols) == code]
            languages[code] = _group(members, clips, readings, request.seed, {})
    report = {
        "run": str(run.folder),
        "step": run.step,
        **figures_as_json(figures),
        "groups": groups,
        **({"languages": languages} if languages else {}),
        **_conditions(request, run, history),
        "letters": letter_records(clips.words, readings),
        "top_confusions": confusion_records(clips.words, readings),
        "words": word_records(clips.words, readings),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with named_if_unwritable(request.output):
        write_atomically(request.output, text.encode())
    with named_if_unwritable(request.sheet):
        write_atomically(request.sheet, encode_png(_sheet(words, clips, request.samples_per_word)))
    return report


def _group(
    members: Sequence[AskedWord], clips: EvaluationClips, readings: Readings, seed: int, more: Figures
) -> dict[str, object]:
    """Return how some of the words are spelled."""
    chosen = set(members)
    places = [place for place, word in enumerate(clips.words) if word in chosen]
    figures = spelling_figures([clips.words[place] for place in places], readings.of(places), seed)
    return {"words": len(members), "clips": len(places), **figures_as_json({**figures, **more})}


def _conditions(request: EvaluationRequest, run: TrainedRun, history: TrainingHistory) -> dict[str, object]:
    """Return how the figures came about."""
    notes = list(NOTES)
    if run.samples_seen != history.clips:
        notes.append(
            f"The run has seen {counted(run.samples_seen, 'clip')}, {history.clips} by its last BATCH_SIZE: it was "
            "resumed with another one. Which words training showed is therefore a guess; held-out words are certain."
        )
    config = run.config
    return {
        "samples_per_word": request.samples_per_word,
        "training_clips_compared": len(history.rows),
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


def _sensitivity(run: TrainedRun, words: Sequence[AskedWord], seed: int) -> Figures:
    """Generate some of the words again, from noises that they share: do words differ more than noises?"""
    count = min(len(words), SENSITIVITY_WORDS)
    if count < 2 or run.config.SAMPLER == "ddpm":  # which adds noise of its own to every clip
        return {"text_sensitivity": None}
    picked = [words[index * len(words) // count] for index in range(count)]
    return {"text_sensitivity": sensitivity_interval(make_sensitivity_clips(run, picked, seed), seed)}


def _unseen_real(splits: FingerspellingSplits, seed: int) -> list[numpy.ndarray]:
    """Return real clips of held-out words; of any words where none are held out."""
    split, generator = splits.split, numpy_generator(seed, "evaluation_reference")
    draw = split.draw_held_out_word if split.holds_words_out else split.draw_training_word
    return [
        splits.renderer.render_look(draw(generator), derive_seed(seed, "evaluation_reference_style", index))
        for index in range(REFERENCE_CLIPS)
    ]


def _checked_words(request: EvaluationRequest, run: TrainedRun) -> list[str]:
    """Return the user's words as captions, or none where the user names none."""
    check_is_spelled(run.folder, run.config)

    def checked(where: str, text: str) -> str:
        (caption,) = as_captions([text], request.language, run.config, run.tokenizer)
        check_text(where, caption, run.config, run.tokenizer, run.signs)
        return caption

    as_captions((), request.language, run.config, run.tokenizer)
    return [] if request.words is None else read_words(request.words, checked)


def check_is_spelled(run: Path, config: Config) -> None:
    """Raise a UserError if the run was trained on other clips than the embedded ones."""
    if config.DATA_ROOT is not None:
        raise UserError(
            f"--run {run}: it was trained on clips of DATA_ROOT, and only the embedded finger-spelling can be read: "
            "watch its 02_Loss_Components/Validation/Text_Gap_Shuffled (Trained_Text_Gap_Shuffled where there is one) "
            "and 12_Generated_Samples/Text_Sensitivity instead"
        )


def _with_recogniser(config: Config) -> Config:
    """Train a recogniser even where the run was told to do without one."""
    if config.RECOGNISER_STEPS > 0:
        return config
    return config.model_copy(update={"RECOGNISER_STEPS": Config().RECOGNISER_STEPS})


def _sheet(words: Sequence[AskedWord], clips: EvaluationClips, samples_per_word: int) -> numpy.ndarray:
    """Draw the first clip of each word, or of words spread over the list, below a real one."""
    count = min(len(words), SHEET_WORDS)
    picked = [index * len(words) // count for index in range(count)]
    labels = [words[index].text + ("" if words[index].in_training else "\n(not trained)") for index in picked]
    places = [index * samples_per_word for index in picked]
    return contact_sheet(labels, [clips.generated[place] for place in places], [clips.real[place] for place in places])


def _prepare_output(request: EvaluationRequest) -> None:
    """Fail before the work, not after it, if one of the two files cannot be written."""
    sheet = request.sheet
    if sheet.suffix.lower() != ".png":
        raise UserError(f"--contact-sheet {sheet}: a contact sheet is a PNG; name a file that ends in .png")
    if sheet.absolute() == request.output.absolute():
        raise UserError(f"--output {request.output}: the contact sheet goes there; name a file such as report.json")
    check_writable("--output", request.output)
    check_writable("--contact-sheet", sheet)
