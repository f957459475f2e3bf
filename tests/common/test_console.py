"""All programs print to any console, fail alike, and suggest commands that can be pasted."""

import argparse
import ast
import functools
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from common import console
from common.console import command, counted, forgiving_output, program
from common.errors import UserError
from tests.sources import ROOMS, python_files

ROOT = Path(__file__).resolve().parents[2]
PRINT = """
import sys
from common.console import forgiving_output
with forgiving_output():
    for _ in range(3000):
        print("words, and more words", flush=True)
        print("words, and more words", file=sys.stderr)
sys.exit(7)
"""


def test_what_is_printed_arrives(capsys: pytest.CaptureFixture[str]) -> None:
    streams = sys.stdout, sys.stderr
    with forgiving_output():
        assert not sys.stdout.isatty()
        print("one")
        print("two", file=sys.stderr)
    assert (sys.stdout, sys.stderr) == streams
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("one\n", "two\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_and_a_reader_that_has_gone_do_not_change_the_exit_code() -> None:
    with open("/dev/full", "wb") as full:
        assert subprocess.run([sys.executable, "-c", PRINT], cwd=ROOT, stdout=full, stderr=full).returncode == 7
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert subprocess.run([sys.executable, "-c", PRINT], cwd=ROOT, stdout=writer, stderr=writer).returncode == 7
    finally:
        os.close(writer)


def test_what_the_terminal_cannot_show_is_spelled_out() -> None:
    program = "from common.console import forgiving_output\nwith forgiving_output(): print('José signs 你好')"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1251:strict"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == b"Jos\\xe9 signs \\u4f60\\u597d\n"


def has_its_own_start(path: Path) -> bool:
    return '__name__ == "__main__"' in path.read_text(encoding="utf-8")


PROGRAMS = [path.relative_to(ROOT) for path in python_files(*ROOMS, "benchmarks", "docs") if has_its_own_start(path)]


def test_there_are_programs() -> None:
    assert {Path("main.py"), Path("generate.py"), Path("evaluation/__main__.py")} <= set(PROGRAMS)


@pytest.mark.parametrize("path", PROGRAMS, ids=str)
@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_every_program_prints_and_fails_alike_on_any_console(
    path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command line is what every program reads first: here it prints two scripts, and then cannot be used."""

    def fail(*arguments: object, **options: object) -> None:
        print("José signs 你好")
        raise UserError("there is no कि")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", fail)
    streams = [io.TextIOWrapper(io.BytesIO(), encoding, errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    try:
        main = importlib.import_module(".".join(path.with_suffix("").parts)).main
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    assert main([]) == 1
    printed, said = (stream.buffer.getvalue() for stream in streams)
    assert printed == b"Jos\xe9 signs \\u4f60\\u597d\n" if encoding == "cp1252" else b"Jos\\xe9 signs \\u4f60\\u597d\n"
    assert said == b"error: there is no \\u0915\\u093f\n"


def test_a_program_ends_with_the_exit_code_that_its_end_calls_for(capsys: pytest.CaptureFixture[str]) -> None:
    @program
    def main(end: BaseException | int | None) -> int | None:
        if isinstance(end, BaseException):
            raise end
        return end

    assert [main(end) for end in (None, 0, 3, UserError("no run"), KeyboardInterrupt())] == [0, 0, 3, 1, 130]
    assert capsys.readouterr().err == "error: no run\ninterrupted\n"
    with pytest.raises(SystemExit):
        main(SystemExit(2))
    with pytest.raises(ValueError, match="a mistake"):
        main(ValueError("a mistake"))


def test_things_are_counted_right() -> None:
    assert [counted(count, "clip") for count in (0, 1, 2, 1000)] == ["0 clips", "1 clip", "2 clips", "1000 clips"]
    assert [counted(count, "is", "are") for count in (0, 1, 2)] == ["0 are", "1 is", "2 are"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other quotes")
@pytest.mark.parametrize(
    "name", ["logs", "my clips", "it's", 'a"b', "$HOME", "a\\b", "क्", "two\nlines", "it's\ttab\\", "\udcff", "-x;y&z"]
)
def test_a_suggested_command_can_be_pasted(name: str) -> None:
    line = command("printf", "%s", Path(name))
    assert line.isprintable()
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == os.fsencode(name)
    if name.isprintable():
        assert shlex.split(line) == ["printf", "%s", name]


UNQUOTED = re.compile(r"\bpython [^`.;)]*(\.py[^`.;)]*)?[ =]$")


def unquoted_commands(source: str) -> list[str]:
    """Return the beginnings of commands in f-strings that go on with a value."""
    return [
        before.value
        for string in ast.walk(ast.parse(source))
        if isinstance(string, ast.JoinedStr)
        for before, after in zip(string.values, string.values[1:], strict=False)
        if isinstance(before, ast.Constant) and isinstance(after, ast.FormattedValue) and UNQUOTED.search(before.value)
    ]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('f"Look: python main.py --data-root {path}"', ["Look: python main.py --data-root "]),
        ('f"python -m data inspect {path} names all"', ["python -m data inspect "]),
        ('f"python launch_tensorboard.py --logdir={path}"', ["python launch_tensorboard.py --logdir="]),
        ('f"Train (python main.py), or look in {path}"', []),
        ('f"python -m benchmarks.{name}"', []),
    ],
)
def test_the_finder_finds_what_it_should(source: str, expected: list[str]) -> None:
    assert unquoted_commands(source) == expected


def test_no_message_suggests_a_command_without_quoting_its_names() -> None:
    """`command` writes it: a folder may have a space in its name."""
    found = {path: unquoted_commands(path.read_text(encoding="utf-8")) for path in python_files(*ROOMS)}
    assert {path: commands for path, commands in found.items() if commands} == {}


def test_no_message_gives_a_number_to_a_noun_that_stays_plural() -> None:
    """`counted` writes it: 1 clip, 2 clips."""
    noun = re.compile(r"\{[^{}]*\} (clips|texts|shards|recordings|videos|runs)\b")
    found = [
        (path.relative_to(ROOT), match[0])
        for path in python_files(*ROOMS)
        for match in noun.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_ctrl_c_while_a_program_imports_is_one_line() -> None:
    """Of any program that imports the console first; what else fails keeps its traceback."""
    for raised, said in (("KeyboardInterrupt", "interrupted\n"), ("KeyError(1)", "Traceback (most recent call last)")):
        code = f"import common.console; raise {raised}"
        finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert finished.stderr.startswith(said)
        assert finished.returncode != 0


def test_without_a_terminal_progress_is_lines_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 4.0, 10.0, 10.0, 14.0, 20.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(console, "tqdm", functools.partial(tqdm, disable=True))
    assert list(console.with_progress(["a", "b", "c", "d"], "decoding clips")) == ["a", "b", "c", "d"]
    assert capsys.readouterr().err == "decoding clips: 1 of 4\ndecoding clips: 3 of 4\n"
