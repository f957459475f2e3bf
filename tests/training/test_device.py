"""Waiting for a device that is behind, with devices that are not there."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import main
from training.device import ComputeDevice
from training.loop import LoopCadence

LAG_SECONDS = 0.3


def test_waiting_asks_the_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(device))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("mps"))
    ComputeDevice(torch.device("cuda", 1), None).wait()
    assert calls == [torch.device("cuda", 1)]
    ComputeDevice(torch.device("mps"), None).wait()
    assert calls[1:] == ["mps"]
    ComputeDevice(torch.device("cpu"), None).wait()
    assert len(calls) == 2


def test_something_looks_at_the_device_at_each_cadence_and_never_between() -> None:
    cadence = LoopCadence(validate_every=6, save_every=8, report_every=4, sample_every=9, diagnose_every=11)
    assert [step for step in range(1, 17) if cadence.looks_at(step)] == [4, 6, 8, 9, 11, 12, 16]


def test_work_that_the_device_still_has_counts_as_training_and_not_as_logging(
    small_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []

    def lag(device: ComputeDevice) -> None:
        waits.append(1)
        time.sleep(LAG_SECONDS)

    monkeypatch.setattr(ComputeDevice, "wait", lag)
    arguments = small_arguments(
        "--experiment-name=lag",
        "--max-steps=7",
        "--log-every-steps=4",
        "--no-enable-video-logging",
        "--no-enable-noise-visualization",
    )
    assert main.main(arguments) == 0
    assert len(waits) == 4  # steps 1 and 4, 6, which ends an epoch, and 7, which ends the run; not once a step
    points = map(json.loads, (tmp_path / "logs" / "lag" / "metrics.jsonl").read_text().splitlines())
    seconds = [point["value"] for point in points if point["tag"] == "05_Performance/Step_Time_Seconds"]
    assert seconds[0] >= 2 * LAG_SECONDS / 4
    assert seconds[1] >= 2 * LAG_SECONDS / 3
