"""Where the product's sources are, for the tests that read them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = tuple(sorted(file.parent.name for file in ROOT.glob("*/__init__.py") if file.parent.name != "benchmarks"))
"""The product's packages: the folders with an `__init__.py`, of which tests/ and docs/ are none."""


def python_files(*folders: str) -> list[Path]:
    """Return the top folder's Python files, then those below the folders, each in order."""
    below = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [*sorted(ROOT.glob("*.py")), *below]
