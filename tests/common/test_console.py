"""Printing to nowhere is no error; printing to somewhere is as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.console import forgiving_output

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
