"""Repeat a step that a run skipped, to find out why: python -m training.replay --run logs/NAME [--step N]"""

import argparse
import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor, nn

from checkpoints.checkpoint import list_checkpoints, read_checkpoint, step_of
from common.console import program
from common.errors import UserError
from common.settings import config_from_json
from compute.device import DeviceName, choose_device, precision_elsewhere
from config import Config
from distributed.models import SharedModel
from distributed.processes import Processes
from models.build import build_model, build_objective, build_tokenizer
from training.optimizer import ExponentialMovingAverage, build_adamw, build_loss_scale
from training.resume import named
from training.skipped import SkippedBatch, kept_steps, load_skipped
from training.step import StepOutcome, TrainStep


@program
def main(arguments: Sequence[str]) -> None:
    """Replay and print."""
    parser = argparse.ArgumentParser(
        prog="python -m training.replay",
        description="Do a skipped step again, with the clips, noise and weights that it had, and say where the first "
        "value arises that is not finite.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, such as logs/my_run")
    parser.add_argument("--step", type=int, default=None, help="default: the first one that the run kept")
    parser.add_argument("--device", default="auto", choices=get_args(DeviceName))
    request = parser.parse_args(arguments)
    print("\n".join(replay(request.run, request.step, request.device)))


def replay(run: Path, step: int | None, device: DeviceName) -> list[str]:
    """Do the step again, and return a report of it, line by line. Nothing is written.

    Raises:
        UserError: the run kept no such step, or the device is not available.
    """
    steps = kept_steps(run)
    if not steps:
        raise UserError(f"{run} kept no skipped step: none was skipped, or it is not the folder of a run")
    if step is not None and step not in steps:
        raise UserError(f"--step {step}: {run} kept only {', '.join(map(str, steps))}")
    skipped = load_skipped(run, steps[0] if step is None else step)
    config = config_from_json(Config, skipped.config)
    compute = choose_device(device, precision_elsewhere(config.MIXED_PRECISION))
    model = build_model(config, build_tokenizer(config, skipped.symbols), compute.device).train()
    weights, origin = _weights(skipped, run)
    if weights is not None:
        model.load_state_dict(weights)
    first = _FirstNonFinite()
    first.watch(model)
    train_step = TrainStep(
        shared=SharedModel(model),
        ema=ExponentialMovingAverage(model, config.EMA_DECAY),
        optimizer=build_adamw(config, model),
        loss_scale=build_loss_scale(compute),
        objective=build_objective(config, compute.device),
        compute=compute,
        processes=Processes(skipped.part),
        config=config,
    )
    outcome = train_step.run(skipped.step, skipped.batch)
    return [
        f"Kept: step {', '.join(map(str, steps))}",
        f"Step {skipped.step} of {run}, done again on {compute.device.type} in {compute.precision}: "
        f"loss {outcome.loss.item():g}, gradient norm {outcome.gradient_norm.item():g}.",
        *origin,
        *_clip_lines(skipped, outcome),
        *_weight_lines(weights),
        *_network_lines(model, first),
        _verdict(outcome),
    ]


def _weights(skipped: SkippedBatch, run: Path) -> tuple[Mapping[str, Tensor] | None, list[str]]:
    """Return the step's weights, or the nearest ones before it with a line that says which they are."""
    if skipped.weights is not None:
        return skipped.weights, []
    why = "The processes of this run each had a part of the weights, and these were not kept. "
    before = [folder for folder in list_checkpoints(run / "checkpoints") if step_of(folder) <= skipped.step]
    if not before:
        return None, [f"{why}No checkpoint is as old as that step: these are the weights that SEED starts with."]
    return read_checkpoint(before[0]).weights("model"), [f"{why}These are the weights of {before[0]}."]


@dataclass
class _FirstNonFinite:
    """Finds the first module, in the order of the forward pass, whose output is not finite."""

    module: str | None = None
    input_was_finite: bool = True

    def watch(self, model: nn.Module) -> None:
        """Check the output of every module without children."""
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(functools.partial(self._check, name))

    def _check(self, name: str, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        if self.module is None and _is_broken(output):
            self.module, self.input_was_finite = name, all(_is_finite(each) for each in inputs)


def _is_finite(value: object) -> bool:
    return not isinstance(value, Tensor) or bool(torch.isfinite(value).all())


def _is_broken(output: object) -> bool:
    """Return whether a tensor has NaN or +inf. Minus infinity is allowed: attention masks consist of it."""
    return isinstance(output, Tensor) and bool((torch.isnan(output) | torch.isposinf(output)).any())


def _clip_lines(skipped: SkippedBatch, outcome: StepOutcome) -> list[str]:
    lines = []
    batch, losses = skipped.batch, outcome.samples.weighted_loss.tolist()
    for index, (name, caption, loss) in enumerate(zip(batch.ids, batch.captions, losses, strict=True)):
        timestep = int(outcome.samples.timestep[index])
        lines.append(f"  clip {name}, caption {caption!r}, timestep {timestep}: loss {loss:g}")
    return lines


def _weight_lines(weights: Mapping[str, Tensor] | None) -> list[str]:
    wrong = [name for name, tensor in (weights or {}).items() if not torch.isfinite(tensor).all()]
    return [f"Weights that are not finite: {named(wrong)}"] if wrong else []


def _network_lines(model: nn.Module, first: _FirstNonFinite) -> list[str]:
    lines = []
    if first.module is not None:
        origin = "although its input is finite" if first.input_was_finite else "as its input is"
        lines.append(f"First layer with an output that is not finite: {first.module}, {origin}")
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    wrong = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    if wrong:
        lines.append(f"Gradients that are not finite: {named(wrong)}")
    return lines


def _verdict(outcome: StepOutcome) -> str:
    if bool(outcome.skipped):
        return "It would be skipped again."
    return (
        "All is finite here: what made the step fail is not in its clips and weights. Try --device as in the run; else "
        "suspect the hardware, or on a GPU a step between this one and the saving of its weights."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
