"""Waiting for a device that is behind, with devices that are not there."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import main
import training.estimate
from training.device import ComputeDevice, choose_device
from training.estimate import ClipCost
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
    # The estimate before the first step waits as well; it is not what is counted here.
    monkeypatch.setattr(training.estimate, "measure_clip", lambda *_: ClipCost(1.0, 0, 0, 0.0))
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


@pytest.mark.parametrize(
    ("mixed_precision", "has_avx512", "has_amx", "expected"),
    [
        ("auto", True, False, torch.bfloat16),
        ("auto", False, True, torch.bfloat16),
        ("auto", False, False, None),
        ("off", True, True, None),
        ("bfloat16", False, False, torch.bfloat16),
    ],
)
def test_a_cpu_takes_bfloat16_where_it_computes_in_it_or_is_told_to(
    mixed_precision: str,
    has_avx512: bool,
    has_amx: bool,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    compute = choose_device("cpu", mixed_precision)
    assert compute.autocast_dtype is expected
    with compute.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (expected or torch.float32)
