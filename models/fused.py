"""Fewer operators for CUDA: group normalisation with what follows it in one, and weights that are cast together.

CUDA's own group normalisation knows NCHW alone. In a network in channels last, each one costs a copy to float32, one
to NCHW, two passes, SiLU, a copy to a lower precision, and one back to channels last inside the next convolution, and
autograd keeps the float32. The operator here reads and writes channels last in the precision of its neighbours,
computes in float32, and keeps its input alone. torch.compile makes a few kernels of each of its two functions, once for
all shapes.
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

EPSILON = 1e-5
LANES = 16
"""Channels that lie together for sure, so that generated kernels can read several at once."""
_SHAPE = {"N": 240, "S": 1024, "K": 8, "L": LANES, "G": 32, "D": 4}
"""Sizes to compile for. They all differ, because torch.compile takes sizes that are equal once to be equal always."""


def compiler_fault(device: torch.device) -> str | None:
    """Compile two operations; return what torch.compile lacks, None if it works. Takes some seconds.

    On a CPU it needs a C++ compiler, on CUDA the package triton, a C compiler and Python's headers; no list of these
    would be complete.
    """
    unseen = float(time.time_ns() % 10**9)  # a kernel from an earlier run's cache would prove nothing

    def shift(x: Tensor) -> Tensor:
        return x.sin() + unseen

    try:
        torch.compile(shift)(torch.zeros(64, device=device))
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
) -> Tensor:
    """Return silu(group_norm(x) * (1 + scale) + shift), each part only if asked for.

    Args:
        x_NCHW: frames [N, C, H, W] of any float type, C a multiple of LANES; without a copy if they are channels last.
        weight_C: float32, as is `bias_C`.
        scale_shift: [N, 2 C] of any float type, the scales of a frame before its shifts; or [N, C], shifts alone.
        groups: that divide C.
        silu: whether SiLU follows.

    Returns:
        [N, C, H, W], channels last, in autocast's type if that is on, else in the type of `x_NCHW`.
    """
    device_type = x_NCHW.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else x_NCHW.dtype
    x_NSKL = x_NCHW.permute(0, 2, 3, 1).flatten(1, 2).contiguous().unflatten(2, (-1, LANES))
    weight_GD, bias_GD = (each.unflatten(0, (groups, -1)) for each in (weight_C, bias_C))
    film_NMGD = None if scale_shift is None else scale_shift.unflatten(1, (-1, *weight_GD.shape))
    y_NSKL, _, _ = _norm(x_NSKL, weight_GD, bias_GD, film_NMGD, silu, dtype)
    return y_NSKL.flatten(2).unflatten(1, x_NCHW.shape[2:]).permute(0, 3, 1, 2)


def norm_forward(
    x_NSKL: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None, silu: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result in `dtype`, and the means and inverse standard deviations of the groups, [N, G] float32."""
    x_NSC = x_NSKL.flatten(2).float()
    # Channel by channel first, which reads neighbours together; groups are a few channels wide. Exact, by the law of
    # total variance, and without the cancellation of a mean square less a squared mean.
    variance_NC, mean_NC = torch.var_mean(x_NSC, dim=1, correction=0)
    variance_NGD, mean_NGD = (each.unflatten(1, weight_GD.shape) for each in (variance_NC, mean_NC))
    mean_NG = mean_NGD.mean(dim=2)
    rstd_NG = ((variance_NGD + (mean_NGD - mean_NG[..., None]).square()).mean(dim=2) + EPSILON).rsqrt()
    y_NSC = _affine(_normed(x_NSC, mean_NG, rstd_NG, weight_GD), weight_GD, bias_GD, film_NMGD)
    result_NSC = (y_NSC * y_NSC.sigmoid() if silu else y_NSC).to(dtype)
    return result_NSC.unflatten(2, (-1, LANES)), mean_NG, rstd_NG


