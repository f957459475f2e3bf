"""Generation from a finished or running run: checkpoint and texts in, video files out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy
import torch

from common.errors import UserError
from common.files import write_atomically
from common.settings import config_from_json
from common.video_encoding import encode_gif, encode_mp4
from config import Config
from diffusion.samplers import SamplerName
from models.text_encoder import CharacterTokenizer
from training.build_model import build_model, build_sampler, build_schedule, build_tokenizer
from training.checkpoint import Checkpoint, load_newest
from training.device import DeviceName, choose_device
from training.sampling import to_pixels


@dataclass(frozen=True)
class GenerationRequest:
    """What generate.py was asked for; None means the run's own setting."""

    run: Path
    text: Sequence[str]
    output: Path | None
    seed: int
    steps: int | None
    guidance_scale: float | None
    sampler: str | None
    scale: int
    raw_weights: bool
    device: DeviceName


def generate(request: GenerationRequest) -> list[Path]:
    """Sample one clip a text and write it; return the files in the order of the texts.

    Each text's noise depends on the seed and the text's place alone, so that more texts do not change the first ones.

    Raises:
        UserError: no usable checkpoint, a text the model cannot read, or a place that cannot be written.
    """
    checkpoint = _open(request.run)
    config = _sampling_config(config_from_json(Config, checkpoint.state.config), request)
    tokenizer = build_tokenizer(config, checkpoint.state.symbols)
    for text in request.text:
        _check_text(text, tokenizer)
    paths = _output_paths(request)
    compute = choose_device(request.device, config.MIXED_PRECISION)
    model = build_model(config, tokenizer, compute.device)
    model.load_state_dict(checkpoint.weights("model" if request.raw_weights else "ema"))
    sampler = build_sampler(config, build_schedule(config, compute.device), tokenizer, compute)
    noise = torch.stack([sampler.initial_noise(request.seed, index) for index in range(len(request.text))])
    clips = to_pixels(sampler.sample(model, list(request.text), noise, request.seed))
    for path, clip in zip(paths, clips, strict=True):
        _write(path, clip, config.VIDEO_FRAMES_PER_SECOND, request.scale)
    return paths


def _open(run: Path) -> Checkpoint:
    if not run.is_dir():
        raise UserError(f"--run {run}: there is no such folder; runs are folders in LOG_DIR (logs by default)")
    checkpoint = load_newest(run / "checkpoints")
    if checkpoint is None:
        raise UserError(f"--run {run}: no checkpoint in {run / 'checkpoints'} yet; train a little first")
    return checkpoint


def _sampling_config(config: Config, request: GenerationRequest) -> Config:
    changes: dict[str, object] = {}
    if request.steps is not None:
        if not 1 <= request.steps <= config.NUM_TRAIN_TIMESTEPS:
            raise UserError(f"--steps {request.steps}: must be between 1 and {config.NUM_TRAIN_TIMESTEPS}")
        changes["SAMPLING_STEPS"] = request.steps
    if request.guidance_scale is not None:
        if not 0 <= request.guidance_scale < float("inf"):
            raise UserError(f"--guidance-scale {request.guidance_scale}: must be a finite number of at least 0")
        changes["GUIDANCE_SCALE"] = request.guidance_scale
    if request.sampler is not None:
        if request.sampler not in get_args(SamplerName):
            raise UserError(f"--sampler {request.sampler}: choose from {', '.join(get_args(SamplerName))}")
        changes["SAMPLER"] = request.sampler
    if request.scale < 1:
        raise UserError(f"--scale {request.scale}: must be at least 1")
    return config.model_copy(update=changes)


def _check_text(text: str, tokenizer: CharacterTokenizer) -> None:
    tokens, dropped = tokenizer.encode(text)
    if dropped:
        known = " ".join(tokenizer.symbols)
        raise UserError(f"--text {text!r}: the run knows no {dropped[0]!r}; it was trained on: {known}")
    if not tokens:
        raise UserError(f"--text {text!r}: there is nothing to sign")
    if len(tokens) > tokenizer.max_length:
        raise UserError(
            f"--text {text!r}: {len(tokens)} symbols are more than MAX_CAPTION_LENGTH, {tokenizer.max_length}"
        )


def _output_paths(request: GenerationRequest) -> list[Path]:
    if len(request.text) == 1 and (request.output is None or request.output.suffix.lower() in (".mp4", ".gif")):
        path = request.output if request.output is not None else Path(f"{_file_name(request.text[0])}.mp4")
        paths = [path]
    else:
        folder = request.output if request.output is not None else Path()
        if folder.suffix.lower() in (".mp4", ".gif"):
            raise UserError(f"--output {folder}: {len(request.text)} texts make several files; name a folder")
        paths = [folder / f"{name}.mp4" for name in _distinct([_file_name(text) for text in request.text])]
    try:
        for parent in {path.parent for path in paths}:
            parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {request.output}: cannot make the folder: {error}") from error
    return paths


def _file_name(text: str) -> str:
    """Keep letters and digits of any script, so that no text can point outside the folder."""
    kept = "".join(character if character.isalnum() or character in "-_" else "_" for character in text)
    return kept[:100]


def _distinct(names: list[str]) -> list[str]:
    """Number repeated names: CAB, CAB_2. Names that differ in case only count as repeated, as some disks see them."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        seen[name.lower()] = seen.get(name.lower(), 0) + 1
        count = seen[name.lower()]
        distinct.append(name if count == 1 else f"{name}_{count}")
    return distinct


def _write(path: Path, clip: numpy.ndarray, frames_per_second: float, scale: int) -> None:
    encode = encode_gif if path.suffix.lower() == ".gif" else encode_mp4
    try:
        write_atomically(path, encode(clip, frames_per_second, scale))
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error}") from error
