"""A training small enough for tests: one level, one block, 8 frames of 16 x 16."""

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = (
    "--image-size=16",
    "--num-frames=8",
    "--model-channels=16,32",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-layers=1",
    "--text-heads=2",
    "--epoch-size=24",
    "--validation-clips=4",
    "--sampling-steps=2",
    "--recogniser-steps=0",
    "--num-workers=0",
    "--device=cpu",
)


@pytest.fixture
def small_arguments(tmp_path: Path) -> Callable[..., list[str]]:
    """Command-line arguments of a small run in the test's own folders; more arguments may be added."""

    def make(*more: str) -> list[str]:
        return [*SMALL, f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}", *more]

    return make
