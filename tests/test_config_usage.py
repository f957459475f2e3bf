"""Every constant does something: the programs read each one."""

import ast

from config import Config
from tests.sources import ROOMS, python_files

PROGRAMS = python_files(*ROOMS)


def constants_read_in(source: str) -> set[str]:
    """Return NAME for each ``config.NAME`` and ``something.config.NAME``."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr.isupper() and isinstance(node.ctx, ast.Load):
            owner = node.value
            if (isinstance(owner, ast.Name) and owner.id == "config") or (
                isinstance(owner, ast.Attribute) and owner.attr in ("config", "_config")
            ):
                names.add(node.attr)
    return names


def test_finder_finds_what_it_should() -> None:
    source = "a = config.SEED + self.config.BATCH_SIZE\n# config.MAX_STEPS\nb = 'config.MAX_FRAMES', other.IMAGE_SIZE"
    assert constants_read_in(source) == {"SEED", "BATCH_SIZE"}


def test_every_constant_is_used() -> None:
    used = set().union(*(constants_read_in(path.read_text(encoding="utf-8")) for path in PROGRAMS))
    assert not set(Config.model_fields) - used, "constants of config.py that do nothing"
    assert not used - set(Config.model_fields), "constants that config.py does not have"
