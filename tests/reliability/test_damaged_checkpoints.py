"""Torn, altered and missing files of real checkpoints: a resume goes on from the last whole one, or touches nothing."""

import hashlib
import itertools
import random
import shutil
from pathlib import Path

import pytest

from checkpoints.checkpoint import load_newest, read_checkpoint
from common.errors import UserError
from tests.grids import mostly_slow
from tests.reliability.launch import train

WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
FILES = (*WEIGHTS, "state.json", "manifest.json")
DAMAGES = ("truncate", "flip", "delete")
OLDER, NEWER = "step_00000002", "step_00000004"
RUN = (
    "--max-steps=4",
    "--save-every-steps=2",
    "--log-every-steps=1000",
    "--no-enable-gradient-histograms",
    "--no-enable-parameter-tracking",
    "--no-enable-video-logging",
    "--no-enable-noise-visualization",
    "--no-enable-performance-profiling",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a training has left two checkpoints."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder, *RUN)
    return folder


@pytest.fixture
def checkpoints(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged, below `tmp_path`."""
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    return tmp_path / "logs" / "run" / "checkpoints"


def damage(file: Path, kind: str, chance: random.Random) -> None:
    content = bytearray(file.read_bytes())
    position = chance.randrange(len(content))
    if kind == "delete":
        file.unlink()
    elif kind == "truncate":
        file.write_bytes(content[:position])
    else:
        content[position] ^= 1 << chance.randrange(8)
        file.write_bytes(content)


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def newest_step(checkpoints: Path) -> int:
    newest = load_newest(checkpoints)
    assert newest is not None
    return newest.state.step


# --- Whole processes


@pytest.mark.parametrize("kind", mostly_slow(DAMAGES))
@pytest.mark.parametrize("name", mostly_slow(FILES, fast=2))
def test_a_resume_goes_on_from_the_checkpoint_before_and_ends_with_the_same_weights(
    undisturbed: Path, checkpoints: Path, tmp_path: Path, name: str, kind: str
) -> None:
    expected = {part: (checkpoints / NEWER / part).read_bytes() for part in WEIGHTS}
    damage(checkpoints / NEWER / name, kind, random.Random(f"{name} {kind}"))
    resumed = train(tmp_path, *RUN, "--resume")
    warnings = [line for line in resumed.said.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert warnings[1].startswith(f"warning: {NEWER} is set aside as ")
    assert warnings[0].startswith(f"warning: checkpoint {checkpoints / NEWER} is damaged (")
    # A digit of a hash that is altered in the manifest blames the file that the hash is of.
    assert any(blamed in warnings[0] for blamed in (FILES if (name, kind) == ("manifest.json", "flip") else (name,)))
    assert f"Going on from step 2: {checkpoints / OLDER}\n" in resumed.said
    assert resumed.saved_steps == [4]
    assert {part: (checkpoints / NEWER / part).read_bytes() for part in WEIGHTS} == expected
    aside, *others = sorted(path.name for path in checkpoints.iterdir() if path.name != "LATEST")
    assert aside.startswith(f"damaged_{NEWER}_")
    assert others == [OLDER, NEWER]
    assert newest_step(checkpoints) == 4  # a new one has its name


def test_where_all_are_damaged_it_says_so_and_touches_nothing(checkpoints: Path, tmp_path: Path) -> None:
    (checkpoints / NEWER / "optimizer.safetensors").unlink()
    state = checkpoints / OLDER / "state.json"
    state.write_bytes(state.read_bytes()[:-1])
    before = hashes(checkpoints.parent)
    refused = train(tmp_path, *RUN, "--resume", exit_code=1)
    assert refused.said.splitlines() == [
        f"warning: checkpoint {checkpoints / NEWER} is damaged (optimizer.safetensors is missing); trying an older one",
        f"warning: checkpoint {checkpoints / OLDER} is damaged (state.json does not match its sha256); trying an older "
        f"one",
        f"error: all 2 checkpoints in {checkpoints} are damaged; restore one from a backup, or start a new run with "
        f"another --experiment-name",
    ]
    assert hashes(checkpoints.parent) == before


# --- Many damages of the same checkpoints


def assert_falls_back(checkpoints: Path, capsys: pytest.CaptureFixture[str], what: object) -> None:
    assert newest_step(checkpoints) == 2, what
    assert f"warning: checkpoint {checkpoints / NEWER} is damaged (" in capsys.readouterr().err, what


def test_no_bit_flipped_in_any_file_goes_unnoticed(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chance = random.Random(0)
    for number in range(200):
        file = checkpoints / NEWER / FILES[number % len(FILES)]
        whole = file.read_bytes()
        damage(file, "flip", chance)
        assert_falls_back(checkpoints, capsys, (number, file.name))
        file.write_bytes(whole)
    assert newest_step(checkpoints) == 4


def test_no_byte_of_the_manifest_can_change_unnoticed(checkpoints: Path) -> None:
    """The one file whose hash is nowhere. Its format version, altered, must not pass for another one."""
    manifest = checkpoints / NEWER / "manifest.json"
    whole = manifest.read_bytes()
    unnoticed = []
    for position, bit in itertools.product(range(len(whole)), (1, 32)):  # the next digit; the other case
        flipped = bytearray(whole)
        flipped[position] ^= bit
        manifest.write_bytes(flipped)
        try:
            read_checkpoint(manifest.parent)
            unnoticed.append(bytes(flipped))
        except UserError as error:
            if not str(error).startswith(f"checkpoint {manifest.parent} is damaged: "):
                unnoticed.append(bytes(flipped))
    assert unnoticed == []


def test_no_truncated_file_goes_unnoticed(checkpoints: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FILES:
        file = checkpoints / NEWER / name
        whole = file.read_bytes()
        lengths = {0, 1, 4096, len(whole) // 2, len(whole) - 4096, len(whole) - 2, len(whole) - 1}
        for length in sorted(length for length in lengths if 0 <= length < len(whole)):
            file.write_bytes(whole[:length])
            assert_falls_back(checkpoints, capsys, (name, length))
        file.write_bytes(whole + b"\0")
        assert_falls_back(checkpoints, capsys, (name, "one byte more"))
        file.write_bytes(whole)


def test_a_pointer_that_is_torn_or_names_something_else_changes_nothing(checkpoints: Path) -> None:
    for pointer in (b"", b"step_000", b"step_00000002\n", b"step_00000009\n", b"../elsewhere\n", bytes(range(256))):
        (checkpoints / "LATEST").write_bytes(pointer)
        assert newest_step(checkpoints) == 4
    (checkpoints / "LATEST").unlink()
    assert newest_step(checkpoints) == 4
