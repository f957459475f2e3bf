"""All networks are measured under the conditions of a run of main.py, and reports say under which."""

import json
import threading

import pytest
import torch

from benchmarks import (
    data_pipeline,
    logging_overhead,
    loss_curve_worker,
    network_worker,
    peers,
    sampling,
    step_worker,
    training_step,
)
from benchmarks.network_worker import NetworkPlan
from benchmarks.networks import NETWORK_NAMES
from training.step import TrainStep

PLAN = NetworkPlan("text2sign", 16, 300_000, 1, 4, keeps_freed_memory=True, turn_seconds=0.1)


class FirstThing(Exception):
    """Freed memory is kept from now on."""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (network_worker, [json.dumps(vars(PLAN))]),
        (loss_curve_worker, ["{}"]),
        (step_worker, [json.dumps({"options": [], "steps": 1, "is_pinned": False})]),
        (peers, ["--quick"]),
        (sampling, ["--run=none"]),
        (data_pipeline, ["--quick"]),
        (logging_overhead, []),
    ],
)
def test_every_process_that_trains_or_samples_keeps_freed_memory_before_it_does_anything(
    program, arguments, monkeypatch
):
    def keep_freed_memory():
        raise FirstThing

    monkeypatch.setattr(program, "keep_freed_memory", keep_freed_memory)
    with pytest.raises(FirstThing):
        program.main(arguments)


@pytest.mark.parametrize("network", NETWORK_NAMES)
@pytest.mark.parametrize("allocation", ["same", "shipped"])
def test_other_libraries_get_the_allocator_that_was_asked_for(network, allocation, monkeypatch):
    """With "shipped" theirs is left as it is, and ours is what main.py makes of it."""
    plans = []

    def measure_cell(cell, plans_of_cell, before, alternations):
        plans.extend(plans_of_cell.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(peers, "measure_cell", measure_cell)
    assert peers.main(["--quick", "--networks", network, f"--allocation={allocation}"]) == 130
    assert [plan.network for plan in plans] == [network]
    assert plans[0].keeps_freed_memory is (allocation == "same" or network == "text2sign")


@pytest.mark.slow
def test_a_timed_run_that_fails_says_why(capsys):
    assert training_step.main(["--batch-size=0"]) == 1
    printed = capsys.readouterr().err
    assert "BATCH_SIZE" in printed
    assert "error: main.py ended with exit code" in printed


def test_the_hosts_part_of_a_step_is_timed_on_the_training_thread(capsys, monkeypatch):
    monkeypatch.setattr(training_step, "HOST_STEPS", 2)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    filled = []
    fill = TrainStep._fill
    monkeypatch.setattr(
        TrainStep, "_fill", lambda *given: filled.append(threading.current_thread().name) or fill(*given)
    )
    assert (
        training_step.main(
            [
                "--host",
                "--max-frames=4",
                "--max-word-letters=3",
                "--image-size=16",
                "--patch-size=2",
                "--spatial-attention-sizes=4",
            ]
        )
        == 0
    )
    assert "host's part of a step: " in capsys.readouterr().out
    assert {name.partition("_")[0] for name in filled} == {"noise"}
