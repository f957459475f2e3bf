"""A run that is resumed with other constants: refused where the weights would mean something else, told otherwise."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from common.settings import config_as_json
from config import Config
from tests.reliability.launch import TINY, train
from tests.reliability.payloads import run_each
from tests.reliability.read_back import curve, newest, state_of
from tests.sources import ROOMS, ROOT

LEAN = ("--no-enable-video-logging", "--no-enable-noise-visualization")
KEPT = ("--text-layers", "--text-heads", "--text-channels", "--image-size", "--max-frames", "--model-channels")
KEPT += ("--spatial-attention-sizes", "--attention-head-channels", "--max-word-letters")
DIFFERENCES = "15_Configuration/Resume_Differences"
RATE = Config().LEARNING_RATE
WARMUP = Config().LR_WARMUP_STEPS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps, whose architecture came from the command line; each test copies it."""
    return train(tmp_path_factory.mktemp("trained"), *LEAN, "--max-steps=2").run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "logs" / "run")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, with a config.py to edit."""
    folder = tmp_path_factory.mktemp("program")
    for source in ROOT.glob("*.py"):
        shutil.copy2(source, folder)
    for package in ROOMS:
        shutil.copytree(ROOT / package, folder / package)
    return folder


def edit(program: Path, **values: str) -> None:
    """Write the program's config.py with other defaults."""
    text = (ROOT / "config.py").read_text("utf-8")
    for name, value in values.items():
        text, count = re.subn(rf"^(    {name}: \w+ = Field\()[^,]+,", rf"\g<1>{value},", text, flags=re.MULTILINE)
        assert count == 1, name
    (program / "config.py").write_text(text, "utf-8")


def resume_options(run: Path) -> list[str]:
    """Return what a user gives again: only what is not of the architecture."""
    options = [option for option in TINY if option.split("=")[0] not in KEPT]
    folders = [f"--log-dir={run.parent}", f"--cache-dir={run.parent.parent / 'cache'}"]
    return [*options, *folders, *LEAN, "--resume", "--max-steps=3"]


