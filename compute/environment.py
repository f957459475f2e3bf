"""Facts for the dashboard's configuration page: machine, software, and the arithmetic of a forward pass."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from compute.device import ComputeDevice
from data.records import FixedClips, as_video

_PACKAGES = ("torch", "torchvision", "tensorboard", "numpy", "pydantic-settings", "safetensors", "av")

# Attention as a CPU does it, which PyTorch's counter passes over, from the shapes of the tensors.
_UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *_, **__: sdpa_backward_flop_count(gradient, query, key, value)
    ),
}


def describe_environment(compute: ComputeDevice, argv: list[str]) -> dict[str, str]:
    """Return versions, device, git commit and command line."""
    device = compute.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    facts = {
        "command": shlex.join(argv),
        "device": f"{device.type} ({name})",
        "precision": compute.precision,
        "cpu_threads": str(torch.get_num_threads()),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
    }
    commit = _git_commit()
    if commit is not None:
        facts["git_commit"] = commit
    return facts | {package: version(package) for package in _PACKAGES}


def _git_commit() -> str | None:
    """Return the commit of the source tree, marked when files differ from it; None outside a repository."""
    root = Path(__file__).resolve().parent.parent
    try:
        commit, status = (
            subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + (" (modified)" if status.strip() else "")


def flop_counter() -> FlopCounterMode:
    """Return PyTorch's counter of floating-point operations, silent, which also counts fused attention on a CPU."""
    return FlopCounterMode(display=False, custom_mapping=_UNCOUNTED)


@torch.no_grad()
def forward_flops(model: nn.Module, fixed: FixedClips, frames: int, device: torch.device) -> int:
    """Count the floating-point operations of one forward pass over one clip of so many frames by making one."""
    with flop_counter() as counter:
        model(*first_clips(fixed, 1, frames, device))
    return int(counter.get_total_flops())


def first_clips(
    fixed: FixedClips, count: int, frames: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the inputs of the network for the first clips at timestep 0, with their captions.

    Where there are fewer clips than `count`, or fewer frames of each than `frames`, they are repeated.
    """
    chosen = torch.arange(count) % len(fixed.rows)
    clips = [fixed.pixels[place][torch.arange(frames) % fixed.rows[place].frames] for place in chosen.tolist()]
    return (
        as_video(torch.stack(clips).to(device)),
        torch.zeros(count, dtype=torch.int64, device=device),
        fixed.tokens_BL[chosen].to(device),
        torch.zeros(count, dtype=torch.bool, device=device),
    )
