"""An exponential moving average of the weights."""

import copy

import torch
from torch import Tensor, nn

from training.sharded_model import own_part


class ExponentialMovingAverage:
    """Keeps a second copy of the model whose weights trail the trained ones.

    The decay warms up as min(decay, (1 + updates) / (10 + updates)); without that the average of a short run consists
    mostly of initial weights, and its samples are noise.
    """

    def __init__(self, model: nn.Module, decay: float, average: nn.Module | None = None) -> None:
        """Start with the weights of `model`.

        Args:
            model: the trained one; divided over several processes (`sharded_model`) only where `average` is too.
            decay: of the old average in the new one.
            average: a copy of `model`, divided in the same way; made here where there is none.
        """
        if any(True for _ in model.buffers()):
            raise ValueError("the average covers parameters only, but the model has buffers")
        self.model = (copy.deepcopy(model) if average is None else average).eval().requires_grad_(False)
        self.decay = decay
        self._average: list[Tensor] = list(self.model.parameters())
        self._trained: list[Tensor] = list(model.parameters())

    def decay_at(self, updates: int) -> float:
        """Return the decay that update number `updates` (0 for the first) uses."""
        return min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, updates: int, skipped: Tensor) -> None:
        """Move towards the trained weights; where `skipped` (scalar bool, on device) is True, stay bit-equal."""
        weight = (1.0 - self.decay_at(updates)) * (~skipped).float()
        average, trained = ([own_part(tensor) for tensor in tensors] for tensors in (self._average, self._trained))
        difference = torch._foreach_sub(trained, average)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(average, difference)
