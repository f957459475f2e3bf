"""Which part of a training step takes the time: PyTorch's profiler, its operators grouped into a few parts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import table
from benchmarks.scaling_worker import training_step

UPDATE = "optimizer, clipping, averaged weights"
UPDATE_PREFIXES = ("Optimizer.", "aten::_foreach", "aten::_fused_adamw", "aten::linalg_vector_norm")
"""Of the operators of the update. What they call belongs to it too, whatever it is named."""
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
}
_GROUP_OF_OPERATOR = {operator: group for group, operators in GROUPS.items() for operator in operators}


@dataclass(frozen=True)
class Operator:
    """One operator with its own time, those that it calls left out."""

    name: str
    inside_update: bool
    seconds: float


@dataclass(frozen=True)
class Profile:
    """Where the time of a training step goes, in percent of all operators' own time."""

    percent_by_group: dict[str, float]  # all groups, in order; the last is the rest
    percent_by_rest_operator: dict[str, float]  # the most costly ones that no group names
    seconds: float  # the operators' own time in one step, profiler included

    def table(self) -> list[str]:
        """Return the groups as a table, and the most costly operators of the rest."""
        rows = [[group, f"{percent:.1f} %"] for group, percent in self.percent_by_group.items()]
        rows.append(["that time, a step, with the profiler", f"{self.seconds:.2f} s"])
        rest = ", ".join(f"`{name}` {percent:.2f} %" for name, percent in self.percent_by_rest_operator.items())
        return [*table(["part", "share of the operators' own time"], rows), f"Most of the rest: {rest or 'nothing'}."]


def profile_step(options: Sequence[str], steps: int) -> Profile:
    """Profile some steps on the CPU after one to warm up.

    Args:
        options: of main.py.
        steps: at least 1.
    """
    step, _ = training_step(options)
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(steps):
            step()
    return summarise([_operator(event) for event in profiler.events() or ()], steps)


def summarise(operators: Iterable[Operator], steps: int, shown: int = 5) -> Profile:
    """Add the operators up by group, and name the `shown` most costly ones of the rest."""
    groups = dict.fromkeys([*GROUPS, UPDATE, REST], 0.0)
    rest: dict[str, float] = {}
    for operator in operators:
        group = UPDATE if operator.inside_update else _GROUP_OF_OPERATOR.get(operator.name, REST)
        groups[group] += operator.seconds
        if group == REST:
            rest[operator.name] = rest.get(operator.name, 0.0) + operator.seconds
    costliest = sorted(rest, key=rest.__getitem__, reverse=True)[:shown]
    total = sum(groups.values())
    return Profile(
        percent_by_group={name: 100 * seconds / total for name, seconds in groups.items()},
        percent_by_rest_operator={name: 100 * rest[name] / total for name in costliest},
        seconds=total / steps,
    )


def _operator(event: FunctionEvent) -> Operator:
    """Look for the update among the operator and all that called it."""
    caller: FunctionEvent | None = event
    while caller is not None and not caller.name.startswith(UPDATE_PREFIXES):
        caller = caller.cpu_parent
    return Operator(event.name, caller is not None, event.self_cpu_time_total / 1e6)
