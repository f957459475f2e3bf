"""Waiting for what must happen, however slow the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
HANGS_AFTER_SECONDS = 120.0  # nothing that tests wait for takes as long


def wait_until(condition: Callable[[], Value], explain: Callable[[], object] = str) -> Value:
    """Return the first true value of a condition.

    Args:
        condition: asked again and again.
        explain: what to say of a condition that never comes true.
    """
    deadline = time.monotonic() + HANGS_AFTER_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, explain()
        time.sleep(0.01)
    return value
