"""The bundle for a bare machine holds what the project needs there, and no more than may travel."""

import importlib.metadata
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import gpu_bundle
from data.fingerspelling.lexicon import language_entries
from tests.sources import ROOT

THERE = {"torch", "torchvision", "tensorboard", "numpy", "psutil", "pillow", "tqdm", "safetensors", "filelock"}
"""What the requirements ask for and a machine with PyTorch for its GPU is expected to have."""
THERE_WITH_THOSE = {"scipy", "pyyaml", "typing-extensions"}
NEVER_USED = {"simple-video-utils"}  # pose-format draws videos with it


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement.strip(), maxsplit=1)[0].lower().replace("_", "-")


def test_wheels_and_letters_are_all_that_the_requirements_ask_for_beyond_what_is_there() -> None:
    lines = (ROOT / "requirements-newest.txt").read_text().splitlines()
    asked_for = {name_of(line) for line in lines if not line.startswith("#")}
    assert asked_for - set(gpu_bundle.WHEELS) == THERE | {"spoken-to-signed"}


@pytest.mark.parametrize("name", gpu_bundle.WHEELS)
def test_what_a_wheel_needs_is_packed_or_there(name: str) -> None:
    needs = [line for line in importlib.metadata.requires(name) or [] if "extra ==" not in line]
    elsewhere = ("python_version <", "platform_system ==", "sys_platform ==")  # for other Pythons and systems
    needed = {name_of(line) for line in needs if not any(words in line for words in elsewhere)}
    assert needed <= {*gpu_bundle.WHEELS, *THERE, *THERE_WITH_THOSE, *NEVER_USED}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, and no package index."""
    root = tmp_path / "repository"
    for name in ("main.py", "tests/test_main.py", "docs/page.md", "docs/images/big.png", "benchmarks/images/big.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / "main.py").write_text("not committed")
    monkeypatch.setattr(gpu_bundle, "ROOT", root)
    monkeypatch.setattr(gpu_bundle, "_download_wheels", lambda folder, *_: (folder / "a.whl").write_bytes(bytes(1000)))
    return root


def test_a_bundle_holds_the_commit_the_letters_of_one_language_and_the_recognisers(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recogniser = tmp_path / "cache" / "recognisers" / "key.safetensors"
    recogniser.parent.mkdir(parents=True)
    recogniser.write_text("weights")
    bundle = tmp_path / "bundle"
    assert gpu_bundle.main([str(bundle), f"--cache-dir={tmp_path / 'cache'}"]) == 0
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=repository, capture_output=True, text=True, check=True)
    source = bundle / f"text2sign-{commit.stdout[:12]}"
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()} == {
        "main.py",
        "docs/page.md",
    }
    assert (source / "main.py").read_text() == "main.py"
    assert {"run.sh", "wheels/a.whl", "cache/recognisers/key.safetensors"} < files
    poses = {name for name in files if name.endswith(".pose")}
    assert len(poses) == len(language_entries("ase")) == 26
    assert source.name in (bundle / "run.sh").read_text()
    assert "sh bundle/run.sh" in capsys.readouterr().out


def test_one_that_is_too_large_or_there_already_is_refused(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, nowhere = tmp_path / "bundle", f"--cache-dir={tmp_path / 'none'}"
    monkeypatch.setattr(gpu_bundle, "LIMIT_BYTES", 2**20)
    assert gpu_bundle.main([str(bundle), nowhere]) == 1
    assert "more than the 1 that may travel" in capsys.readouterr().err
    assert gpu_bundle.main([str(bundle), nowhere]) == 1
    assert "is there already" in capsys.readouterr().err
