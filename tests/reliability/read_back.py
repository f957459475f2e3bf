"""What a training left behind, read back."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

from checkpoints.checkpoint import list_checkpoints
from tests.reliability.launch import Launch


def tensors_of(checkpoint: Path) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint folder: weights, averaged weights, optimizer state."""
    return {
        f"{name}/{key}": tensor
        for name in ("model", "ema", "optimizer")
        for key, tensor in load((checkpoint / f"{name}.safetensors").read_bytes()).items()
    }


def newest(run: Path) -> Path:
    """Return the folder of the newest checkpoint."""
    return list_checkpoints(run / "checkpoints")[0]


def state_of(checkpoint: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json."""
    return json.loads((checkpoint / "state.json").read_text())


def largest_difference(first: Path, second: Path) -> float:
    """Return the largest absolute difference between the tensors of two checkpoints, which must have the same names."""
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def curve(run: Path, tag: str) -> dict[int, float]:
    """Return a scalar of metrics.jsonl as step -> value; each point may be there only once."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    points = [(line["step"], line["value"]) for line in lines if line["tag"] == tag]
    assert len(points) == len(dict(points))
    return dict(points)


def clips_of_steps(*launches: Launch) -> dict[int, list[str]]:
    """Return the clips of each step as `faults.tell_steps` said them; a later launch has the last word."""
    return {
        int(step): ids.split(",")
        for launched in launches
        for step, ids in re.findall(r"^.*?begins (\d+) (.*)$", launched.said, re.MULTILINE)
    }


def steps_done(launched: Launch) -> list[int]:
    """Return the steps that were done to their end, as `faults.tell_steps` said them."""
    return [int(step) for step in re.findall(r"done (\d+)$", launched.said, re.MULTILINE)]
