"""A trained run, opened to sample from it: what generate.py, the evaluation and a benchmark share."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from checkpoints.checkpoint import config_of_checkpoint, find_checkpoint, load_weights
from checkpoints.run_folder import CHECKPOINTS, MAKE_A_RUN, SPLIT_FILE, find_run
from common.console import counted
from common.errors import UserError
from common.field_types import LARGEST_GUIDANCE_SCALE, MOST_LETTERS, MOST_SIGNS, language_mark
from common.settings import config_as_json, config_from_json
from compute.device import ComputeDevice, DeviceName, choose_device, precision_elsewhere
from config import Config
from data.captions import shown_caption
from data.fingerspelling.words import SPACE
from data.sentences import Signs
from diffusion.samplers import SamplerName
from models.build import build_model, build_schedule, build_tokenizer
from models.tokens import Tokenizer, says_nothing, shown_symbols
from models.unet3d import TextToVideoModel
from sampling.sampler import ClipSampler, build_sampler


@dataclass(frozen=True, kw_only=True)
class SamplingRequest:
    """Which weights of which run to sample from, and how; None means the run's own setting."""

    run: Path  # its folder, or one of runs: then the newest one that has a checkpoint
    device: DeviceName
    steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None
    raw_weights: bool = False  # the last weights, not their average
    checkpoint: str = "newest"  # newest, best or a step; see `find_checkpoint`
    language: str | None = None  # code of the sign language, where texts do not begin with it


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for what may differ from the run's own sampling."""
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the run's SAMPLING_STEPS)")
    parser.add_argument("--guidance-scale", type=float, default=None, help="default: the run's GUIDANCE_SCALE")
    parser.add_argument("--sampler", default=None, help="default: the run's SAMPLER")


def add_weights_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for which weights of which run to sample from, and where."""
    logs = Config.model_fields["LOG_DIR"].default
    parser.add_argument(
        "--run",
        type=Path,
        default=logs,
        help=f"folder of a run, or of runs: then the newest one that has a checkpoint (default: {logs})",
    )
    parser.add_argument("--raw-weights", action="store_true", help="use the last weights in place of their average")
    parser.add_argument(
        "--checkpoint", default="newest", help="newest, best (by validation loss) or a step (default: newest)"
    )
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName))
    parser.add_argument("--language", help="code of the sign language, where the run has several: gsg")


@dataclass(frozen=True)
class TrainedRun:
    """The weights of one of a run's checkpoints, ready to sample."""

    folder: Path
    step: int  # of the checkpoint
    samples_seen: int  # clips that it was trained on, repeats included
    frames_per_step: int  # at most, of all processes together
    config: Config  # the run's own, with the options of the request
    model: TextToVideoModel  # in evaluation mode
    tokenizer: Tokenizer
    sampler: ClipSampler
    compute: ComputeDevice
    signs: Signs | None  # that it was trained on, where its sentences are joined from them (COMPOSE_SIGNS)


def open_trained_run(request: SamplingRequest) -> TrainedRun:
    """Load a checkpoint of a run.

    Raises:
        UserError: no such run, no usable checkpoint, an option that cannot be, or a damaged list of signs.
    """
    run = find_run(request.run)
    checkpoint = find_checkpoint(run / CHECKPOINTS, request.checkpoint)
    if checkpoint is None:
        raise UserError(f"--run {run}: no checkpoint in {run / CHECKPOINTS} yet; {MAKE_A_RUN}")
    config = _with_options(config_of_checkpoint(checkpoint), request)
    tokenizer = build_tokenizer(config, checkpoint.state.symbols)
    compute = choose_device(request.device, precision_elsewhere(config.MIXED_PRECISION))
    model = build_model(config, tokenizer, compute.device)
    load_weights(model, checkpoint, "model" if request.raw_weights else "ema")
    return TrainedRun(
        folder=run,
        step=checkpoint.state.step,
        samples_seen=checkpoint.state.samples_seen,
        frames_per_step=config.frames_per_step * checkpoint.state.world_size,
        config=config,
        model=model.eval(),
        tokenizer=tokenizer,
        sampler=build_sampler(config, build_schedule(config, compute.device), tokenizer, compute),
        compute=compute,
        signs=None if config.COMPOSE_SIGNS == 1 else _trained_signs(run),
    )


