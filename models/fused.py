"""Fewer operators for CUDA: group normalisation with what follows it in one, and weights that are cast together.

CUDA's own group normalisation knows NCHW alone. In a network in channels last, each one costs a copy to float32, one
to NCHW, two passes, SiLU, a copy to a lower precision, and one back to channels last inside the next convolution, and
autograd keeps the float32. The operator here reads and writes channels last in the precision of its neighbours,
computes in float32, and keeps its input alone. torch.compile makes a few kernels of each of its four functions, once
for all shapes. There are four, and not two, because of one function it would keep whole frames in float32 between two
kernels, and look up for every number which group it belongs to.
"""

import functools
import inspect
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

EPSILON = 1e-5
LANES = 16
"""Channels that lie together for sure, so that generated kernels can read several at once."""
_SHAPE = {"N": 240, "S": 1024, "K": 8, "L": LANES, "C": 128, "G": 32, "D": 4}
"""Sizes to compile for. They all differ, because torch.compile takes sizes that are equal once to be equal always."""


@functools.cache
def compiler_fault(device_type: str) -> str | None:
    """Compile two operations; return what torch.compile lacks, None if it works. Takes some seconds, once.

    On a CPU it needs a C++ compiler, on CUDA the package triton, a C compiler and Python's headers; no list of these
    would be complete.
    """
    unseen = float(time.time_ns() % 10**9)  # a kernel from an earlier run's cache would prove nothing

    def shift(x: Tensor) -> Tensor:
        return x.sin() + unseen

    try:
        torch.compile(shift)(torch.zeros(64, device=device_type))
    except (RuntimeError, ImportError, OSError) as error:
        return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return None


def is_fused(x_NCHW: Tensor) -> bool:
    """Return whether these frames are normalised here, not by a torch.compile around all of the network."""
    fits = x_NCHW.shape[1] % LANES == 0 and x_NCHW.shape[1] > LANES  # of LANES alone, it would be compiled for anew
    return not torch.compiler.is_compiling() and x_NCHW.device.type == "cuda" and fits


def cast_together(*modules: nn.Module) -> AbstractContextManager[None]:
    """Give layers their weights in autocast's type in the ``with`` block; a layer norm only if it has no bias.

    All are cast by one operator, and their gradients back by another; autocast itself takes one for each tensor. The
    numbers are the same. Where not `casts_together`, nothing happens.
    """
    device_type = next(modules[0].parameters()).device.type
    return _cast_together(modules, device_type) if casts_together(device_type) else nullcontext()


@contextmanager
def _cast_together(modules: Sequence[nn.Module], device_type: str) -> Iterator[None]:
    places = [
        (layer._parameters, name, weight)
        for module in modules
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) or (isinstance(layer, nn.LayerNorm) and layer.bias is None)
        for name, weight in layer.named_parameters(recurse=False)
        if not isinstance(weight, DTensor)  # of a layer that FSDP gathers later, and autocast casts
    ]
    casts = _CastTogether.apply(*(weight for _, _, weight in places), torch.get_autocast_dtype(device_type))
    try:
        for (parameters, name, _), cast in zip(places, casts, strict=True):
            parameters[name] = cast
        yield
    finally:
        for parameters, name, weight in places:
            parameters[name] = weight


def casts_together(device_type: str) -> bool:
    """Return whether weights on such a device are cast here, and not by a torch.compile around all of the network."""
    return not torch.compiler.is_compiling() and device_type == "cuda" and torch.is_autocast_enabled(device_type)


def as_autocast(x: Tensor) -> Tensor:
    """Cast what several layers read, once for all of them, where `casts_together`."""
    device_type = x.device.type
    return x.to(torch.get_autocast_dtype(device_type)) if casts_together(device_type) else x


