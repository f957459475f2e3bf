"""Reading back what the logging system wrote."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

EVERYTHING = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}


@pytest.fixture
def accumulate() -> Callable[[Path], EventAccumulator]:
    """Read a run with TensorBoard's own reader."""

    def load(run_folder: Path) -> EventAccumulator:
        return EventAccumulator(str(run_folder), size_guidance=EVERYTHING).Reload()

    return load


@pytest.fixture
def read_events() -> Callable[[Path], list[Event]]:
    """Read every record of a run's event files, in order, with TensorBoard's own reader."""

    def load(run_folder: Path) -> list[Event]:
        return [
            event for path in sorted(run_folder.glob("*tfevents*")) for event in LegacyEventFileLoader(str(path)).Load()
        ]

    return load


@pytest.fixture
def read_metrics() -> Callable[[Path], list[tuple[str, int, float | str]]]:
    """Read metrics.jsonl as (tag, step, value), refusing what strict JSON does not allow."""

    def refuse(text: str) -> float:
        raise AssertionError(f"{text} is not JSON")

    def load(run_folder: Path) -> list[tuple[str, int, float | str]]:
        lines = (run_folder / "metrics.jsonl").read_text().splitlines()
        points = [json.loads(line, parse_constant=refuse) for line in lines]
        assert all(set(point) == {"step", "tag", "value"} for point in points)
        return [(point["tag"], point["step"], point["value"]) for point in points]

    return load


class StubbornDisk:
    """Opens real files whose writes fail with ENOSPC while ``is_full``, after taking ``bytes_left`` bytes."""

    def __init__(self) -> None:
        self.is_full = False
        self.bytes_left = 0

    def open(self, path: Path) -> "StubbornFile":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return StubbornFile(self, path)


class StubbornFile:
    def __init__(self, disk: StubbornDisk, path: Path) -> None:
        self._disk = disk
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)

    def write(self, data: memoryview, /) -> int | None:
        if not self._disk.is_full:
            return self._file.write(data)
        if self._disk.bytes_left == 0:
            raise OSError(28, "No space left on device")
        written = self._file.write(data[: self._disk.bytes_left])
        self._disk.bytes_left -= written
        return written

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def disk() -> StubbornDisk:
    return StubbornDisk()


@pytest.fixture
def count_transfers() -> Callable[[], AbstractContextManager[list[str]]]:
    """Count the copies from the device to the host; single numbers must not be asked for at all."""

    @contextmanager
    def count() -> Iterator[list[str]]:
        original = torch.Tensor.cpu
        transfers: list[str] = []

        def cpu(tensor: torch.Tensor) -> torch.Tensor:
            transfers.append("cpu")
            return original(tensor)

        def forbid(tensor: torch.Tensor) -> None:
            raise AssertionError("item() asks the device for a single number")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "cpu", cpu)
            patch.setattr(torch.Tensor, "item", forbid)
            yield transfers

    return count
