"""Real disks without room: what was saved before stays, and the program says what it could not do."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from checkpoints.checkpoint import Retention, TrainingState, load_newest, read_checkpoint, save_checkpoint
from tests.reliability import faults, launch

WEIGHTS = ("model.safetensors", "ema.safetensors", "optimizer.safetensors")
FILES = (*WEIGHTS, "state.json", "manifest.json")
NO_ROOM = "No space left on device"
LAST_STEP = 8
RUN = (
    f"--max-steps={LAST_STEP}",
    "--save-every-steps=2",
    "--keep-checkpoints=4",
    "--tensorboard-flush-every-steps=1",
)
MakeDisk = Callable[[Path, str], Path]


@pytest.fixture
def make_disk() -> Iterator[MakeDisk]:
    """Mounts a real file system in memory; the options say how large it is."""
    mounted: list[Path] = []

    def make(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True)
        try:
            mount = mount_disk(folder, options)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if mount.returncode != 0:
            pytest.skip(f"a tmpfs cannot be mounted here: {mount.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount_disk(folder: Path, options: str) -> "subprocess.CompletedProcess[str]":
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


# --- One save, at every amount of room


def save(checkpoints: Path, step: int) -> Path:
    """Save tensors of 100 kB each: 26 pages a file, with state.json and the manifest 82 pages in all."""
    tensors = {
        name: {"weight": torch.full((25, 1024), value * step)}
        for name, value in (("model", 1.0), ("ema", -1.0), ("optimizer", 0.5))
    }
    state = TrainingState(
        step=step,
        samples_seen=step,
        skipped_steps=0,
        config={"SAMPLE_PROMPTS": "A" * 9000},
        config_file={},
        symbols=("A",),
        schedule={},
        validation_loss=None,
        best_validation_loss=None,
    )
    return save_checkpoint(checkpoints, state, tensors, Retention(3))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_step_1_is_untouched(checkpoints: Path, before: dict[str, bytes]) -> None:
    assert content(checkpoints) == before  # LATEST too, and nothing is there besides
    assert sorted(path.name for path in checkpoints.iterdir()) == ["LATEST", "step_00000001"]
    newest = load_newest(checkpoints)
    assert newest is not None
    assert newest.state.step == 1
    assert torch.equal(newest.weights("model")["weight"], torch.full((25, 1024), 1.0))


def fill_up(disk: Path, pages_left: int) -> Path:
    ballast = disk / "ballast"
    with open(ballast, "wb") as file:
        space = os.statvfs(disk)
        if space.f_bavail > pages_left:
            os.posix_fallocate(file.fileno(), 0, (space.f_bavail - pages_left) * space.f_frsize)
    assert os.statvfs(disk).f_bavail == pages_left
    return ballast


def pages_of(folder: Path) -> int:
    size = os.statvfs(folder).f_frsize
    return sum(-(-file.stat().st_size // size) for file in folder.iterdir())


def test_a_save_is_whole_or_leaves_no_trace_however_many_pages_are_free(
    tmp_path: Path, make_disk: MakeDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = make_disk(tmp_path / "disk", "size=1m")
    checkpoints = disk / "checkpoints"
    needed = pages_of(save(checkpoints, 1))
    before = content(checkpoints)
    reasons = []
    for pages in range(needed):
        ballast = fill_up(disk, pages)
        with pytest.raises(OSError, match=NO_ROOM) as raised:
            save(checkpoints, 2)
        reasons.append(str(raised.value).split(":")[0])
        assert os.statvfs(disk).f_bavail == pages
        ballast.unlink()
        assert_step_1_is_untouched(checkpoints, before)
    assert capsys.readouterr().err == ""
    assert len(reasons) >= 60
    assert {reason for reason in reasons if "safetensors" in reason} == set(WEIGHTS)  # each was the one too many

    fill_up(disk, needed)  # room for the checkpoint, and none for the pointer to it
    assert load_step(save(checkpoints, 2)) == 2
    assert f"LATEST cannot be written ([Errno 28] {NO_ROOM}); it names an older step" in capsys.readouterr().err
    assert (checkpoints / "LATEST").read_text() == "step_00000001\n"
    shutil.rmtree(checkpoints / "step_00000002")

    fill_up(disk, needed + 1)
    assert load_step(save(checkpoints, 2)) == 2
    assert (checkpoints / "LATEST").read_text() == "step_00000002\n"
    assert capsys.readouterr().err == ""


def load_step(folder: Path) -> int:
    """The step of a new checkpoint, which must be the newest whole one."""
    newest = load_newest(folder.parent)
    assert newest is not None
    assert newest.folder == folder
    return newest.state.step


def test_a_save_leaves_no_trace_where_the_disk_takes_no_more_files(
    tmp_path: Path, make_disk: MakeDisk, capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs a folder and five files; with those, LATEST has no neighbour to be renamed from, and stays."""
    disk = make_disk(tmp_path / "disk", "size=8m,nr_inodes=100")
    checkpoints = disk / "checkpoints"
    save(checkpoints, 1)
    before = content(checkpoints)
    (disk / "ballast").mkdir()
    for number in range(os.statvfs(disk).f_ffree):
        (disk / "ballast" / str(number)).touch()
    for free in range(1 + len(FILES)):
        assert os.statvfs(disk).f_ffree == free
        with pytest.raises(OSError, match=NO_ROOM):
            save(checkpoints, 2)
        assert_step_1_is_untouched(checkpoints, before)
        (disk / "ballast" / str(free)).unlink()
    assert load_step(save(checkpoints, 2)) == 2
    assert "LATEST cannot be written" in capsys.readouterr().err


