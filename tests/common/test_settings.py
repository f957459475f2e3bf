"""The settings machinery, on a class of its own."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, Field, ValidationError

from common.errors import UserError
from common.field_types import Folder, check_distinct
from common.settings import LoadedSettings, Settings, config_as_json, config_from_json, load_settings


def batches_divide(BATCH: int, CLIPS: int) -> str | None:
    return "CLIPS must be a multiple of BATCH" if CLIPS % BATCH else None


def size_is_even(SIZE: int) -> str | None:
    return "use an even SIZE" if SIZE % 2 else None


class Example(Settings):
    """An example."""

    cross_field_checks = (batches_divide, size_is_even)

    # --- First part
    BATCH: int = Field(2, ge=1)
    """Clips at once, 100% of them."""
    CLIPS: int = 8
    """Clips."""
    SIZE: int = 4
    """Size."""

    # --- Second part
    RATE: float | None = Field(0.5, gt=0)
    """Rate."""
    ROOT: Folder | None = None
    """Folder."""
    SWITCH_ON: bool = True
    """Switch."""
    SIDES: Annotated[tuple[int, ...], AfterValidator(check_distinct)] = (8,)
    """Sides."""
    WORDS: tuple[str, ...] = ()
    """Words."""
    KIND: Literal["a", "b", 3] = "a"
    """Kind."""


PRESETS: dict[str, dict[str, object]] = {"plain": {}, "big": {"BATCH": 4, "SIDES": (8, 16), "SWITCH_ON": False}}


def load(*arguments: str, presets: dict[str, dict[str, object]] = PRESETS) -> LoadedSettings[Example]:
    return load_settings(Example, presets, arguments, program="example.py")


def problems(*arguments: str, presets: dict[str, dict[str, object]] = PRESETS) -> list[str]:
    with pytest.raises(UserError) as raised:
        load(*arguments, presets=presets)
    return str(raised.value).split("\n  - ")[1:]


def test_nothing_asked_for_is_the_class_as_written() -> None:
    loaded = load()
    assert loaded.config == Example()
    assert (loaded.preset, loaded.preset_asked_for, loaded.resume) == ("plain", False, False)
    assert (loaded.preset_changes, loaded.explicitly_set) == ({}, frozenset())


def test_command_line_wins_over_preset_and_preset_over_class() -> None:
    loaded = load("--preset", "big", "--batch", "8", "--size=6", "--resume")
    assert (loaded.config.BATCH, loaded.config.SIDES, loaded.config.SIZE, loaded.config.CLIPS) == (8, (8, 16), 6, 8)
    assert (loaded.preset, loaded.preset_asked_for, loaded.resume) == ("big", True, True)
    assert loaded.preset_changes == {"SIDES": ((8,), (8, 16)), "SWITCH_ON": (True, False)}
    assert loaded.explicitly_set == {"BATCH", "SIDES", "SWITCH_ON", "SIZE"}


def test_a_preset_that_says_what_the_class_says_changes_nothing() -> None:
    loaded = load("--preset", "same", presets={"plain": {}, "same": {"BATCH": 2}})
    assert loaded.preset_changes == {}
    assert loaded.explicitly_set == {"BATCH"}


@pytest.mark.parametrize(
    ("typed", "name", "value"),
    [
        (["--rate", "none"], "RATE", None),
        (["--rate", "NONE"], "RATE", None),
        (["--rate", "2"], "RATE", 2.0),
        (["--rate", "1e-3"], "RATE", 0.001),
        (["--root", "~/clips"], "ROOT", Path.home() / "clips"),
        (["--root", "none"], "ROOT", None),
        (["--no-switch-on"], "SWITCH_ON", False),
        (["--no-switch-on", "--switch-on"], "SWITCH_ON", True),
        (["--sides", "1, 2,3"], "SIDES", (1, 2, 3)),
        (["--sides", "[1, 2]"], "SIDES", (1, 2)),
        (["--sides", "1", "--sides", "2"], "SIDES", (2,)),
        (["--sides="], "SIDES", ()),
        (["--words", "Good morning, everyone"], "WORDS", ("Good morning, everyone",)),
        (["--words=Good morning, everyone"], "WORDS", ("Good morning, everyone",)),
        (["--words", "A, B", "C", "--sides", "1,2"], "WORDS", ("A, B", "C")),
        (["--words", "[A", "[B]"], "WORDS", ("[A", "[B]")),
        (["--words", ""], "WORDS", ()),
        (["--words", '["HELLO, YOU", "B"]'], "WORDS", ("HELLO, YOU", "B")),
        (["--words", "none"], "WORDS", ("none",)),
        (["--kind", "3"], "KIND", 3),
        (["--kind", "b"], "KIND", "b"),
        (["--size", "-2"], "SIZE", -2),
    ],
)
def test_how_values_are_typed(typed: list[str], name: str, value: object) -> None:
    assert getattr(load(*typed).config, name) == value


def test_everything_wrong_is_listed_at_once() -> None:
    found = problems(
        "--batch", "x", "--rate=-1", "--preset", "bgi", "--size", "3", "--sidez", "1", "--clips", "stray", "a"
    )
    assert found == [
        "--sidez is not an option; did you mean --sides?",
        "'a' belongs to no option: options begin with --, values with blanks need quotes",
        "--preset bgi does not exist; did you mean big?",
        "BATCH = x (command line --batch): should be a valid integer, unable to parse string as an integer",
        "CLIPS = stray (command line --clips): should be a valid integer, unable to parse string as an integer",
        "RATE = -1 (command line --rate): should be greater than 0",
        "SIZE = 3: use an even SIZE",
    ]


def test_a_check_is_skipped_only_where_its_own_fields_are_wrong() -> None:
    assert problems("--batch", "0", "--clips", "9") == [
        "BATCH = 0 (command line --batch): should be greater than or equal to 1"
    ]
    assert problems("--rate", "0", "--clips", "9")[1:] == ["BATCH = 2, CLIPS = 9: CLIPS must be a multiple of BATCH"]


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        (["--batch"], "--batch needs a value"),
        (["--batch", "--clips", "4"], "--batch needs a value"),
        (["--batch", ""], "--batch needs a value, not an empty text"),
        (["--preset"], "--preset needs a value"),
        (["--sides", "[1"], "--sides is not a JSON list: [1 (Expecting ',' delimiter: line 1 column 3 (char 2))"),
        (["--no-batch"], "--no-batch is not an option; did you mean --batch?"),
        (["--BATCH=3"], "--BATCH is not an option; did you mean --batch?"),
        (["--bat", "3"], "--bat is not an option; did you mean --batch?"),
        (["--zzzzzz"], "--zzzzzz is not an option; --help lists all"),
        (["--preset", "zzz"], "--preset zzz does not exist; choose from plain, big"),
        (["--words"], "--words needs a value"),
        (["--words", "[A"], "--words is not a JSON list: [A (Expecting value: line 1 column 2 (char 1))"),
        (["--words", "[1]"], "WORDS = [1] (command line --words): item 1 should be a valid string"),
    ],
)
def test_one_mistake(typed: list[str], problem: str) -> None:
    assert problems(*typed) == [problem]


def test_a_flag_takes_no_value() -> None:
    assert "ignored explicit argument '0'" in problems("--switch-on=0")[0]


def test_mistakes_in_the_file_and_in_presets_say_where_they_are() -> None:
    class Edited(Example):
        BATCH: int = Field(0, ge=1)
        CLIPS: int = True

    with pytest.raises(UserError) as raised:
        load_settings(Edited, {"plain": {}}, [], program="example.py")
    assert "BATCH = 0 (test_settings.py): should be" in str(raised.value)
    assert "CLIPS = True (test_settings.py): True and False are for switches" in str(raised.value)
    presets: dict[str, dict[str, object]] = {"plain": {}, "big": {"BATCH": 0, "CLIP": 1, "SWITCH_ON": 1}}
    assert problems("--preset", "big", presets=presets) == [
        "CLIP (preset 'big') is not a constant; did you mean CLIPS?",
        "BATCH = 0 (preset 'big' in test_settings.py): should be greater than or equal to 1",
        "SWITCH_ON = 1 (preset 'big' in test_settings.py): this is a switch; use True or False",
    ]


def test_environment_and_dotenv_do_not_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BATCH", "4")
    monkeypatch.setenv("rate", "9")
    (tmp_path / ".env").write_text("SIZE=6\n")
    monkeypatch.chdir(tmp_path)
    assert load().config == Example()
    assert (Example().BATCH, Example().RATE, Example().SIZE) == (2, 0.5, 4)


def test_class_is_frozen_and_knows_its_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example().BATCH = 3
    with pytest.raises(ValidationError, match="CLIPS must be a multiple of BATCH"):
        Example(CLIPS=9)


def test_help_has_headings_descriptions_defaults_and_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        load("--batch", "0", "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert exit_.value.code == 0
    assert "An example." in printed
    assert "First part: --batch int Clips at once, 100% of them. (default: 2) [at least 1] --clips int" in printed
    assert "Second part: --rate {float,none} Rate. (default: 0.5) [above 0]" in printed
    assert "--switch-on, --no-switch-on Switch. (default: True)" in printed
    assert "--sides VALUE,VALUE,... Sides. (default: (8,))" in printed
    assert "--preset NAME named block of settings: plain, big" in printed


def test_json_round_trip() -> None:
    config = Example(ROOT=Path("a/b"), RATE=None, WORDS=("A", "B"), SIDES=(1, 2), KIND=3)
    saved = config_as_json(config)
    assert saved == {
        "BATCH": 2, "CLIPS": 8, "SIZE": 4, "RATE": None, "ROOT": str(Path("a/b")), "SWITCH_ON": True,
        "SIDES": [1, 2], "WORDS": ["A", "B"], "KIND": 3,
    }  # fmt: skip
    assert config_from_json(Example, saved) == config


def test_saved_settings_that_do_not_fit_are_refused() -> None:
    saved: dict[str, Any] = {**config_as_json(Example()), "BATCH": 0, "CLIPZ": 1}
    del saved["RATE"]
    with pytest.raises(UserError) as raised:
        config_from_json(Example, saved)
    assert str(raised.value).split("\n  - ")[1:] == [
        "CLIPZ (saved configuration) is not a constant; did you mean CLIPS?",
        "RATE is missing in the saved configuration; it was written by another version",
        "BATCH = 0 (saved configuration): should be greater than or equal to 1",
    ]


class Folders(Settings):
    """Names of folders may have commas in them too."""

    # --- All
    FOLDERS: tuple[Folder, ...] = ()
    """Folders."""


def test_several_paths_are_several_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_settings(Folders, {"file": {}}, ["--folders", "a, b", "c"], program="program").config
    assert (Path("a, b"), Path("c")) == config.FOLDERS
    with pytest.raises(SystemExit):
        load_settings(Folders, {"file": {}}, ["--help"], program="program")
    assert "--folders TEXT [TEXT ...] Folders." in " ".join(capsys.readouterr().out.split())