class _CastTogether(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *weights_and_dtype: Any) -> tuple[Tensor, ...]:
        *weights, dtype = weights_and_dtype
        ctx.set_materialize_grads(False)
        casts = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(casts, weights)
        return tuple(casts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = [each for each in gradients if each is not None]
        back = [torch.empty_like(each, dtype=torch.float32) for each in found]
        torch._foreach_copy_(back, found)
        rest = iter(back)
        return (*(None if each is None else next(rest) for each in gradients), None)


def fused_norm(
    x_NCHW: Tensor, weight_C: Tensor, bias_C: Tensor, scale_shift: Tensor | None, *, groups: int, silu: bool
) -> tuple[Tensor, Tensor]:
    """Return x as it is, and silu(group_norm(x) * (1 + scale) + shift), each part only if asked for.

    A residual connection adds to the x that is returned here. The gradient that comes back to it is added where the
    norm's own is written anyway; autograd would read and write all of it once more.

    Args:
        x_NCHW: frames [N, C, H, W] of any float type, C a multiple of LANES; without a copy if they are channels last.
        weight_C: float32, as is `bias_C`.
        scale_shift: [N, 2 C] of any float type, the scales of a frame before its shifts; or [N, C], shifts alone.
        groups: that divide C.
        silu: whether SiLU follows.

    Returns:
        Both [N, C, H, W], channels last; the second in autocast's type if that is on, else in the type of `x_NCHW`.
    """
    device_type = x_NCHW.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x_NCHW.dtype
    x_NSKL = x_NCHW.permute(0, 2, 3, 1).flatten(1, 2).contiguous().unflatten(2, (-1, LANES))
    weight_GD, bias_GD = (each.unflatten(0, (groups, -1)) for each in (weight_C, bias_C))
    film_NMGD = None if scale_shift is None else scale_shift.unflatten(1, (-1, *weight_GD.shape))
    both = _Norm.apply(x_NSKL, weight_GD, bias_GD, film_NMGD, silu, dtype)
    same, y = (each.flatten(2).unflatten(1, x_NCHW.shape[2:]).permute(0, 3, 1, 2) for each in both)
    return same, y


def statistics(
    x_NSKL: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a factor and what is then added for each frame and channel, and each group's mean and 1 / deviation.

    The first two are [N, C], the others [N, G], all float32.
    """
    # Channel by channel first, which reads neighbours together; groups are a few channels wide. Exact, by the law of
    # total variance, and without the cancellation of a mean square less a squared mean.
    variance_NC, mean_NC = torch.var_mean(x_NSKL.flatten(2).float(), dim=1, correction=0)
    variance_NGD, mean_NGD = (each.unflatten(1, weight_GD.shape) for each in (variance_NC, mean_NC))
    mean_NG = mean_NGD.mean(dim=2)
    rstd_NG = ((variance_NGD + (mean_NGD - mean_NG[..., None]).square()).mean(dim=2) + EPSILON).rsqrt()
    scale_NGD = _scale(film_NMGD, weight_GD)
    gain_NGD = rstd_NG[..., None] * weight_GD * scale_NGD
    offset_NGD = bias_GD * scale_NGD - mean_NG[..., None] * gain_NGD
    if film_NMGD is not None:
        offset_NGD = offset_NGD + film_NMGD[:, -1].float()
    return gain_NGD.flatten(1), offset_NGD.flatten(1), mean_NG, rstd_NG


def result(x_NSKL: Tensor, gain_NC: Tensor, offset_NC: Tensor, silu: bool, dtype: torch.dtype) -> tuple[Tensor]:
    """Return what the operator gives, in `dtype`."""
    y_NSC = x_NSKL.flatten(2).float() * gain_NC[:, None] + offset_NC[:, None]
    return ((y_NSC * y_NSC.sigmoid() if silu else y_NSC).to(dtype).unflatten(2, (-1, LANES)),)


def sums(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    gain_NC: Tensor,
    offset_NC: Tensor,
    mean_NG: Tensor,
    rstd_NG: Tensor,
    weight_GD: Tensor,
    bias_GD: Tensor,
    film_NMGD: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    """Return what `gradient_of_x` needs, [N, C] each, and the gradients of weight, bias and film if there is any."""
    x_NSC = x_NSKL.flatten(2).float()
    gradient_NSC = _before_silu(gradient_NSKL, x_NSC, gain_NC, offset_NC, silu)
    of_shift_NGD, with_x_NGD = (
        each.sum(dim=1).unflatten(1, weight_GD.shape) for each in (gradient_NSC, gradient_NSC * x_NSC)
    )
    mean_NG1, rstd_NG1 = mean_NG[..., None], rstd_NG[..., None]
    of_normed_NGD = (with_x_NGD - mean_NG1 * of_shift_NGD) * rstd_NG1
    scale_NGD = _scale(film_NMGD, weight_GD)
    of_mean_NG1, of_deviation_NG1 = (
        (each * weight_GD * scale_NGD).mean(dim=2, keepdim=True) / x_NSKL.shape[1] * rstd_NG1
        for each in (of_shift_NGD, of_normed_NGD)
    )
    slope_NG1 = -of_deviation_NG1 * rstd_NG1
    found = [
        slope_NG1.expand_as(of_shift_NGD).flatten(1),
        (-of_mean_NG1 - slope_NG1 * mean_NG1).expand_as(of_shift_NGD).flatten(1),
        (of_normed_NGD * scale_NGD).sum(dim=0),
        (of_shift_NGD * scale_NGD).sum(dim=0),
    ]
    if film_NMGD is not None:
        of_scale = [of_normed_NGD * weight_GD + of_shift_NGD * bias_GD] if film_NMGD.shape[1] == 2 else []
        found.append(torch.stack([*of_scale, of_shift_NGD], dim=1).to(film_NMGD.dtype))
    return found


def gradient_of_x(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    gain_NC: Tensor,
    offset_NC: Tensor,
    slope_NC: Tensor,
    constant_NC: Tensor,
    other_NSKL: Tensor | None,
    silu: bool,
) -> tuple[Tensor]:
    """Return the gradient of x, in its type; `other_NSKL` is what else flows back to x."""
    x_NSC = x_NSKL.flatten(2).float()
    gradient_NSC = _before_silu(gradient_NSKL, x_NSC, gain_NC, offset_NC, silu)
    of_x_NSC = gradient_NSC * gain_NC[:, None] + x_NSC * slope_NC[:, None] + constant_NC[:, None]
    if other_NSKL is not None:
        of_x_NSC = of_x_NSC + other_NSKL.flatten(2)
    return (of_x_NSC.to(x_NSKL.dtype).unflatten(2, (-1, LANES)),)


def _before_silu(gradient_NSKL: Tensor, x_NSC: Tensor, gain_NC: Tensor, offset_NC: Tensor, silu: bool) -> Tensor:
    gradient_NSC = gradient_NSKL.flatten(2).float()
    if not silu:
        return gradient_NSC
    y_NSC = x_NSC * gain_NC[:, None] + offset_NC[:, None]
    share_NSC = y_NSC.sigmoid()
    return gradient_NSC * share_NSC * (1 + y_NSC * (1 - share_NSC))


def _scale(film_NMGD: Tensor | None, weight_GD: Tensor) -> Tensor:
    if film_NMGD is None or film_NMGD.shape[1] == 1:
        return torch.ones_like(weight_GD)[None]
    return 1 + film_NMGD[:, 0].float()


def _as_run_on(device: torch.device, function: Callable[..., Sequence[Tensor]]) -> Callable[..., Sequence[Tensor]]:
    """Return one of the four functions compiled for CUDA, and as it is elsewhere and where nothing can be compiled."""
    return _compiled(function) if device.type == "cuda" and _compiles(device.type) else function


@functools.cache
def _compiles(device_type: str) -> bool:
    fault = compiler_fault(device_type)
    if fault is not None:
        warnings.warn(
            f"training will be slow: torch.compile, which fuses norms, lacks something ({fault})", stacklevel=2
        )
    return fault is None


@functools.cache
def _compiled(function: Callable[..., Sequence[Tensor]]) -> Callable[..., Sequence[Tensor]]:
    """Return a function compiled once for each kind of arguments, whatever their sizes."""
    compiled = torch.compile(function, dynamic=True)
    names = tuple(inspect.signature(function).parameters)
    known: set[tuple[object, ...]] = set()

    def run(*arguments: Any) -> Sequence[Tensor]:
        # Detached, because torch.compile tells leaves from other tensors, and compiles for each kind anew.
        given = {name: _detached(each) for name, each in zip(names, arguments, strict=True)}
        kind = tuple(
            (each.dtype, each.ndim, each.shape[1] == 1) if isinstance(each, Tensor) else each for each in given.values()
        )
        if kind not in known:
            compiled(*(_example(name, each) for name, each in given.items()))
            known.add(kind)
        return compiled(*given.values())

    return run


def _detached(argument: Any) -> Any:
    return argument.detach() if isinstance(argument, Tensor) else argument


def _example(name: str, argument: Any) -> Any:
    """Return a tensor of the sizes to compile for, by the letters at the end of its name; anything else as it is."""
    if not isinstance(argument, Tensor):
        return argument
    sizes = _SHAPE | {"M": argument.shape[1]}
    example = argument.new_zeros([sizes[axis] for axis in name.rpartition("_")[2]])
    if name.endswith("L"):
        torch._dynamo.mark_static(example, -1)
    return example


@torch.library.custom_op("text2sign::norm", mutates_args=())
def _norm(
    x_NSKL: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None, silu: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    gain, offset, mean, rstd = _as_run_on(x_NSKL.device, statistics)(x_NSKL, weight_GD, bias_GD, film_NMGD)
    (y,) = _as_run_on(x_NSKL.device, result)(x_NSKL, gain, offset, silu, dtype)
    return y, gain, offset, mean, rstd


@_norm.register_fake
def _(
    x_NSKL: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None, silu: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    channels, groups = weight_GD.numel(), weight_GD.shape[0]
    gain, offset, mean, rstd = (
        x_NSKL.new_empty((x_NSKL.shape[0], size), dtype=torch.float32) for size in (channels, channels, groups, groups)
    )
    return x_NSKL.new_empty(x_NSKL.shape, dtype=dtype), gain, offset, mean, rstd


@torch.library.custom_op("text2sign::norm_backward", mutates_args=())
def _norm_backward(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    gain_NC: Tensor,
    offset_NC: Tensor,
    mean_NG: Tensor,
    rstd_NG: Tensor,
    weight_GD: Tensor,
    bias_GD: Tensor,
    film_NMGD: Tensor | None,
    other_NSKL: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    whole = (gradient_NSKL, x_NSKL, gain_NC, offset_NC)
    slope, constant, *others = _as_run_on(x_NSKL.device, sums)(
        *whole, mean_NG, rstd_NG, weight_GD, bias_GD, film_NMGD, silu
    )
    (of_x,) = _as_run_on(x_NSKL.device, gradient_of_x)(*whole, slope, constant, other_NSKL, silu)
    return [of_x, *others]


@_norm_backward.register_fake
def _(_gradient_NSKL: Tensor, x_NSKL: Tensor, *others: Any) -> list[Tensor]:
    weight_bias_and_film = others[4:7]
    return [torch.empty_like(each) for each in (x_NSKL, *weight_bias_and_film) if each is not None]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        x_NSKL, weight_GD, bias_GD, film_NMGD, ctx.silu, _ = inputs
        y_NSKL, *found = _norm(*inputs)
        ctx.save_for_backward(x_NSKL, *found, weight_GD, bias_GD, film_NMGD)
        ctx.set_materialize_grads(False)
        return x_NSKL, y_NSKL

    @staticmethod
    def backward(ctx: Any, other_NSKL: Tensor | None, gradient_NSKL: Tensor) -> tuple[Tensor | None, ...]:
        other_NSKL = None if other_NSKL is None else other_NSKL.contiguous()
        gradients = _norm_backward(gradient_NSKL.contiguous(), *ctx.saved_tensors, other_NSKL, ctx.silu)
        return (*gradients, *(None,) * (6 - len(gradients)))
