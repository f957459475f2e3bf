"""Does the device compute what the CPU computes? For MPS, whose kernels have been wrong without an error.

Training on such kernels looks like a model that does not learn.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import UserError

TOLERANCE = 1e-3
"""Largest difference, as a share of the largest value. Sums of float32 in another order differ by about 1e-6, other
algorithms for convolutions by up to 1e-4; a wrong kernel is off by far more."""

TOLERANCE_IN_BFLOAT16 = 0.03
"""The same where results are rounded to 8 bits: two neighbours differ by 2^-7, and a gradient is rounded twice."""


@dataclass(frozen=True)
class KernelCase:
    """An operation with its inputs, float32 on the CPU."""

    name: str
    operation: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    has_gradients: bool = True
    tolerance: float = TOLERANCE

    def run(self, device: torch.device) -> list[Tensor]:
        """Return the result and, if it has them, the gradients of all inputs, on the CPU."""
        leaves = [tensor.to(device) for tensor in (each.detach().clone() for each in self.inputs)]
        if not self.has_gradients:
            return [self.operation(*leaves).detach().cpu()]
        leaves = [leaf.requires_grad_() for leaf in leaves]
        result = self.operation(*leaves)
        # No two weights are equal, so that values in the wrong place show.
        weights = torch.linspace(-1, 1, result.numel()).view(result.shape).to(device)
        gradients = torch.autograd.grad((result * weights).sum(), leaves)
        return [result.detach().cpu(), *(gradient.cpu() for gradient in gradients)]


def check_kernels(device: torch.device, cases: Sequence[KernelCase] | None = None) -> None:
    """Compare small operations, forward and backward, with the CPU. Takes less than a second.

    Args:
        device: to check.
        cases: of `kernel_cases` unless given.

    Raises:
        UserError: the device returns something else, or cannot do an operation at all.
    """
    faults = [fault for case in cases or kernel_cases() if (fault := _fault(case, device)) is not None]
    if faults:
        system = platform.mac_ver()[0]
        where = f"macOS {system}" if system else platform.platform()
        raise UserError(
            f"DEVICE is {device.type!r}, but there this PyTorch ({torch.__version__}, {where}) computes other things "
            f"than on the CPU: {'; '.join(faults)}. What is trained that way is worth nothing. Set DEVICE to 'cpu', or "
            f"install another version of PyTorch."
        )


def _fault(case: KernelCase, device: torch.device) -> str | None:
    right = case.run(torch.device("cpu"))
    try:
        found = case.run(device)
    except (RuntimeError, NotImplementedError) as error:
        return f"{case.name} fails ({error})"
    parts = ["result", *(f"gradient of input {number}" for number in range(1, len(right)))]
    differences = {part: _difference(one, other) for part, one, other in zip(parts, found, right, strict=True)}
    # Not "larger", because NaN is wrong too.
    wrong = [f"{part} by {share:.1%}" for part, share in differences.items() if not share <= case.tolerance]
    return f"{case.name} ({', '.join(wrong)} of the largest value)" if wrong else None


def _difference(found: Tensor, right: Tensor) -> float:
    """Return the largest difference as a share of the largest right value."""
    return float((found - right).abs().max() / right.abs().max())


def kernel_cases(autocast_dtype: torch.dtype | None = None) -> list[KernelCase]:
    """Return what training does on the device, in the memory layouts that it uses, and Conv3d.

    Updates have no gradients. `found_inf` is not among them: on MPS, where kernels ignore it, the host skips steps.

    `autocast_dtype`: of the run; convolutions and linear layers are also checked in it.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    bias = random(2, 2, 12, 5)
    bias[0, :, :, 3:] = float("-inf")  # padding behind a short caption
    few, many = (2, 2, 5, 16), (2, 2, 70, 16)
    return [
        KernelCase("conv3d", _convolve_3d, (random(2, 8, 4, 6, 6), random(16, 8, 3, 3, 3), random(16))),
        KernelCase("conv2d 3 x 3", _convolve, (random(4, 16, 8, 8), random(32, 16, 3, 3), random(32))),
        KernelCase("conv2d 3 x 1", _convolve_time, (random(2, 16, 8, 9), random(16, 16, 3, 1), random(16))),
        KernelCase("conv2d 2 x 2 stride 2", _halve, (random(4, 16, 8, 8), random(32, 16, 2, 2), random(32))),
        KernelCase("group_norm", _group_norm, (random(4, 16, 6, 6), random(16), random(16))),
        KernelCase("layer_norm", _layer_norm, (random(3, 7, 32), random(32))),
        KernelCase("linear", functional.linear, (random(3, 7, 32), random(16, 32), random(16))),
        KernelCase("pixel_unshuffle", _fold_patches, (random(2, 4, 8, 8),)),
        KernelCase("scaled_dot_product_attention", _attend, (random(*many), random(*many), random(*many))),
        KernelCase(
            "scaled_dot_product_attention with a mask",
            _attend,
            (random(2, 2, 12, 16), random(*few), random(*few), bias),
        ),
        KernelCase("embedding", _embed, (random(5, 16),)),
        KernelCase("bilinear interpolate", _resize, (random(2, 3, 6, 6),)),
        KernelCase("addcmul", _scale_and_shift, (random(4, 8, 1, 1), random(4, 8, 5, 5), random(4, 8, 1, 1))),
        KernelCase("fused AdamW", _update, (random(8, 4, 3, 3), random(8, 4, 3, 3)), has_gradients=False),
        KernelCase(
            "_foreach_sub, _foreach_mul_ and _foreach_add_",
            _average,
            (random(8, 4, 3, 3), random(8), random(8, 4, 3, 3), random(8)),
            has_gradients=False,
        ),
        KernelCase("scatter_add_ of int32", _count, (random(300),), has_gradients=False),
        KernelCase("index_add_", _add_by_owner, (random(2, 300),), has_gradients=False),
        *(
            KernelCase(
                f"{name} in {autocast_dtype}",
                partial(_under_autocast, autocast_dtype, operation),
                inputs,
                tolerance=TOLERANCE_IN_BFLOAT16,
            )
            for name, operation, inputs in (
                ("conv2d 3 x 3", _convolve, (random(4, 16, 8, 8), random(32, 16, 3, 3), random(32))),
                ("linear", functional.linear, (random(3, 7, 32), random(16, 32), random(16))),
            )
            if autocast_dtype is not None
        ),
    ]


