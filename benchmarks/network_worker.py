"""One network in a process of its own, to be timed on request: a worker of benchmarks.peers.

The first line on stdout says that the network is built. Then every line on stdin gets one line of JSON: "step N" and
"forward N" the mean seconds of N of them, "memory" the peak so far, "flops" what one clip takes. Freed memory is kept
for the next step, as main.py does.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.machine import peak_memory_gib
from benchmarks.networks import NETWORK_NAMES, NUM_TIMESTEPS, VOCABULARY, NetworkName, build_network, count_parameters
from benchmarks.option_types import at_least_one
from compute.environment import flop_counter
from compute.memory import keep_freed_memory
from config import Config
from models.tokens import PADDING
from training.optimizer import build_optimizer

CAPTION_LENGTH = 8
DEFAULTS = Config()
FIRST_LETTER = 2  # the tokens before it are padding and the null caption


class NetworkExercise:
    """A network with all that a training step needs, on random clips of one size."""

    def __init__(self, network: nn.Module, *, batch_size: int, frames: int, image_size: int) -> None:
        self._network = network
        self._optimizer = build_optimizer(
            network,
            learning_rate=DEFAULTS.LEARNING_RATE,
            betas=(DEFAULTS.ADAM_BETA_1, DEFAULTS.ADAM_BETA_2),
            weight_decay=DEFAULTS.WEIGHT_DECAY,
        )
        generator = torch.Generator().manual_seed(0)
        self._video_BCTHW = torch.rand(batch_size, 3, frames, image_size, image_size, generator=generator) * 2 - 1
        self._timestep_B = torch.randint(NUM_TIMESTEPS, (batch_size,), generator=generator)
        self._tokens_BL = torch.randint(FIRST_LETTER, VOCABULARY, (batch_size, CAPTION_LENGTH), generator=generator)
        self._tokens_BL[:, -2:] = PADDING
        self._drop_caption_B = torch.rand(batch_size, generator=generator) < DEFAULTS.CAPTION_DROPOUT

    def step(self) -> None:
        """Train once: noise, forward, mean squared error, backward, gradient clip, fused AdamW."""
        self._network.train()
        self.loss().backward()
        nn.utils.clip_grad_norm_(self._network.parameters(), DEFAULTS.GRADIENT_CLIP_NORM)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def forward(self) -> None:
        """Predict once, as sampling does: without dropout, and without keeping anything for gradients."""
        self._network.eval()
        self._network(self._video_BCTHW, self._timestep_B, self._tokens_BL, self._drop_caption_B)

    def loss(self) -> Tensor:
        """Return the loss of one step."""
        noise_BCTHW = torch.randn_like(self._video_BCTHW)
        prediction = self._network(
            (self._video_BCTHW + noise_BCTHW) * 0.5**0.5, self._timestep_B, self._tokens_BL, self._drop_caption_B
        )
        return nn.functional.mse_loss(prediction, noise_BCTHW)


@dataclass(frozen=True)
class FlopCounts:
    """Floating-point operations of one clip; a batch takes as many times more as it has clips."""

    forward: int
    step: int  # forward and backward; the optimizer, which is not counted, takes little


def count_flops(network: nn.Module, *, frames: int, image_size: int) -> FlopCounts:
    """Count what one clip takes; the weights stay as they are and the gradients are gone afterwards."""
    clip = NetworkExercise(network, batch_size=1, frames=frames, image_size=image_size)
    counts = []
    for run in (clip.forward, lambda: clip.loss().backward()):
        with flop_counter() as counter:
            run()
        counts.append(counter.get_total_flops())
    network.zero_grad(set_to_none=True)
    return FlopCounts(*counts)


def main(arguments: Sequence[str]) -> int:
    """Build, then answer until stdin ends; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.keep_freed_memory:
        keep_freed_memory()
    torch.set_num_threads(options.threads)
    name: NetworkName = options.name
    with torch.device("meta"):  # imports what the network needs, and looks for its widths, before memory is measured
        build_network(name, image_size=options.image_size, parameters=options.parameters)
    imported_gib = peak_memory_gib()
    network = build_network(name, image_size=options.image_size, parameters=options.parameters)
    size = {"frames": options.frames, "image_size": options.image_size}
    exercise = NetworkExercise(network, batch_size=options.batch_size, **size)
    _answer({"parameters": count_parameters(network), "imported_gib": imported_gib})
    for line in sys.stdin:
        match line.split():
            case ["step", repeats]:
                _answer({"seconds": _mean_seconds(exercise.step, int(repeats))})
            case ["forward", repeats]:
                _answer({"seconds": _mean_seconds(exercise.forward, int(repeats))})
            case ["memory"]:
                _answer({"peak_gib": peak_memory_gib()})
            case ["flops"]:
                _answer(dataclasses.asdict(count_flops(network, **size)))
            case _:
                print(f"error: unknown request: {line!r}", file=sys.stderr)
                return 1
    return 0


def _mean_seconds(run: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def _answer(content: dict[str, float]) -> None:
    print(json.dumps(content), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network_worker", description=__doc__)
    parser.add_argument("name", choices=NETWORK_NAMES)
    for option in ("image-size", "frames", "batch-size", "parameters", "threads"):
        parser.add_argument(f"--{option}", type=at_least_one, required=True, metavar="N")
    parser.add_argument("--keep-freed-memory", action="store_true", help="as main.py does")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
