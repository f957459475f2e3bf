"""Whole small runs, in this process, and disks that fill up."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

import main
from checkpoints.checkpoint import list_checkpoints
from logging_system import dispatcher
from logging_system.files.writer import Writer
from tests.reliability.launch import SMALLEST, end_all

STEPS = 4
SMALL = (
    *SMALLEST,
    "--epoch-size=4",
    "--parameter-tracking-max-layers=6",
    f"--max-steps={STEPS}",
    "--tensorboard-flush-every-steps=1",
    "--diagnostic-log-every-steps=2",
    "--sample-every-steps=2",
    "--validate-every-steps=2",
)
FOLLOWS_THE_CLOCK = ("05_Performance", "14_System", "03_Epoch_Summary/Epoch_Time")  # values differ from run to run


@dataclass(frozen=True)
class FinishedRun:
    """The folder of a run, read back."""

    folder: Path

    def weights(self) -> dict[str, torch.Tensor]:
        """Return every tensor of the newest checkpoint."""
        newest = list_checkpoints(self.folder / "checkpoints")[0]
        return {
            f"{name}/{key}": tensor
            for name in ("model", "ema", "optimizer")
            for key, tensor in load((newest / f"{name}.safetensors").read_bytes()).items()
        }

    def state(self) -> dict[str, object]:
        """Return what the newest checkpoint says about the run."""
        return json.loads((list_checkpoints(self.folder / "checkpoints")[0] / "state.json").read_text())

    def scalars(self) -> dict[tuple[str, int], float | str]:
        """Return metrics.jsonl as (tag, step) -> value; each point may be there only once."""
        lines = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        points = {(line["tag"], line["step"]): line["value"] for line in lines}
        assert len(points) == len(lines)
        return points

    def curve(self, tag: str) -> dict[int, float | str]:
        """Return one scalar tag as step -> value."""
        return {step: value for (name, step), value in self.scalars().items() if name == tag}

    def events(self) -> dict[tuple[str, int], bytes]:
        """Return every value of the event files as (tag, step) -> picture (empty for other kinds)."""
        return {
            (value.tag, event.step): value.image.encoded_image_string
            for path in sorted(self.folder.glob("*tfevents*"))
            for event in LegacyEventFileLoader(str(path)).Load()
            for value in event.summary.value
        }

    def pictures(self) -> dict[tuple[str, int], bytes]:
        """Return the PNG and GIF files of the event files."""
        return {point: content for point, content in self.events().items() if content}


@dataclass
class FullDisk:
    """Opens real files; once ``capacity`` bytes are written, a write takes what fits and the next one raises ENOSPC.

    After ``patience`` refusals there is space again; None means never.
    """

    capacity: int
    patience: int | None = None
    written: int = 0
    refusals: list[Path] = field(default_factory=list)

    def open(self, path: Path) -> "FileOnFullDisk":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return FileOnFullDisk(self, path)

    @property
    def space(self) -> int:
        has_recovered = self.patience is not None and len(self.refusals) >= self.patience
        return 2**40 if has_recovered else self.capacity - self.written


class FileOnFullDisk:
    def __init__(self, disk: FullDisk, path: Path) -> None:
        self._disk, self._path = disk, path
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def write(self, data: memoryview, /) -> int | None:
        if self._disk.space <= 0:
            self._disk.refusals.append(self._path)
            raise OSError(28, "No space left on device")
        written = self._file.write(data[: self._disk.space])
        self._disk.written += written
        return written

    def close(self) -> None:
        self._file.close()


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left() -> Iterator[None]:
    """A test that fails, or is interrupted, leaves no training running."""
    yield
    end_all()


@pytest.fixture(scope="session")
def clip_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clip_cache")


@pytest.fixture
def train(tmp_path: Path, clip_cache: Path) -> Callable[..., FinishedRun]:
    """Train in this process with the small arguments and more; the run must end normally."""

    def start(*more: str, log_dir: Path = tmp_path / "logs") -> FinishedRun:
        arguments = [*SMALL, "--experiment-name=run", f"--log-dir={log_dir}", f"--cache-dir={clip_cache}", *more]
        assert main.main(arguments) == 0
        return FinishedRun(log_dir / "run")

    return start


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, clip_cache: Path) -> FinishedRun:
    """The same run without a fault."""
    logs = tmp_path_factory.mktemp("undisturbed")
    assert main.main([*SMALL, "--experiment-name=run", f"--log-dir={logs}", f"--cache-dir={clip_cache}"]) == 0
    run = FinishedRun(logs / "run")
    assert not (run.folder / "logging_errors.log").exists()
    assert "05_Performance/Logging_Failures" not in {tag for tag, _ in run.scalars()}
    return run


@pytest.fixture
def assert_same_weights(undisturbed: FinishedRun) -> Callable[[FinishedRun], None]:
    """Compare every tensor of the last checkpoint, bit for bit, with the run without a fault."""

    def check(run: FinishedRun) -> None:
        expected, found = undisturbed.weights(), run.weights()
        assert expected.keys() == found.keys()
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == []

    return check


@pytest.fixture
def assert_nothing_lost(undisturbed: FinishedRun) -> Callable[..., None]:
    """Every point of the run without a fault is there, with its value, but for tags that start with ``but``."""

    def check(run: FinishedRun, *but: str) -> None:
        # Readings of the system come when its thread has them, so only their names are the same in every run.
        loose = (*but, "14_System", *(("_hparams_", "custom_scalars") if "15_Configuration" in but else ()))
        expected, found = undisturbed.events(), run.events()
        assert {point for point in expected.keys() - found.keys() if not point[0].startswith(loose)} == set()
        names = [{tag for tag, _ in points if tag.startswith("14_System")} for points in (expected, found)]
        assert "14_System" in but or names[0] == names[1]
        still = (*loose, *FOLLOWS_THE_CLOCK)
        before, after = undisturbed.scalars(), run.scalars()
        assert [p for p in before if not p[0].startswith(still) and before[p] != after.get(p)] == []

    return check


@pytest.fixture
def use_full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[FullDisk, list[Writer]]]:
    """Put the event file and metrics.jsonl on a disk of so many bytes; the list will hold the run's writer."""

    def use(capacity: int, patience: int | None) -> tuple[FullDisk, list[Writer]]:
        disk, writers = FullDisk(capacity, patience), []

        def make(*arguments: Any, **options: Any) -> Writer:
            writers.append(Writer(*arguments, open_file=disk.open, **options))
            return writers[-1]

        monkeypatch.setattr(dispatcher, "Writer", make)
        return disk, writers

    return use


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MB in memory."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