def resume_with(program: Path, run: Path) -> subprocess.CompletedProcess[str]:
    """Run the copied main.py on a run."""
    return subprocess.run(
        [sys.executable, "main.py", *resume_options(run)],
        cwd=program,
        # Without byte code: two edits within a second are one to Python's cache.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def contents(run: Path) -> dict[str, tuple[str, int]]:
    """Return every file but the lock, with its hash and when it was written."""
    return {
        str(path.relative_to(run)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in run.rglob("*")
        if path.is_file() and path.name != "run.lock"
    }


def logged_differences(run: Path) -> dict[int, list[str]]:
    """Return the differences in the event files as step -> lines, with Markdown's escapes taken back."""
    return {
        event.step: re.sub(r"\\(.)", r"\1", value.tensor.string_val[0].decode()).splitlines()
        for path in sorted(run.glob("*tfevents*"))
        for event in LegacyEventFileLoader(str(path)).Load()
        for value in event.summary.value
        if value.tag == DIFFERENCES
    }


def printed_differences(said: str) -> list[str]:
    return re.findall(r"^Differs from the checkpoint: (.*)$", said, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["--text-layers=2"],
            ["TEXT_LAYERS is 2 now (command line or preset) and 1 in the checkpoint"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--seed=5"],
            ["SEED is 5 now (command line or preset) and 0 in the checkpoint"],
            marks=pytest.mark.slow,
        ),
        (
            ["--model-channels=16,32", "--max-word-letters=3", "--learning-rate=0.5"],
            [
                "MODEL_CHANNELS is [16, 32] now (command line or preset) and [16] in the checkpoint",
                "MAX_WORD_LETTERS is 3 now (command line or preset) and 2 in the checkpoint",
            ],
        ),
    ],
    ids=["architecture", "split", "several"],
)
def test_what_the_weights_depend_on_cannot_be_changed_and_both_values_are_named(
    run: Path, arguments: list[str], told: list[str]
) -> None:
    before = contents(run)
    refused = train(run.parents[1], *LEAN, "--resume", "--max-steps=3", *arguments, exit_code=1)
    assert "error: cannot resume with another architecture or another split" in refused.said
    conflicts = [line.strip() for line in refused.said.splitlines() if " in the checkpoint" in line]
    assert sorted(conflicts) == sorted(told)
    assert f"go on with {newest(run)}" in refused.said
    assert "Traceback" not in refused.said
    assert contents(run) == before


def test_another_learning_rate_is_used_printed_and_logged(run: Path) -> None:
    changed = f"LEARNING_RATE: {RATE} in the checkpoint, 0.002 now; today's is used"
    longer = "MAX_STEPS: 2 in the checkpoint, 3 now; today's is used"
    resumed = train(run.parents[1], *LEAN, "--resume", "--max-steps=3", "--learning-rate=0.002")
    # The folders are others because the run was copied.
    here = [line for line in printed_differences(resumed.said) if "_DIR: " not in line]
    assert sorted(here) == [changed, longer]
    logged = logged_differences(run)
    assert list(logged) == [3]
    assert logged[3] == [f"- {line}" for line in printed_differences(resumed.said)]
    assert json.loads((run / "config.json").read_text())["LEARNING_RATE"] == 0.002
    assert state_of(newest(run))["config"]["LEARNING_RATE"] == 0.002
    rates = curve(run, "01_Training/Learning_Rate")
    assert rates == pytest.approx({1: RATE / WARMUP, 2: 2 * RATE / WARMUP, 3: 3 * 0.002 / WARMUP})

    again = train(run.parents[1], *LEAN, "--resume", "--max-steps=4")
    back = f"LEARNING_RATE: 0.002 in the checkpoint, {RATE} now; today's is used"
    assert back in printed_differences(again.said)
    assert [step for step, lines in logged_differences(run).items() if f"- {back}" in lines] == [4]
    assert json.loads((run / "config.json").read_text())["LEARNING_RATE"] == RATE


def test_without_a_change_nothing_is_said_to_differ(trained: Path) -> None:
    before = contents(trained)
    again = train(trained.parents[1], *LEAN, "--resume", "--max-steps=2")
    assert "Nothing to do" in again.said
    assert printed_differences(again.said) == []
    assert logged_differences(trained) == {}
    assert contents(trained) == before


@pytest.mark.slow
def test_an_architecture_edited_in_config_py_since_is_refused_and_the_file_is_named(run: Path, program: Path) -> None:
    before = contents(run)
    edit(program, TEXT_LAYERS="3", LEARNING_RATE="7e-4")
    refused = resume_with(program, run)
    assert refused.returncode == 1, refused.stderr
    assert "\n  TEXT_LAYERS is 3 now (config.py) and 1 in the checkpoint\n" in refused.stderr
    assert refused.stderr.count(" in the checkpoint\n") == 1
    assert "Traceback" not in refused.stderr
    assert contents(run) == before


@pytest.mark.slow
def test_another_constant_edited_in_config_py_since_is_used_and_printed(run: Path, program: Path) -> None:
    edit(program, LEARNING_RATE="7e-4")
    resumed = resume_with(program, run)
    assert resumed.returncode == 0, resumed.stderr
    printed = printed_differences(resumed.stdout)
    assert f"LEARNING_RATE: {RATE} in the checkpoint, 0.0007 now; today's is used" in printed
    assert logged_differences(run)[3] == [f"- {line}" for line in printed]
    assert json.loads((run / "config.json").read_text())["LEARNING_RATE"] == 0.0007
    assert curve(run, "01_Training/Learning_Rate")[3] == pytest.approx(3 * 0.0007 / WARMUP)


def test_with_an_unedited_config_py_a_run_keeps_the_architecture_that_its_command_line_gave(
    run: Path, tmp_path: Path
) -> None:
    (resumed,) = run_each(tmp_path, "main", [resume_options(run)])
    assert resumed.exit_code == 0, resumed.said
    assert f"Going on from step 2: {run / 'checkpoints' / 'step_00000002'}" in resumed.said
    printed = printed_differences(resumed.said)
    assert f"TEXT_LAYERS: 1 in the checkpoint, {Config().TEXT_LAYERS} now; the checkpoint's is kept" in printed
    then, file = state_of(newest(run))["config"], config_as_json(Config())
    kept = {option.removeprefix("--").replace("-", "_").upper() for option in KEPT}
    assert {line.split(":")[0] for line in printed if line.endswith("the checkpoint's is kept")} == {
        name for name in kept if then[name] != file[name]
    }
    text = {name: value for name, value in then.items() if name.startswith("TEXT_")}
    assert text == {"TEXT_ENCODER": "characters", "TEXT_CHANNELS": 16, "TEXT_LAYERS": 1, "TEXT_HEADS": 1}
    assert state_of(newest(run))["step"] == 3
