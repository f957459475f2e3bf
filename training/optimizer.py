"""AdamW, its two parameter groups, and its state as named tensors."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.sharded_model import gathered
from training.sharded_reading import StoredTensors


def build_optimizer(
    model: nn.Module, *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """Build fused AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

    Weight decay holds for matrices and kernels ("weights"); biases, gains and slopes ("biases") go without.
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    biases = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": weights, "weight_decay": weight_decay, "name": "weights"},
        {"params": biases, "weight_decay": 0.0, "name": "biases"},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """Return the norm of the whole gradient, a scalar on the device. Call on all processes that have parts of it."""
    return gathered(nn.utils.get_total_norm([each.grad for each in parameters if each.grad is not None]))


def step_unless(optimizer: torch.optim.Optimizer, skipped: Tensor) -> None:
    """Update, unless `skipped` (scalar bool on the device) is True: then weights and moments stay bit-equal.

    A fused optimizer looks at a `found_inf` tensor on the device, as it does for gradient scaling, so that the decision
    costs no synchronisation. Its MPS kernels ignore that tensor; there the host looks, and waits for the device.
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
    for name, parameter in model.named_parameters():
        if f"step.{name}" not in tensors:
            continue
        state = {key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {
            "step": state["step"].to(parameter.device),
            **{key: torch.empty_like(parameter).copy_(state[key]) for key in ("exp_avg", "exp_avg_sq")},
        }


def load_optimizer_parts(optimizer: torch.optim.AdamW, model: nn.Module, stored: StoredTensors) -> None:
    """Restore what this process has of the state, for a model that is divided over several.

    Raises:
        UserError: it cannot be read.
    """
    shapes, targets = stored.shapes(), {}
    for name, parameter in model.named_parameters():
        if f"step.{name}" not in shapes:
            continue
        state = {
            "step": torch.zeros((), device=parameter.device),
            **{key: torch.zeros_like(parameter, requires_grad=False) for key in ("exp_avg", "exp_avg_sq")},
        }
        targets.update({f"{key}.{name}": tensor for key, tensor in state.items()})
        optimizer.state[parameter] = state
    stored.fill(targets)
