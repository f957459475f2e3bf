"""All networks are measured under the conditions of a run of main.py, and reports say under which."""

import dataclasses
import json
import re

import pytest

from benchmarks import (
    data_pipeline,
    logging_overhead,
    loss_curve_worker,
    network_worker,
    peer_measures,
    peers,
    sampling,
    scaling,
    scaling_worker,
    training_step,
)
from benchmarks.allocation import ALLOCATIONS
from benchmarks.loss_curves import LossCurvePlan
from benchmarks.machine import machine_line
from benchmarks.networks import NETWORK_NAMES
from benchmarks.peer_figures import Cell
from common.errors import UserError

WORKER_OPTIONS = [f"--{name}=8" for name in ("image-size", "frames", "batch-size", "parameters", "threads")]


class FirstThing(Exception):
    """Freed memory is kept from now on."""


def loss_curve(network, allocation):
    names = [field.name for field in dataclasses.fields(LossCurvePlan)]
    return json.dumps(dict.fromkeys(names) | {"network": network, "allocation": allocation})


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (network_worker, ["text2sign", *WORKER_OPTIONS, "--keep-freed-memory"]),
        (loss_curve_worker, [loss_curve("diffusers", "same")]),
        (loss_curve_worker, [loss_curve("text2sign", "shipped")]),
        (scaling_worker, []),
        (peers, ["--quick"]),
        (scaling, ["--quick"]),
        (sampling, []),
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
@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_other_libraries_get_the_allocator_that_was_asked_for(network, allocation, monkeypatch):
    """With "shipped" theirs is left as it is, and ours is what main.py makes of it."""
    kept, commands = [], []

    class Stop(Exception):
        pass

    def start(command, **limits):
        commands.append(command)
        raise Stop

    def train(plan):
        raise UserError("not here")

    monkeypatch.setattr(loss_curve_worker, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(loss_curve_worker, "LossCurveRun", train)
    assert loss_curve_worker.main([loss_curve(network, allocation)]) == 1
    monkeypatch.setattr(peer_measures, "LimitedProcess", start)
    with pytest.raises(Stop):
        peer_measures.Worker(network, Cell(16, 300_000, 1, 4), peer_measures.Plan(1, 0.1, 1, allocation))
    expected = allocation == "same" or network == "text2sign"
    assert kept == [True] * expected
    assert ("--keep-freed-memory" in commands[0]) is expected


def test_the_machine_is_named_with_the_libraries_and_the_commit():
    line = machine_line("psutil")
    assert re.search(
        r"\d+ threads, .*, PyTorch \S+, psutil \d\S+, commit ([0-9a-f]{40}( \(modified\))?|unknown)$", line
    )
    with pytest.raises(UserError, match="no-such-library is not installed"):
        machine_line("no-such-library")


def test_a_timed_run_that_fails_says_why(capsys):
    assert training_step.main(["--batch-size=0"]) == 1
    printed = capsys.readouterr().err
    assert "BATCH_SIZE" in printed
    assert "error: main.py ended with exit code" in printed
