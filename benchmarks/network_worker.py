"""One network in a process of its own, timed: a worker of benchmarks.peers.

Its one argument is a `NetworkPlan` as JSON; the last line on stdout is a `Turn` as JSON.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.networks import NUM_TIMESTEPS, VOCABULARY, NetworkName, build_network, count_parameters
from benchmarks.worker_process import peak_memory_gib, read_plan
from common.console import program
from compute.environment import flop_counter
from compute.memory import keep_freed_memory
from config import Config
from models.tokens import FIRST_TOKEN, PADDING
from training.optimizer import build_adamw

CAPTION_LENGTH = 8
DEFAULTS = Config()


@dataclass(frozen=True)
class NetworkPlan:
    """What is timed."""

    network: NetworkName
    image_size: int
    parameters: int  # a key of `networks.WIDTHS`
    batch_size: int
    frames: int
    keeps_freed_memory: bool  # for the next step, as main.py does
    turn_seconds: float  # as many steps, and then predictions, as fill them, and at least one of each


@dataclass(frozen=True)
class Turn:
    """What was measured; seconds are means."""

    parameters: int
    step_flops: int  # of the batch
    step_seconds: float
    forward_seconds: float
    peak_gib: float  # resident set


class NetworkExercise:
    """A network with all that a training step needs, on random clips of one size."""

    def __init__(self, network: nn.Module, *, batch_size: int, frames: int, image_size: int) -> None:
        self._network = network
        self._optimizer = build_adamw(DEFAULTS, network)
        generator = torch.Generator().manual_seed(0)
        self._video_BCTHW = torch.rand(batch_size, 3, frames, image_size, image_size, generator=generator) * 2 - 1
        self._timestep_B = torch.randint(NUM_TIMESTEPS, (batch_size,), generator=generator)
        self._tokens_BL = torch.randint(FIRST_TOKEN, VOCABULARY, (batch_size, CAPTION_LENGTH), generator=generator)
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


def count_flops(network: nn.Module, *, frames: int, image_size: int) -> int:
    """Count the operations of one clip, forward and backward; a batch takes as many times more as it has clips.

    The optimizer is not counted: it takes little.
    """
    clip = NetworkExercise(network, batch_size=1, frames=frames, image_size=image_size)
    with flop_counter() as counter:
        clip.loss().backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops()


@program
def main(arguments: Sequence[str]) -> int:
    """Build, measure and print; return the exit code."""
    plan = NetworkPlan(**read_plan(arguments, __doc__))
    if plan.keeps_freed_memory:
        keep_freed_memory()
    network = build_network(plan.network, image_size=(plan.image_size, plan.image_size), parameters=plan.parameters)
    size = {"frames": plan.frames, "image_size": plan.image_size}
    exercise = NetworkExercise(network, batch_size=plan.batch_size, **size)
    exercise.step()  # the very first ones are slow
    exercise.forward()
    step_seconds = _mean_seconds(exercise.step, plan.turn_seconds)
    forward_seconds = _mean_seconds(exercise.forward, plan.turn_seconds)
    peak_gib = peak_memory_gib()  # before operations are counted
    flops = plan.batch_size * count_flops(network, **size)
    turn = Turn(count_parameters(network), flops, step_seconds, forward_seconds, peak_gib)
    print(json.dumps(dataclasses.asdict(turn)))
    return 0


def _mean_seconds(run: Callable[[], None], turn_seconds: float) -> float:
    start, repeats, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < turn_seconds:
        run()
        repeats += 1
        elapsed = time.perf_counter() - start
    return elapsed / repeats


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
