"""What changes the weights: AdamW and its state by name, the moving average, and the loss scale of float16."""

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from checkpoints.tensor_files import StoredTensors
from compute.device import ComputeDevice
from config import Config
from distributed.models import gathered, own_part

INITIAL_SCALE = 2.0**16
GROWTH_INTERVAL = 2000  # steps in a row without an overflow after which the scale doubles


def build_adamw(config: Config, model: nn.Module) -> torch.optim.AdamW:
    """Build fused AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Weight decay applies to matrices and kernels ("weights"), but not to biases, gains and slopes ("biases").
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    biases = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": config.WEIGHT_DECAY, "name": "weights"},
        {"params": biases, "weight_decay": 0.0, "name": "biases"},
    ]
    return torch.optim.AdamW(
        groups, lr=config.LEARNING_RATE, betas=(config.ADAM_BETA_1, config.ADAM_BETA_2), fused=True
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of the gradient, a scalar on the device. Call on all processes that have parts of it."""
    return gathered(nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None]))


def step_unless(optimizer: torch.optim.Optimizer, skipped: Tensor) -> None:
    """Update, unless `skipped` (scalar bool on the device) is True: then weights and moments stay bit-equal.

    A fused optimizer reads `found_inf` on the device, as it does for gradient scaling, so the decision costs no
    synchronisation. Its MPS kernels ignore that tensor; there the host decides, and waits for the device.
    """
    if skipped.device.type == "mps":
        if not bool(skipped):
            optimizer.step()
        return
    optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
    optimizer.step()


def optimizer_tensors(optimizer: torch.optim.AdamW, model: nn.Module) -> dict[str, Tensor]:
    """Return AdamW's state keyed as "<state name>.<parameter name>"; empty before the first step."""
    return {
        f"{key}.{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.AdamW, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restore what :func:`optimizer_tensors` returned.

    Raises:
        KeyError: a parameter has only part of its state.
    """
    for key, target in _new_state(optimizer, model, tensors).items():
        target.copy_(tensors[key])


def load_optimizer_parts(optimizer: torch.optim.AdamW, model: nn.Module, stored: StoredTensors) -> None:
    """Restore this process's part of the state, for a model that is divided over several.

    Raises:
        UserError: the state cannot be read.
    """
    stored.fill(_new_state(optimizer, model, stored.shapes()))


def _new_state(optimizer: torch.optim.AdamW, model: nn.Module, stored: Container[str]) -> dict[str, Tensor]:
    """Give each parameter whose state is stored a state of zeros; return its tensors by their stored names."""
    tensors = {}
    for name, parameter in model.named_parameters():
        if f"step.{name}" in stored:
            state = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
            optimizer.state[parameter] = state
            tensors.update({f"{key}.{name}": tensor for key, tensor in state.items()})
    return tensors


class ExponentialMovingAverage:
    """Keeps a second copy of the model, whose weights follow the trained ones.

    The decay warms up as min(decay, (1 + updates) / (10 + updates)). Without that, the average of a short run consists
    mostly of initial weights, and its samples are noise.
    """

    def __init__(self, model: nn.Module, decay: float, average: nn.Module | None = None) -> None:
        """Start with the weights of `model`.

        Args:
            model: the trained model. If it is divided over several processes (`distributed.models`), so is `average`.
            decay: the weight of the old average in the new one.
            average: a copy of `model`, divided in the same way; by default, a copy is made here.
        """
        if model.state_dict().keys() != dict(model.named_parameters()).keys():  # constants are no state
            raise ValueError("the average covers parameters only, but the model has state besides them")
        self.model = (copy.deepcopy(model) if average is None else average).eval().requires_grad_(False)
        self.decay = decay
        self._average: list[Tensor] = list(self.model.parameters())
        self._trained: list[Tensor] = list(model.parameters())

    def decay_at(self, updates: int) -> float:
        """Return the decay that update number `updates` (0 for the first) uses."""
        return min(self.decay, (1 + updates) / (10 + updates))

    @torch.no_grad()
    def update(self, updates: int, skipped: Tensor) -> None:
        """Move towards the trained weights; if `skipped` (scalar bool on the device) is True, stay bit-equal."""
        weight = (1.0 - self.decay_at(updates)) * (~skipped).float()
        average, trained = ([own_part(tensor) for tensor in tensors] for tensors in (self._average, self._trained))
        difference = torch._foreach_sub(trained, average)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(average, difference)


@dataclass(frozen=True)
class ScaledStep:
    """The scale of a step, and whether it was too large.

    Attributes:
        overflowed: scalar bool, whether the gradients overflowed only because of the scale: the loss is finite, and
            the scale can be lowered. Such a step is skipped, but nothing is wrong with it.
        scale: scalar float32, what the loss was multiplied by; None if nothing is scaled.
    """

    overflowed: Tensor
    scale: Tensor | None


class LossScale:
    """Scales the loss before the backward pass, and the gradients back. Only `state` waits for the device.

    This base class scales nothing: bfloat16 has the range of exponents of float32.
    """

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss for the backward pass, with the same factor for every micro-batch of a step."""
        return loss

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Scale the gradients back, once a step: after the last backward pass and the sum over processes."""

    def update(self, loss: Tensor) -> ScaledStep:
        """Adapt the scale after a step, and return what it was, on the loss's device.

        `loss`: scalar, not scaled; the same in every process.
        """
        return ScaledStep(torch.zeros_like(loss, dtype=torch.bool), None)

    def state(self) -> dict[str, float]:
        """Return the state that a resumed run needs; empty if nothing is scaled."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore a state; an empty one, from a run in another precision, changes nothing."""


class DynamicLossScale(LossScale):
    """The scale of `torch.amp.GradScaler`, without its `step`: :func:`step_unless` skips here."""

    def __init__(
        self, device_type: str, *, initial_scale: float = INITIAL_SCALE, growth_interval: int = GROWTH_INTERVAL
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
    """Return the loss scale for the precision: float16 needs one, the others do not."""
    if compute.autocast_dtype == torch.float16:
        return DynamicLossScale(compute.device.type)
    return LossScale()
