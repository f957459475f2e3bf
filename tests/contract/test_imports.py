"""Imports point one way, so that each part can be understood and tested without the parts above it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources import ROOT

MAY_IMPORT: dict[str, set[str]] = {
    "common": set(),
    "config_checks": {"common"},
    "config": {"common", "config_checks"},
    "diffusion": {"common"},
    "logging_system": {"common", "config", "diffusion"},
    "models": {"common", "config", "diffusion"},
    "data": {"common", "config", "models"},
    "compute": {"common", "config", "data", "models"},
    "measures": {"common", "config", "data", "diffusion", "logging_system"},
    "distributed": {"common", "compute", "data", "models"},
    "checkpoints": {"common", "compute", "config", "distributed", "logging_system"},
    "sampling": {"common", "config", "diffusion", "models", "data", "compute", "checkpoints"},
    "evaluation": {"common", "config", "models", "data", "compute", "measures", "checkpoints", "sampling"},
    "training": {
        *("common", "config", "diffusion", "logging_system", "models", "data"),
        *("compute", "measures", "distributed", "checkpoints", "sampling"),
    },
    "main": {"common", "config", "compute", "distributed", "training"},
    "generate": {"common", "compute", "config", "data", "models", "sampling"},
    "launch_tensorboard": {"common", "config", "logging_system"},
}
"""What each room and each program may import: only what comes before it, so that no two depend on each other."""
SOURCES = [
    path
    for name in MAY_IMPORT
    for path in ([ROOT / f"{name}.py"] if (ROOT / f"{name}.py").exists() else sorted((ROOT / name).rglob("*.py")))
]


def imported_modules(source: str, package: str) -> Iterator[str]:
    """Yield the full name of every module that the source imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def wrong_imports(source: str, part: str, package: str) -> list[str]:
    """Return the imports that reach a part which ``part`` may not know."""
    ours = MAY_IMPORT.keys() | {"tests", "benchmarks"}
    reached = imported_modules(source, package)
    return [name for name in reached if (top := name.split(".")[0]) in ours and top not in MAY_IMPORT[part] | {part}]


def part_of(path: Path) -> tuple[str, str]:
    """Return the part and the package of a file."""
    relative = path.relative_to(ROOT)
    return (relative.parts[0], ".".join(relative.parts[:-1])) if len(relative.parts) > 1 else (relative.stem, "")


@pytest.mark.parametrize(
    ("source", "part", "expected"),
    [
        ("from training.loop import x", "logging_system", ["training.loop.x"]),
        ("def f():\n    import config", "common", ["config"]),
        ("from .. import models", "data", []),
        ("from data.records import Batch", "models", ["data.records.Batch"]),
        ("from common.errors import UserError\nimport torch", "models", []),
        ("from models.unet3d import UNet3D", "models", []),
    ],
)
def test_finder_finds_what_it_should(source: str, part: str, expected: list[str]) -> None:
    assert wrong_imports(source, part, f"{part}.inner") == expected


def test_there_is_something_to_check() -> None:
    assert {part_of(path)[0] for path in SOURCES} >= {
        "common",
        "config",
        "models",
        "diffusion",
        "data",
        "logging_system",
    }


def test_no_part_may_import_a_later_one() -> None:
    before: set[str] = set()
    for part, allowed in MAY_IMPORT.items():
        assert allowed <= before, part
        before.add(part)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    part, package = part_of(path)
    assert wrong_imports(path.read_text(encoding="utf-8"), part, package) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_common_vision_imports_torchvision(path: Path) -> None:
    _, package = part_of(path)
    tops = {name.split(".")[0] for name in imported_modules(path.read_text(encoding="utf-8"), package)}
    assert "torchvision" not in tops or path == ROOT / "common" / "vision.py"


def test_every_top_level_program_and_package_has_a_rule() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    modules = {path.stem for path in ROOT.glob("*.py")}
    assert packages | modules <= MAY_IMPORT.keys()