def norm_backward(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    mean_NG: Tensor,
    rstd_NG: Tensor,
    weight_GD: Tensor,
    bias_GD: Tensor,
    film_NMGD: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    """Return the gradients of x, weight and bias, and of scale and shift where there are any."""
    normed_NSC = _normed(x_NSKL.flatten(2).float(), mean_NG, rstd_NG, weight_GD)
    gradient_NSC = gradient_NSKL.flatten(2).float()
    if silu:
        y_NSC = _affine(normed_NSC, weight_GD, bias_GD, film_NMGD)
        share_NSC = y_NSC.sigmoid()
        gradient_NSC = gradient_NSC * share_NSC * (1 + y_NSC * (1 - share_NSC))
    # All gradients follow from these two sums over the places of a frame.
    sum_NGD = gradient_NSC.sum(dim=1).unflatten(1, weight_GD.shape)
    product_NGD = (gradient_NSC * normed_NSC).sum(dim=1).unflatten(1, weight_GD.shape)
    scale_NGD = _scale(film_NMGD, weight_GD)
    gain_NGD = weight_GD * scale_NGD
    of_mean_NGD, of_deviation_NGD = (
        ((each * gain_NGD).mean(dim=2, keepdim=True) / x_NSKL.shape[1]).expand_as(each)
        for each in (sum_NGD, product_NGD)
    )
    centred_NSC = gradient_NSC * _by_channel(gain_NGD) - _by_channel(of_mean_NGD)
    of_x_NSC = (centred_NSC - normed_NSC * _by_channel(of_deviation_NGD)) * _by_channel(
        rstd_NG[..., None].expand_as(sum_NGD)
    )
    gradients = [
        of_x_NSC.to(x_NSKL.dtype).unflatten(2, (-1, LANES)),
        (product_NGD * scale_NGD).sum(dim=0),
        (sum_NGD * scale_NGD).sum(dim=0),
    ]
    if film_NMGD is not None:
        of_film = [sum_NGD] if film_NMGD.shape[1] == 1 else [product_NGD * weight_GD + sum_NGD * bias_GD, sum_NGD]
        gradients.append(torch.stack(of_film, dim=1).to(film_NMGD.dtype))
    return gradients


def _normed(x_NSC: Tensor, mean_NG: Tensor, rstd_NG: Tensor, weight_GD: Tensor) -> Tensor:
    mean, rstd = (_by_channel(each[..., None].expand(-1, *weight_GD.shape)) for each in (mean_NG, rstd_NG))
    return (x_NSC - mean) * rstd


def _affine(normed_NSC: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None) -> Tensor:
    scale_NGD = _scale(film_NMGD, weight_GD)
    shift_NGD = bias_GD * scale_NGD
    if film_NMGD is not None:
        shift_NGD = shift_NGD + film_NMGD[:, -1].float()
    return normed_NSC * _by_channel(weight_GD * scale_NGD) + _by_channel(shift_NGD)


def _scale(film_NMGD: Tensor | None, weight_GD: Tensor) -> Tensor:
    if film_NMGD is None or film_NMGD.shape[1] == 1:
        return torch.ones_like(weight_GD)[None]
    return 1 + film_NMGD[:, 0].float()


def _by_channel(each_NGD: Tensor) -> Tensor:
    """[N or 1, G, D] to [N or 1, 1, C]."""
    return each_NGD.flatten(1)[:, None]


def _as_run_on(device: torch.device, function: Callable[..., Sequence[Tensor]]) -> Callable[..., Sequence[Tensor]]:
    """Return one of the two functions compiled for CUDA, and as it is elsewhere and where nothing can be compiled."""
    return _compiled(function) if device.type == "cuda" and _compiles(device.type) else function


@functools.cache
def _compiles(device_type: str) -> bool:
    fault = compiler_fault(torch.device(device_type))
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
) -> tuple[Tensor, Tensor, Tensor]:
    y, mean, rstd = _as_run_on(x_NSKL.device, norm_forward)(x_NSKL, weight_GD, bias_GD, film_NMGD, silu, dtype)
    return y, mean, rstd


@_norm.register_fake
def _(
    x_NSKL: Tensor, weight_GD: Tensor, bias_GD: Tensor, film_NMGD: Tensor | None, silu: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    mean_NG = x_NSKL.new_empty(len(x_NSKL), len(weight_GD), dtype=torch.float32)
    return x_NSKL.new_empty(x_NSKL.shape, dtype=dtype), mean_NG, torch.empty_like(mean_NG)


@torch.library.custom_op("text2sign::norm_backward", mutates_args=())
def _norm_backward(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    mean_NG: Tensor,
    rstd_NG: Tensor,
    weight_GD: Tensor,
    bias_GD: Tensor,
    film_NMGD: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    run = _as_run_on(x_NSKL.device, norm_backward)
    return list(run(gradient_NSKL, x_NSKL, mean_NG, rstd_NG, weight_GD, bias_GD, film_NMGD, silu))


@_norm_backward.register_fake
def _(
    gradient_NSKL: Tensor,
    x_NSKL: Tensor,
    mean_NG: Tensor,
    rstd_NG: Tensor,
    weight_GD: Tensor,
    bias_GD: Tensor,
    film_NMGD: Tensor | None,
    silu: bool,
) -> list[Tensor]:
    return [torch.empty_like(each) for each in (x_NSKL, weight_GD, bias_GD, film_NMGD) if each is not None]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_NSKL, weight_GD, bias_GD, film_NMGD, ctx.silu, _ = inputs
    ctx.save_for_backward(x_NSKL, *output[1:], weight_GD, bias_GD, film_NMGD)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, gradient_NSKL: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    gradients = _norm_backward(gradient_NSKL.contiguous(), *ctx.saved_tensors, ctx.silu)
    return (*gradients, *(None,) * (6 - len(gradients)))


_norm.register_autograd(_gradients, setup_context=_keep)