# --- Whole trainings


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the last checkpoint of a run that has all the room it wants."""
    run = launch.train(tmp_path_factory.mktemp("undisturbed"), *RUN).run
    return run / "checkpoints" / f"step_{LAST_STEP:08d}"


def saved_steps(run: Path) -> list[int]:
    """The checkpoints on the disk, all of which must be whole."""
    folders = sorted((run / "checkpoints").glob("step_*"))
    return [read_checkpoint(folder).state.step for folder in folders]


def assert_nothing_is_half_done(run: Path) -> None:
    assert list(run.rglob(".tmp-*")) == []
    text = (run / "metrics.jsonl").read_text()
    points = [(point["tag"], point["step"]) for point in map(json.loads, text.splitlines())]
    assert text == "" or text.endswith("\n")
    assert len(set(points)) == len(points)


def assert_same_weights(run: Path, undisturbed: Path) -> None:
    last = run / "checkpoints" / undisturbed.name
    assert [name for name in WEIGHTS if (last / name).read_bytes() != (undisturbed / name).read_bytes()] == []


def failures(said: str) -> list[tuple[int, str]]:
    """Every checkpoint that it said could not be written, and what it said would come of it."""
    pattern = rf"the checkpoint of step (\d+) cannot be written: .*{NO_ROOM}(?: \(os error 28\))?(.*)"
    return [(int(step), rest) for step, rest in re.findall(pattern, said)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "saved"),
    [
        ("3040k", [2]),
        pytest.param("64k", [], marks=pytest.mark.slow),  # not even for the first step's curves
        pytest.param("9300k", [2, 4, 6], marks=pytest.mark.slow),
        # For all checkpoints, and not for the samples at the end.
        pytest.param("11750k", [2, 4, 6, 8], marks=pytest.mark.slow),
    ],
)
def test_a_training_on_a_full_disk_ends_by_itself_and_goes_on_when_there_is_room(
    tmp_path: Path, make_disk: MakeDisk, undisturbed: Path, size: str, saved: list[int]
) -> None:
    disk = make_disk(tmp_path / "logs", f"size={size}")
    full = launch.launch(tmp_path, *RUN)
    exit_code = full.end()
    assert saved_steps(full.run) == full.saved_steps == saved, full.said
    assert exit_code == (0 if LAST_STEP in saved else 1), full.said
    went_on = [(step, "; training goes on") for step in (2, 4, 6) if step not in saved]
    where = f"The last checkpoint is of step {saved[-1]}." if saved else "There is no checkpoint yet."
    stopped = [(LAST_STEP, f". {where}")] if LAST_STEP not in saved else []
    assert failures(full.said) == went_on + stopped, full.said
    assert ("\nerror: " in full.said) is bool(stopped)
    if not stopped or not saved:  # something besides the last checkpoint found no room
        assert "Logging: " in full.said
    assert "Traceback" not in full.said
    assert_nothing_is_half_done(full.run)

    assert mount_disk(disk, "remount,size=64m").returncode == 0
    resumed = launch.train(tmp_path, *RUN, "--resume")
    assert failures(resumed.said) == []
    assert ("Going on from step" in resumed.said) is (0 < len(saved) < 4)
    if 0 < len(saved) < 4:
        assert f"Going on from step {saved[-1]}:" in resumed.said
    assert saved_steps(resumed.run) == [2, 4, 6, 8]
    assert_nothing_is_half_done(resumed.run)
    assert_same_weights(resumed.run, undisturbed)


def test_one_save_that_finds_no_room_is_a_warning_and_the_next_one_counts(
    tmp_path: Path, make_disk: MakeDisk, undisturbed: Path
) -> None:
    """There is room for one checkpoint; somebody cleans up when the second has failed."""
    disk = make_disk(tmp_path / "logs", "size=16m")
    ballast = fill_up(disk, 1200)  # pages: 4.9 MB, and a checkpoint takes 2.9 MB
    run = launch.train(tmp_path, *RUN, faults=[partial(faults.make_room_after_a_failed_save, ballast)])
    assert failures(run.said) == [(4, "; training goes on")]
    assert saved_steps(run.run) == run.saved_steps == [2, 6, 8]
    assert "\nerror: " not in run.said
    assert_nothing_is_half_done(run.run)
    assert_same_weights(run.run, undisturbed)
