"""All networks are measured under the conditions of a run of main.py, and reports say under which."""

import re

import pytest

from benchmarks import (
    data_pipeline,
    logging_overhead,
    loss_curve_worker,
    network_worker,
    peers,
    sampling,
    scaling,
    scaling_worker,
    training_step,
)
from benchmarks.machine import machine_line
from common.errors import UserError

WORKER_OPTIONS = [f"--{name}=8" for name in ("image-size", "frames", "batch-size", "parameters", "threads")]


class FirstThing(Exception):
    """Freed memory is kept from now on."""


@pytest.mark.parametrize(
    ("program", "arguments"),
    [
        (network_worker, ["text2sign", *WORKER_OPTIONS]),
        (loss_curve_worker, ["{}"]),
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
