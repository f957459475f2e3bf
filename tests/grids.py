"""Large grids of cases, of which the default run does some and `python -m pytest -m slow` the rest."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(cases: Iterable[Any], *, fast: int = 1) -> list[Any]:
    """Return the cases, with all but the first `fast` marked as slow. A case of several values is a tuple."""
    cases = list(cases)
    slow = [
        pytest.param(*(each if isinstance(each, tuple) else (each,)), marks=pytest.mark.slow) for each in cases[fast:]
    ]
    return [*cases[:fast], *slow]
