"""What docs/data.md shows works, and what it lists is what there is."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from config import Config
from data.formats.manifest import FIELDS
from data.formats.registry import FORMAT_NAMES, read_data_set
from data.rows import TimeSpan
from tests.data.formats.replicas import write_clip

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_all_formats_are_listed_and_can_be_named() -> None:
    listed = re.findall(r"^\| `(\w+)` \| .* \| .* \|$", PAGE.split("## What is recognised")[1], re.MULTILINE)
    assert sorted(name for name in listed if name in FORMAT_NAMES) == sorted(FORMAT_NAMES)
    assert sorted(get_args(Config.model_fields["DATA_FORMAT"].annotation)) == sorted(("auto", *FORMAT_NAMES))


def test_all_names_of_fields_are_listed_in_their_order() -> None:
    section = PAGE.split("| field | other names |")[1].split("\n\n")[0]
    listed = {}
    for line in section.splitlines()[2:]:
        fields, names = (re.findall(r"`(\w+)`", cell) for cell in line.strip("|").split("|"))
        for field in fields:
            listed[field] = tuple(name for name in names if len(fields) == 1 or name.startswith(field))
    assert listed == {field: tuple(names) for field, names in FIELDS.items()}


def test_the_format_that_is_shown_reads_a_folder(tmp_path: Path) -> None:
    (block,) = code_blocks("python")
    names: dict[str, Any] = {}
    exec(compile(block, "docs/data.md", "exec"), names)
    shown = names["FORMAT"]
    write_clip(tmp_path / "good morning.mp4", 0)
    write_clip(tmp_path / "more" / "see you.mp4", 1)
    write_clip(tmp_path / "\u200b.mp4", 2)
    assert shown.recognise(tmp_path) is None
    (tmp_path / "phrases.here").touch()
    assert shown.recognise(tmp_path) == "it holds phrases.here"
    manifest = shown.read(tmp_path)
    assert [(row.id, row.caption) for row in manifest.rows] == [
        ("good morning.mp4", "good morning"),
        ("more/see you.mp4", "see you"),
    ]
    assert [(row.id, row.reason) for row in manifest.skipped] == [("\\u200b.mp4", "has an empty caption")]


def test_the_list_that_is_shown_is_read(tmp_path: Path) -> None:
    (lines,) = [block for block in code_blocks("") if block.startswith("path,text")]
    for name in ("monday", "tuesday"):
        write_clip(tmp_path / "talks" / f"{name}.mp4", 0)
    (tmp_path / "clips.csv").write_text(lines, encoding="utf-8")
    _, _, manifest = read_data_set(tmp_path / "clips.csv", "auto")
    assert not manifest.skipped
    assert [(row.caption, row.signer, row.split, row.media.span) for row in manifest.rows] == [
        ("Good morning.", "amy", "training", TimeSpan(0.0, 1.6)),
        ("How are you?", "amy", "training", TimeSpan(1.6, 3.4)),
        ("Good morning.", "bob", "validation", TimeSpan()),
    ]


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.search(r"@[A-Z]+@", PAGE)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`(--[a-z-]+)", PAGE))))
def test_every_option_that_is_named_exists(option: str) -> None:
    of_commands = {"--json", "--shard-megabytes", "--sheet"}
    constant = option.removeprefix("--").replace("-", "_").upper()
    assert option in of_commands | {"--preset"} or constant in Config.model_fields
