"""Does the device compute what the CPU computes? For MPS, whose kernels have been wrong without an error.

Training on such kernels looks like a model that does not learn.
"""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from common.errors import UserError

TOLERANCE = 1e-3
"""Largest difference, as a share of the largest value. Sums of float32 in another order differ by about 1e-6, other
algorithms for convolutions by up to 1e-4; a wrong kernel is off by far more."""


@dataclass(frozen=True)
class KernelCase:
    """An operation with its inputs, float32 on the CPU."""

    name: str
    operation: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]

    def run(self, device: torch.device) -> list[Tensor]:
        """Return the result and the gradients of all inputs, on the CPU."""
        leaves = [tensor.to(device).requires_grad_() for tensor in (each.detach().clone() for each in self.inputs)]
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
    wrong = [f"{part} by {share:.1%}" for part, share in differences.items() if not share <= TOLERANCE]  # NaN is wrong
    return f"{case.name} ({', '.join(wrong)} of the largest value)" if wrong else None


def _difference(found: Tensor, right: Tensor) -> float:
    """Return the largest difference as a share of the largest right value."""
    return float((found - right).abs().max() / right.abs().max())


def kernel_cases() -> list[KernelCase]:
    """Return the operations of the networks here, in the memory layouts that they use, and Conv3d."""
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
        KernelCase("pixel_shuffle", _enlarge, (random(2, 16, 4, 4),)),
        KernelCase("scaled_dot_product_attention", _attend, (random(*many), random(*many), random(*many))),
        KernelCase(
            "scaled_dot_product_attention with a mask",
            _attend,
            (random(2, 2, 12, 16), random(*few), random(*few), bias),
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


def _enlarge(x_NCHW: Tensor) -> Tensor:
    return _channels_last(functional.pixel_shuffle(_channels_last(x_NCHW), 2))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=0.25)
