"""Which part of a training step takes the time: PyTorch's profiler, its operators grouped into a few parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.scaling_worker import training_step
from training.optimizer import ExponentialMovingAverage

UPDATE_RANGES = ("Optimizer.step#AdamW.step", "Optimizer.zero_grad#AdamW.zero_grad", "averaged weights")
UPDATE = "optimizer, clipping, averaged weights"
REST = "rest"
GROUPS = {
    "convolution, forward": (
        *("aten::mkldnn_convolution", "aten::convolution", "aten::_convolution", "aten::_slow_conv2d_forward"),
        *("aten::thnn_conv2d", "aten::conv2d"),
    ),
    "convolution, backward": (
        *("aten::convolution_backward", "aten::mkldnn_convolution_backward", "aten::_slow_conv2d_backward"),
        *("ConvolutionBackward0", "autograd::engine::evaluate_function: ConvolutionBackward0"),
    ),
    "matrix products and attention": (
        *("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm", "aten::matmul", "aten::linear"),
        *("aten::_softmax", "aten::_softmax_backward_data", "aten::scaled_dot_product_attention"),
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "normalisation": (
        *("aten::native_group_norm", "aten::native_group_norm_backward"),
        *("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    ),
    "elementwise and sums": (
        *("aten::add", "aten::add_", "aten::sub", "aten::sub_", "aten::mul", "aten::mul_", "aten::div", "aten::div_"),
        *("aten::neg", "aten::pow", "aten::addcmul", "aten::silu", "aten::silu_backward", "aten::gelu"),
        *("aten::gelu_backward", "aten::sum", "aten::mean", "aten::exp", "aten::sqrt", "aten::abs", "aten::where"),
    ),
    "copies and layout": (
        *("aten::copy_", "aten::cat", "aten::clone", "aten::contiguous", "aten::pixel_unshuffle"),
        *("aten::pixel_shuffle", "aten::repeat_interleave", "aten::repeat", "aten::index_select", "aten::fill_"),
        *("aten::zero_", "aten::upsample_nearest2d", "aten::upsample_nearest2d_backward", "aten::_to_copy"),
    ),
    UPDATE: (
        *("aten::_fused_adamw_", "aten::linalg_vector_norm", "aten::_foreach_norm", "aten::_foreach_mul_"),
        *("aten::_foreach_sub", "aten::_foreach_add_", *UPDATE_RANGES),
    ),
}
_GROUP_OF_OPERATOR = {operator: group for group, operators in GROUPS.items() for operator in operators}


@dataclass(frozen=True)
class Operator:
    """One operator with its own time, those that it calls left out."""

    name: str
    inside_update: bool  # called by the optimizer or by the averaged weights
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a training step goes, in percent of all operators' own time."""

    title: str
    percent_by_group: dict[str, float]  # all groups, in order; the last is the rest
    percent_by_rest_operator: dict[str, float]  # the most costly ones that no group names
    seconds: float  # the operators' own time in one step, profiler included


class RecordedAverage(ExponentialMovingAverage):
    """Names its updates in a profile: their operators have the names of elementwise ones."""

    def update(self, updates: int, skipped: Tensor) -> None:
        with record_function(UPDATE_RANGES[-1]):
            super().update(updates, skipped)


def profile_step(title: str, options: Sequence[str], steps: int) -> Profile:
    """Profile some steps on the CPU after one to warm up.

    Args:
        title: for people.
        options: of main.py.
        steps: at least 1.
    """
    step, _ = training_step(options, RecordedAverage)
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(steps):
            step()
    return summarise(title, [_operator(event) for event in profiler.events() or ()], steps)


def summarise(title: str, operators: Iterable[Operator], steps: int, shown: int = 5) -> Profile:
    """Add the operators up by group, and name the `shown` most costly ones of the rest."""
    groups = dict.fromkeys([*GROUPS, REST], 0.0)
    rest: dict[str, float] = {}
    for operator in operators:
        group = UPDATE if operator.inside_update else _GROUP_OF_OPERATOR.get(operator.name, REST)
        groups[group] += operator.seconds
        if group == REST:
            rest[operator.name] = rest.get(operator.name, 0.0) + operator.seconds
    costliest = sorted(rest, key=rest.__getitem__, reverse=True)[:shown]
    total = sum(groups.values())
    return Profile(
        title=title,
        percent_by_group={name: 100 * seconds / total for name, seconds in groups.items()},
        percent_by_rest_operator={name: 100 * rest[name] / total for name in costliest},
        seconds=total / steps,
    )


def _operator(event: FunctionEvent) -> Operator:
    ancestor, inside = event.cpu_parent, False
    while ancestor is not None and not inside:
        inside = ancestor.name in UPDATE_RANGES
        ancestor = ancestor.cpu_parent
    return Operator(event.name, inside, event.self_cpu_time_total / 1e6)
