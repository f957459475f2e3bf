"""The model of a cluster, further: what FSDP sends beside the weights, and what the host works meanwhile."""

from dataclasses import replace

import pytest
import torch

from benchmarks import cluster_formulas as formulas
from benchmarks.cluster_formulas import Choice, memory_of, step_time, update_seconds
from benchmarks.cluster_host import host_seconds_a_clip
from benchmarks.cluster_report import limits_table, time_table
from benchmarks.cluster_workload import Unit
from common.settings import load_settings
from config import PRESETS, Config
from tests.benchmarks.test_cluster_model import CLUSTER, GPU, WORK


def test_parts_are_rows_and_what_is_missing_is_padding() -> None:
    """8 processes have 4, 5 and 4 rows of 10 numbers at most."""
    assert [unit.padded(8) for unit in (*WORK.units, WORK.outer_unit)] == [320, 400, 320]
    assert Unit(((5, 3), (8, 1))).padded(4) == 4 * (2 * 3 + 2)
    assert WORK.padded(10) == WORK.parameters
    memory = memory_of(WORK, Choice("fsdp", 8, clips=2))
    assert memory.weights == 4 * 130
    assert memory.gathered == 4 * 2 * (2 * 400 + 320)
    assert update_seconds(WORK, Choice("fsdp", 8, 2), GPU) == pytest.approx(18 * 4 * 130 / 0.8e6)


def test_padding_travels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "LINK_LATENCY", 0.0)
    statistics, norm = 4 * 16 * 2 * 7 / 0.65e6, 2 * 7 / 8 * 4 / 0.65e6
    time = step_time(WORK, Choice("fsdp", 8, 2), CLUSTER)
    assert time.sent == pytest.approx(3 * 4 * 1040 * 7 / 8 / 0.65e6 + norm + statistics)


def test_the_host_runs_ahead_and_the_slower_of_the_two_makes_the_step() -> None:
    """2 clips at 3 s, and 10 launches, one third more with checkpointing; the GPU takes about 20 s."""
    fast, slow = (replace(WORK, host_seconds=seconds) for seconds in (3.0, 30.0))
    for checkpoints, launches in ((False, 60e-6), (True, 80e-6)):
        choice = Choice("ddp", 1, 2, checkpoints)
        time = step_time(fast, choice, CLUSTER)
        assert time.host == pytest.approx(6 + launches)
        assert time.total == time.device == step_time(WORK, choice, CLUSTER).total
        assert step_time(slow, choice, CLUSTER).total == pytest.approx(60 + launches)
    assert "**slower**" in time_table(slow, CLUSTER)[2]
    assert "**slower**" not in time_table(fast, CLUSTER)[2]
    assert "the host: preparing batches" in limits_table([slow], [CLUSTER])[2]
    assert "the host: preparing batches" not in limits_table([fast], [CLUSTER])[2]


def test_what_the_host_does_takes_time_and_leaves_the_threads_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, drawn = torch.get_num_threads(), []
    original = torch.Tensor.normal_

    def draw(tensor: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        drawn.append((tuple(tensor.shape), torch.get_num_threads()))
        return original(tensor, generator=generator)

    monkeypatch.setattr(torch.Tensor, "normal_", draw)
    assert 0 < host_seconds_a_clip("tiny") < 1
    config = load_settings(Config, PRESETS, ["--preset=tiny"], program="").config
    side = config.IMAGE_SIZE
    assert {*drawn} == {((3, config.NUM_FRAMES, side, side), 1)}
    assert torch.get_num_threads() == threads