def _trained_signs(run: Path) -> Signs:
    path = run / SPLIT_FILE
    try:
        return Signs({str(key): str(sign) for key, sign in json.loads(path.read_text("utf-8"))["signs"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}): it names the signs of the run. Restore it.") from error


def signed_languages(tokenizer: Tokenizer) -> list[str]:
    """Return the codes with which texts begin, where a run signs several languages; else nothing."""
    return [mark[:-1] for mark in dict.fromkeys(map(language_mark, tokenizer.symbols)) if mark]


def as_captions(texts: Sequence[str], language: str | None, config: Config, tokenizer: Tokenizer) -> list[str]:
    """Return texts as the run's captions say them: with the code of their sign language, where it has several.

    Raises:
        UserError: the run does not sign the language, or its captions do not say which one they mean.
    """
    several = signed_languages(tokenizer)
    if language is None:
        return list(texts)
    if config.DATA_ROOT is not None:
        raise UserError(f"--language {language}: it is for finger-spelling, and the run has clips of DATA_ROOT")
    if language not in (several or config.SIGNED_LANGUAGE):
        known = ", ".join(several or config.SIGNED_LANGUAGE)
        raise UserError(f"--language {language}: the run does not sign it; it signs: {known}")
    for text in texts:
        if text.partition(SPACE)[0] in several and SPACE in text:
            raise UserError(f"--language {language}: {shown_caption(text)} names a language itself; leave out one")
    return [f"{language}{SPACE}{text}" if several else text for text in texts]


def check_text(name: str, text: str, config: Config, tokenizer: Tokenizer, signs: Signs | None) -> None:
    """Check that the run can be asked for a text.

    `name`: where the text comes from, for the message. `signs`: that the run knows, if its sentences are joined.

    Raises:
        UserError: the text is empty, too long, or has a symbol or a sign that the run does not know.
    """
    tokens, dropped = tokenizer.encode(text)
    shown = f"{name} {shown_caption(text)}"
    if not text.strip() or not (tokens or dropped):
        raise UserError(f"{shown}: there is nothing to sign")
    several = signed_languages(tokenizer)
    if several and text.partition(SPACE)[0] not in several:
        raise UserError(f"{shown}: the run signs several languages; begin with the code of one: {', '.join(several)}")
    # Finger-spelling shows each letter. Training leaves out what it does not know of a sentence, and reports it.
    if dropped and (config.DATA_ROOT is None or says_nothing(text, dropped)):
        mark = f"{text.partition(SPACE)[0]}:" if several else ""
        own = [symbol.removeprefix(mark) for symbol in tokenizer.symbols if language_mark(symbol) == mark]
        known = shown_symbols(own) or "what its text encoder knows"
        raise UserError(f"{shown}: the run knows no {dropped[0]!r}; it knows: {known}")
    if config.DATA_ROOT is None:
        if text != SPACE.join(text.split()):
            raise UserError(f"{shown}: one space is between two words, and none before and after them")
        letters = len(tokens) - text.count(SPACE) + bool(several)  # the space after the language is no token
        most = MOST_LETTERS if config.CLIP_TIMING == "natural" else min(MOST_LETTERS, config.MAX_FRAMES)
        if letters > most:
            raise UserError(f"{shown}: {letters} letters are too many; it can have {most}")
    if signs is not None:
        try:
            count = len(signs.segment(text))
        except UserError as error:
            raise UserError(f"{name} {error}") from error
        if count > MOST_SIGNS:
            raise UserError(f"{shown}: {count} signs are too many; it can have {MOST_SIGNS}")
    if len(tokens) > tokenizer.max_length:
        raise UserError(
            f"{shown}: it has {counted(len(tokens), 'symbol')}, and the run reads {tokenizer.max_length} "
            "(MAX_CAPTION_LENGTH); shorten it"
        )


def _with_options(config: Config, request: SamplingRequest) -> Config:
    changes: dict[str, object] = {}
    if request.steps is not None:
        if not 1 <= request.steps <= config.NUM_TRAIN_TIMESTEPS:
            raise UserError(f"--steps {request.steps}: must be between 1 and {config.NUM_TRAIN_TIMESTEPS}")
        changes["SAMPLING_STEPS"] = request.steps
    if request.guidance_scale is not None:
        if not 0 <= request.guidance_scale <= LARGEST_GUIDANCE_SCALE:
            raise UserError(
                f"--guidance-scale {request.guidance_scale:g}: must be between 0 and {LARGEST_GUIDANCE_SCALE:g}"
            )
        changes["GUIDANCE_SCALE"] = request.guidance_scale
    if request.sampler is not None:
        if request.sampler not in get_args(SamplerName):
            raise UserError(f"--sampler {request.sampler}: choose from {', '.join(get_args(SamplerName))}")
        changes["SAMPLER"] = request.sampler
    return config_from_json(Config, config_as_json(config) | changes)  # checks them against each other too