def _channels_last(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def _convolve_3d(x_BCTHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv3d(x_BCTHW, weight, bias, padding=1)


def _convolve(x_NCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(_channels_last(x_NCHW), _channels_last(weight), bias, padding=1)


def _convolve_time(x_BCTS: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(_channels_last(x_BCTS), _channels_last(weight), bias, padding=(1, 0))


def _halve(x_NCHW: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return functional.conv2d(_channels_last(x_NCHW), _channels_last(weight), bias, stride=2)


def _group_norm(x_NCHW: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    return functional.silu(functional.group_norm(_channels_last(x_NCHW), 4, gain, shift))


def _layer_norm(x: Tensor, gain: Tensor) -> Tensor:
    return functional.layer_norm(x, gain.shape, gain)


def _fold_patches(x_NCHW: Tensor) -> Tensor:
    return _channels_last(functional.pixel_unshuffle(_channels_last(x_NCHW), 2))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.25)


def _embed(weight: Tensor) -> Tensor:
    return functional.embedding(torch.tensor([[0, 3, 3, 1], [4, 2, 3, 0]], device=weight.device), weight)


def _resize(x_NCHW: Tensor) -> Tensor:
    return functional.interpolate(x_NCHW, size=(16, 16), mode="bilinear")


def _scale_and_shift(shift: Tensor, x_NCHW: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, _channels_last(x_NCHW), 1 + scale)


def _update(weight: Tensor, gradient: Tensor) -> Tensor:
    parameter = nn.Parameter(_channels_last(weight))
    optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.1, fused=True)
    for factor in (1.0, -0.5, 2.0):
        parameter.grad = _channels_last(factor * gradient + 0.1)
        optimizer.step()
    return parameter.detach().contiguous()


def _average(weight: Tensor, bias: Tensor, trained_weight: Tensor, trained_bias: Tensor) -> Tensor:
    average = [_channels_last(weight), bias]
    difference = torch._foreach_sub([_channels_last(trained_weight), trained_bias], average)
    torch._foreach_mul_(difference, torch.tensor(0.3, device=weight.device))
    torch._foreach_add_(average, difference)
    return torch.cat([each.flatten() for each in average])


def _count(x: Tensor) -> Tensor:
    index = (x.abs() * 4).clamp(0, 15).to(torch.int64)
    counts = torch.zeros(16, dtype=torch.int32, device=x.device)
    return counts.scatter_add_(0, index, torch.ones_like(index, dtype=torch.int32)).float()


def _add_by_owner(x: Tensor) -> Tensor:
    owner = torch.arange(x.shape[1], device=x.device) ** 2 % 7
    return torch.zeros(2, 7, device=x.device).index_add_(1, owner, x)


def _under_autocast(dtype: torch.dtype, operation: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    with torch.autocast(inputs[0].device.type, dtype=dtype):
        result = operation(*inputs)
    return result.float()
