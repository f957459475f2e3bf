"""The self-check finds kernels that are wrong, here operations that are wrong on purpose: there is no MPS device."""

import itertools
import platform
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from common.errors import UserError
from compute.self_check import KernelCase, check_kernels, kernel_cases

CPU = torch.device("cpu")
NAMES = [case.name for case in kernel_cases()]
UPDATES = [case.name for case in kernel_cases() if not case.has_gradients]


def wrong_on_the_device(case: KernelCase, spoil: Callable[[Tensor], Tensor]) -> KernelCase:
    """The right operation when it is asked first, which the CPU is, and a spoiled one after that."""
    calls: list[int] = []

    def operation(*inputs: Tensor) -> Tensor:
        calls.append(1)
        result = case.operation(*inputs)
        return result if len(calls) == 1 else spoil(result)

    return replace(case, operation=operation)


class CountedOperators(TorchDispatchMode):
    """Counts what PyTorch is asked to compute, and the numbers that come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operators += 1
        self.numbers += sum(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def test_the_cpu_agrees_with_itself_and_soon() -> None:
    """Every run on a Mac begins with it: what is computed takes the slowest processor a small part of a second."""
    with CountedOperators() as counted, FlopCounterMode(display=False) as arithmetic:
        check_kernels(CPU)
    assert counted.operators < 2_000
    assert counted.numbers < 4_000_000
    assert 0 < arithmetic.get_total_flops() < 100_000_000


@pytest.mark.parametrize("name", [name for name in NAMES if name not in UPDATES])
def test_every_operation_has_a_gradient_for_each_input_that_is_not_zero(name: str) -> None:
    case = next(case for case in kernel_cases() if case.name == name)
    result, *gradients = case.run(CPU)
    assert result.isfinite().all()
    assert [gradient.shape for gradient in gradients] == [each.shape for each in case.inputs]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient * 1.01


SPOILT = {
    "one value": lambda x: (
        x + torch.nn.functional.one_hot(torch.tensor(3), x.numel()).view(x.shape) * x.abs().max() / 99
    ),
    "another order": lambda x: x.flip(0),
    "NaN": lambda x: torch.where(x == x.max(), torch.nan, x),
    "a gradient alone": NoGradient.apply,
    "nothing": lambda x: 0 * x,
}


@pytest.mark.parametrize(
    ("name", "how"), [(name, how) for name in NAMES for how in SPOILT if name not in UPDATES or "gradient" not in how]
)
def test_a_wrong_kernel_is_found_and_named(name: str, how: str) -> None:
    spoil = SPOILT[how]
    cases = [wrong_on_the_device(case, spoil) if case.name == name else case for case in kernel_cases()]
    with pytest.raises(UserError) as caught:
        check_kernels(CPU, cases)
    assert f"than on the CPU: {name} (" in str(caught.value)
    assert "; " not in str(caught.value)  # no other operation is blamed


def test_rounding_in_another_order_is_no_fault() -> None:
    check_kernels(CPU, [wrong_on_the_device(case, lambda x: x * (1 + 2e-6)) for case in kernel_cases()])


def test_the_message_says_what_by_how_much_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "mac_ver", lambda: ("14.4.1", ("", "", ""), "arm64"))
    double = KernelCase("double", lambda x: 2 * x, (torch.tensor([1.0, 2.0]),))
    with pytest.raises(UserError) as caught:
        check_kernels(CPU, [wrong_on_the_device(double, lambda x: x + 0.5 * x.detach())])
    message = str(caught.value)
    assert "double (result by 50.0% of the largest value)" in message
    assert f"PyTorch ({torch.__version__}, macOS 14.4.1)" in message
    assert "Set DEVICE to 'cpu'" in message


def test_an_operation_that_the_device_does_not_have_is_named() -> None:
    def refuse(x: Tensor) -> Tensor:
        raise NotImplementedError("not implemented for MPS")

    case = wrong_on_the_device(kernel_cases()[0], refuse)
    with pytest.raises(UserError, match=r"conv3d fails \(not implemented for MPS\)"):
        check_kernels(CPU, [case])


class WrongKernel(TorchDispatchMode):
    """What one kernel returns or changes is too large by a tenth; of integers, by 1."""

    def __init__(self, kernel: str) -> None:
        super().__init__()
        self._name = f"aten::{kernel}"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name == self._name:
            for tensor in tree_leaves(args[0] if self._name.endswith("_") else result):
                tensor.mul_(1.1) if tensor.is_floating_point() else tensor.add_(1)
        return result


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("embedding", "embedding"),
        ("embedding_dense_backward", "embedding"),
        ("upsample_bilinear2d", "bilinear interpolate"),
        ("upsample_bilinear2d_backward", "bilinear interpolate"),
        ("addcmul", "addcmul"),
        ("_fused_adamw_", "fused AdamW"),
        ("_foreach_sub", "_foreach_sub, _foreach_mul_ and _foreach_add_"),
        ("_foreach_mul_", "_foreach_sub, _foreach_mul_ and _foreach_add_"),
        ("_foreach_add_", "_foreach_sub, _foreach_mul_ and _foreach_add_"),
        ("scatter_add_", "scatter_add_ of int32"),
        ("index_add_", "index_add_"),
    ],
)
def test_a_kernel_that_is_wrong_on_the_device_alone_is_found(
    kernel: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, devices = KernelCase.run, itertools.cycle(("cpu", "device"))

    def run(case: KernelCase, device: torch.device) -> list[Tensor]:
        with WrongKernel(kernel) if next(devices) == "device" else nullcontext():
            return right(case, device)

    monkeypatch.setattr(KernelCase, "run", run)
    with pytest.raises(UserError, match=re.escape(f"{name} (")):
        check_kernels(CPU)


@pytest.mark.parametrize("name", ["conv2d 3 x 3", "linear"])
def test_operations_in_the_precision_of_the_run_are_checked_too(name: str) -> None:
    cases = kernel_cases(torch.bfloat16)
    check_kernels(CPU, cases)
    assert len(cases) == len(NAMES) + 2
    name = f"{name} in torch.bfloat16"
    for spoil in (lambda x: x * 1.05, lambda x: x.flip(0)):
        with pytest.raises(UserError, match=f"than on the CPU: {name}"):
            check_kernels(CPU, [wrong_on_the_device(case, spoil) if case.name == name else case for case in cases])
