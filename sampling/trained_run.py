"""A trained run, opened to sample from it: what generate.py, the evaluation and a benchmark share."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from checkpoints.checkpoint import Checkpoint, WeightsName, config_of_checkpoint, find_checkpoint, load_weights
from common.errors import UserError
from common.field_types import LARGEST_GUIDANCE_SCALE
from common.settings import config_as_json, config_from_json
from compute.device import ComputeDevice, DeviceName, choose_device, precision_elsewhere
from config import Config
from diffusion.samplers import SamplerName
from models.build import build_model, build_schedule, build_tokenizer
from models.text_to_video import TextToVideoModel
from models.tokens import Tokenizer, says_nothing, shown_symbols
from sampling.sampler import ClipSampler, build_sampler

MAKE_A_RUN = "train one with `python main.py --experiment-name NAME`, then give `--run logs/NAME`"


@dataclass(frozen=True)
class SamplingOptions:
    """What may differ from the run's own sampling; None means the run's own."""

    steps: int | None = None
    guidance_scale: float | None = None
    sampler: str | None = None


@dataclass(frozen=True)
class TrainedRun:
    """The weights of one of a run's checkpoints, ready to sample."""

    folder: Path
    step: int  # of the checkpoint
    samples_seen: int  # clips that it was trained on, repeats included
    clips_per_step: int  # of all processes together
    config: Config  # the run's own but for the options
    model: TextToVideoModel  # in evaluation mode
    tokenizer: Tokenizer
    sampler: ClipSampler
    compute: ComputeDevice


def open_trained_run(
    folder: Path,
    device: DeviceName,
    options: SamplingOptions | None = None,
    weights: WeightsName = "ema",
    which: str = "newest",
) -> TrainedRun:
    """Load a checkpoint of a run.

    Args:
        folder: the run's.
        device: to sample on.
        options: what differs from the run's own sampling.
        weights: the averaged or the last ones.
        which: "newest", "best" or a step; see `checkpoint.find_checkpoint`.

    Raises:
        UserError: no such run, no usable checkpoint, or an option that cannot be.
    """
    checkpoint = _find(folder, which)
    config = _with_options(config_of_checkpoint(checkpoint), options or SamplingOptions())
    tokenizer = build_tokenizer(config, checkpoint.state.symbols)
    compute = choose_device(device, precision_elsewhere(config.MIXED_PRECISION))
    model = build_model(config, tokenizer, compute.device)
    load_weights(model, checkpoint, weights)
    return TrainedRun(
        folder=folder,
        step=checkpoint.state.step,
        samples_seen=checkpoint.state.samples_seen,
        clips_per_step=config.BATCH_SIZE * config.GRADIENT_ACCUMULATION_STEPS * checkpoint.state.world_size,
        config=config,
        model=model.eval(),
        tokenizer=tokenizer,
        sampler=build_sampler(config, build_schedule(config, compute.device), tokenizer, compute),
        compute=compute,
    )


def check_text(name: str, text: str, config: Config, tokenizer: Tokenizer) -> None:
    """Check that the run can be asked for a text.

    Args:
        name: where the text stands, for the message.

    Raises:
        UserError: the text is empty, too long, or has a symbol that the run does not know.
    """
    tokens, dropped = tokenizer.encode(text)
    # Finger-spelling shows each letter; of a sentence, training leaves out what it does not know, and says so.
    if dropped and (config.DATA_ROOT is None or says_nothing(text, dropped)):
        known = shown_symbols(tokenizer.symbols) or "what its text encoder knows"
        raise UserError(f"{name} {text!r}: the run knows no {dropped[0]!r}; it was trained on: {known}")
    if not tokens:
        raise UserError(f"{name} {text!r}: there is nothing to sign")
    if config.DATA_ROOT is None and len(tokens) > config.NUM_FRAMES:
        raise UserError(f"{name} {text!r}: {len(tokens)} letters are too many for a clip of {config.NUM_FRAMES} frames")
    if len(tokens) > tokenizer.max_length:
        raise UserError(
            f"{name} {text!r}: {len(tokens)} symbols are more than MAX_CAPTION_LENGTH, {tokenizer.max_length}"
        )


def _find(run: Path, which: str) -> Checkpoint:
    if not run.is_dir():
        raise UserError(f"--run {run}: there is no such folder; runs are folders in LOG_DIR (logs by default)")
    checkpoint = find_checkpoint(run / "checkpoints", which)
    if checkpoint is None:
        raise UserError(f"--run {run}: no checkpoint in {run / 'checkpoints'} yet; {MAKE_A_RUN}")
    return checkpoint


def _with_options(config: Config, options: SamplingOptions) -> Config:
    changes: dict[str, object] = {}
    if options.steps is not None:
        if not 1 <= options.steps <= config.NUM_TRAIN_TIMESTEPS:
            raise UserError(f"--steps {options.steps}: must be between 1 and {config.NUM_TRAIN_TIMESTEPS}")
        changes["SAMPLING_STEPS"] = options.steps
    if options.guidance_scale is not None:
        if not 0 <= options.guidance_scale <= LARGEST_GUIDANCE_SCALE:
            raise UserError(
                f"--guidance-scale {options.guidance_scale:g}: must be between 0 and {LARGEST_GUIDANCE_SCALE:g}"
            )
        changes["GUIDANCE_SCALE"] = options.guidance_scale
    if options.sampler is not None:
        if options.sampler not in get_args(SamplerName):
            raise UserError(f"--sampler {options.sampler}: choose from {', '.join(get_args(SamplerName))}")
        changes["SAMPLER"] = options.sampler
    return config_from_json(Config, config_as_json(config) | changes)  # checks them against each other too
