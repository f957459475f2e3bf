"""docs/architecture.md names files, classes and functions that are there, in paths as short as it promises."""

import ast
import re

import pytest

from tests.sources import ROOMS, ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
LONGEST = {"One training step": 12, "One logged tag": 7, "One checkpoint": 6, "One generated clip": 10}
"""Files that a reader opens, at most."""


def steps_of(path: str) -> list[tuple[str, str]]:
    """Return the file and the name of each step of a path, in order."""
    section = PAGE.split(f"**{path}**")[1].split("\n**")[0].split("\n## ")[0]
    return re.findall(r"^\d+\. `([\w/.]+)`, `([\w.]+)`", section, re.MULTILINE)


def names_in(source: str) -> set[str]:
    """Return the classes, functions and methods that a file defines, methods as Class.method."""
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


@pytest.mark.parametrize("path", LONGEST)
def test_a_path_is_short_and_names_what_is_there(path: str) -> None:
    steps = steps_of(path)
    assert 0 < len(steps) <= LONGEST[path]
    assert [int(number) for number in re.findall(r"^(\d+)\.", PAGE.split(f"**{path}**")[1].split("\n\n")[1], re.M)] == [
        *range(1, len(steps) + 1)
    ]
    for file, name in steps:
        assert name in names_in((ROOT / file).read_text("utf-8")), f"{file} has no {name}"


def test_every_file_that_the_page_names_exists() -> None:
    named = re.findall(r"`((?:\w+/)*[\w*]+\.(?:py|md|txt|svg))`", PAGE)
    assert len(named) > 30
    assert [name for name in named if name != "__init__.py" and not list(ROOT.glob(name))] == []


def test_every_room_says_what_is_in_it() -> None:
    for room in ROOMS:
        source = (ROOT / room / "__init__.py").read_text("utf-8")
        described = ast.get_docstring(ast.parse(source)) or ""
        assert described.endswith("."), room
        assert "Not here:" in described, room
        assert room in (ROOT / "docs" / "images" / "rooms.svg").read_text("utf-8")
