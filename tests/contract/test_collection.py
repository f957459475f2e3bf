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


def collect_again(folder: Path) -> list[str]:
    """Return the names of all tests, the slow ones too, from a process in which all differs that may."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {
        "PYTHONHASHSEED": "2" if environment.get("PYTHONHASHSEED") == "1" else "1",
        "PYTHON_CPU_COUNT": "1",  # from Python 3.13 on
        "TMPDIR": str(folder),
        "TZ": "UTC5" if time.timezone == 0 else "UTC0",
    }
    command = [
        *(sys.executable, "-m", "pytest", f"--rootdir={ROOT}", f"--config-file={ROOT / 'pyproject.toml'}"),
        *("--collect-only", "-q", "-n", "0", "-m", "", "-p", "no:cacheprovider"),
        "--assert=plain",  # rewriting assertions would take half of the time
        str(ROOT / "tests"),
    ]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-2000:]
    return [line for line in finished.stdout.splitlines() if "::" in line]


def file_of(name: str) -> str:
    return name.split("::")[0]


def unstable_names(names: list[str]) -> list[str]:
    """Return names that may differ elsewhere, even where two processes of this machine agree."""
    return [name for name in names if UNSTABLE.search(name) or str(ROOT) in name]


@pytest.mark.slow
def test_names_of_tests_are_the_same_in_every_process(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """What this process collected, seconds ago, another one collects too, and in the same order in each file."""
    names = [item.nodeid for item in request.session.items]
    again = collect_again(tmp_path)
    assert len(again) > 3000
    of_this_process = set(names)
    # Files stand in the order in which they were asked for.
    assert sorted((name for name in again if name in of_this_process), key=file_of) == sorted(names, key=file_of)
    assert unstable_names(again) == []


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
