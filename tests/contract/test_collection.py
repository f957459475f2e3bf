"""Every process collects the same tests in the same order: pytest-xdist refuses to share the work otherwise.

So the name of a test must not hold what differs between processes or machines, such as the time, an address or a hash.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Addresses, and pytest's escapes for what cannot be printed: raw bytes, which are often computed.
UNSTABLE = re.compile(r"\b0x[0-9a-f]{6,}|\\x[0-9a-f]{2}")
SECONDS_APART = 1.1  # so that names with the current second differ


def start_collection(folder: Path, number: int) -> subprocess.Popen[str]:
    """Start pytest in a new folder to list all tests; what names must not depend on follows the number."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        "PYTHONHASHSEED": str(number),
        "PYTHON_CPU_COUNT": str(number),  # from Python 3.13 on
        "TMPDIR": str(folder),
        "TZ": f"UTC{number}",
    }
    command = [
        *(sys.executable, "-m", "pytest", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"),
        *("--collect-only", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider"),
        "--assert=plain",  # rewriting assertions would take half of the time
        str(ROOT / "tests"),
    ]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def unstable_names(names: list[str]) -> list[str]:
    """Return names that may differ elsewhere, even where two processes of this machine agree."""
    return [name for name in names if UNSTABLE.search(name) or str(ROOT) in name]


def test_names_of_tests_are_the_same_in_every_process(tmp_path: Path) -> None:
    first = start_collection(tmp_path / "first", 1)
    time.sleep(SECONDS_APART)
    second = start_collection(tmp_path / "second", 2)
    outputs = [process.communicate()[0] for process in (first, second)]
    assert first.returncode == second.returncode == 0, [output[-2000:] for output in outputs]
    names, again = ([line for line in output.splitlines() if "::" in line] for output in outputs)
    differing = [pair for pair in zip(names, again, strict=False) if pair[0] != pair[1]]
    assert not differing, differing[:5]
    assert len(names) == len(again) > 3000
    assert unstable_names(names) == []


@pytest.mark.parametrize(
    ("name", "is_unstable"),
    [
        ("test_x.py::test[<function f at 0x7f32c1d8a40>]", True),
        (r"test_x.py::test[\x1f\x8b-gzip]", True),
        (f"test_x.py::test[{ROOT / 'config.py'}]", True),
        (r"test_x.py::test[0x20-config.py-line\nbreak]", False),
    ],
    ids=["address", "bytes", "absolute path", "stable"],
)
def test_an_unstable_name_is_found(name: str, is_unstable: bool) -> None:
    assert bool(unstable_names([name])) == is_unstable
