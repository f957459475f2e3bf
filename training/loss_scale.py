"""Keeping float16 gradients above zero: the loss is scaled up before the backward pass, and the gradients down again.

float16 has no numbers between 0 and 6e-8, where many gradients are. A scale that is too large makes some gradient
infinite; such a step is skipped and the scale halved (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from training.device import ComputeDevice

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000  # steps in a row without an overflow after which the scale doubles


@dataclass(frozen=True)
class ScaledStep:
    """What a scale has to say about a step that was done with it.

    Attributes:
        overflowed: scalar bool, whether the gradients overflowed because of the scale alone: the loss is finite, and
            there was a scale to lower. Such a step is skipped, but nothing is wrong with it.
        scale: scalar float32, what the loss was multiplied by; None where nothing is scaled.
    """

    overflowed: Tensor
    scale: Tensor | None


class LossScale(Protocol):
    """What a step does around its backward passes. Nothing here waits for the device but `state`."""

    def scale(self, loss: Tensor) -> Tensor:
        """Return what to call the backward pass on; the same factor for every micro-batch of a step."""
        ...

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn the gradients back. Once a step: after the last backward pass, and the sum over processes."""
        ...

    def update(self, loss: Tensor) -> ScaledStep:
        """Adapt the scale after a step, and return what it was, on the loss's device.

        Args:
            loss: scalar, not scaled; the same in every process.
        """
        ...

    def state(self) -> dict[str, float]:
        """Return what a resumed run needs; empty where there is nothing."""
        ...

    def load_state(self, state: Mapping[str, float]) -> None:
        """Go on from a state; an empty one, of a run in another precision, changes nothing."""
        ...


class NoLossScale:
    """For float32 and bfloat16, whose exponents reach as far as each other's."""

    def scale(self, loss: Tensor) -> Tensor:
        return loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def update(self, loss: Tensor) -> ScaledStep:
        return ScaledStep(torch.zeros_like(loss, dtype=torch.bool), None)

    def state(self) -> dict[str, float]:
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        pass


class DynamicLossScale:
    """The scale of `torch.amp.GradScaler`, without its `step`: `optimizer.step_unless` skips here."""

    def __init__(
        self,
        device_type: str,
        *,
        initial_scale: float = INITIAL_SCALE,
        growth_interval: int = GROWTH_INTERVAL,
    ) -> None:
        self._scaler = torch.amp.GradScaler(device_type, init_scale=initial_scale, growth_interval=growth_interval)

    def scale(self, loss: Tensor) -> Tensor:
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self._scaler.unscale_(optimizer)

    def update(self, loss: Tensor) -> ScaledStep:
        one = torch.ones_like(loss)
        before = self._scaler.scale(one)  # `get_scale` would wait for the device
        self._scaler.update()
        overflowed = torch.isfinite(loss) & (self._scaler.scale(one) < before) & (before > 1)
        return ScaledStep(overflowed, before)

    def state(self) -> dict[str, float]:
        state = self._scaler.state_dict()
        return {"scale": state["scale"], "growth_tracker": float(state["_growth_tracker"])}

    def load_state(self, state: Mapping[str, float]) -> None:
        if state:
            changed = {"scale": state["scale"], "_growth_tracker": int(state["growth_tracker"])}
            self._scaler.load_state_dict(self._scaler.state_dict() | changed)


def build_loss_scale(compute: ComputeDevice) -> LossScale:
    """Return what the precision needs."""
    if compute.autocast_dtype == torch.float16:
        return DynamicLossScale(compute.device.type)
    return NoLossScale()
