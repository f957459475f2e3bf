"""The network through torch.compile: the same numbers except for rounding, faster where kernels can be fused."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError
from models.fused import compiler_fault
from models.tokens import PADDING

Forward = Callable[..., Any]

CAPTION_STEP = 8
"""Captions are padded to a multiple of this, which kernels of attention ask of a bias."""

_REMEDIES = {
    "cpu": "It needs a C++ compiler: install g++ or clang++, or name one in the environment variable CXX. ",
    "cuda": "It needs the package triton, a C compiler (gcc) and Python's header files. ",
}


def compile_network(network: nn.Module, *, backend: str = "inductor") -> Forward:
    """Return a function that computes what the network does, on the same weights; its first call compiles it.

    The network itself stays as it is, with its keys and its other callers, whose batches have other sizes. Padding
    changes nothing, because it is masked. The numbers of clips, frames and characters may differ from call to call: the
    first two or three calls compile, for all others.

    Args:
        network: takes what `models.unet3d.TextToVideoModel` takes; it may be a wrapper, as of several processes.
        backend: of torch.compile.
    """
    # The network keeps its frames channels last itself. Inductor's own choice of layouts compares strides that it does
    # not know when lengths vary, and fails (PyTorch 2.13, torch/_inductor/graph.py, "nodes_prefer_channels_last").
    layouts: dict[str, str | int | bool | Callable[..., Any]] = {"layout_optimization": False}
    compiled = torch.compile(network, backend=backend, options=layouts if backend == "inductor" else None)

    def forward(
        video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor, **options: bool
    ) -> Any:
        given = (video_BCTHW, timestep_B, pad_captions(tokens_BL), drop_caption_B)
        for tensor, axes in zip(given, ((0, 2), 0, (0, 1), 0), strict=True):
            torch._dynamo.maybe_mark_dynamic(tensor, axes)
        return compiled(*given, **options)

    return forward


def pad_captions(tokens_BL: Tensor) -> Tensor:
    """Lengthen tokens [B, L] with PADDING to the next multiple of CAPTION_STEP."""
    return nn.functional.pad(tokens_BL, (0, -tokens_BL.shape[1] % CAPTION_STEP), value=PADDING)


def check_compiler(device: torch.device) -> None:
    """Compile two operations, so that what torch.compile lacks is known before a run begins. Takes some seconds.

    Raises:
        UserError: it cannot compile here.
    """
    fault = compiler_fault(device.type)
    if fault is not None:
        raise UserError(
            f"COMPILE_MODEL is True, but torch.compile cannot compile for {device.type} here ({fault}). "
            f"{_REMEDIES.get(device.type, '')}Or set COMPILE_MODEL to False."
        )
