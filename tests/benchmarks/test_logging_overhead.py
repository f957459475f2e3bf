"""The benchmark runs, and what it reports follows from what it measured."""

import json

import pytest
import torch

from benchmarks import logging_overhead
from benchmarks.alternating_run import WARM_UP_STEPS, BlockPlan
from benchmarks.diagnostic_pass import HostTensor, counted_transfers
from benchmarks.spread import ratio_of, spread_of

TINY = (
    "--image-size=16",
    "--num-frames=4",
    "--model-channels=16",
    "--spatial-attention-sizes=8",
    "--attention-head-channels=16",
    "--text-channels=16",
    "--text-layers=1",
    "--text-heads=1",
    "--batch-size=2",
    "--validation-clips=2",
    "--sampling-steps=1",
    "--recogniser-steps=0",
    "--sample-prompts=A",
    "--max-word-letters=2",
    "--parameter-tracking-max-layers=6",
    "--num-workers=0",
    "--log-every-steps=2",
    "--device=cpu",
)


def test_a_small_measurement_from_end_to_end(tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--alternations=2", "--steps-per-block=4", "--tensors", "8", "20", f"--json={path}", *TINY]
    assert logging_overhead.main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["machine"] in printed.splitlines()
    assert "One diagnostic pass over 20 parameter tensors, 2 alternations\n" in printed
    overhead = figures["overhead"]
    for name in ("step_without", "step_with", "ratio", "processor_ratio"):
        assert overhead[name]["repeats"] == 2
    assert [overhead[name]["repeats"] for name in ("observing", "point", "diagnostics", "flush")] == [4, 2, 2, 2]
    for name in ("step_without", "step_with", "observing", "flush", "system_reading"):
        assert 0 < overhead[name]["smallest"] <= overhead[name]["median"] <= overhead[name]["largest"]
    shares = overhead["amortised_percent"]
    step = overhead["step_without"]["median"]
    assert shares["every step"] == pytest.approx(100 * overhead["observing"]["median"] / step)
    assert shares["scalar points"] == pytest.approx(100 * overhead["point"]["median"] / 2 / step)
    assert shares["diagnostics"] == pytest.approx(100 * overhead["diagnostics"]["median"] / 500 / step)
    assert f"{sum(shares.values()):.3f} % of a step without logging" in printed
    assert 0 < overhead["percent_of_this_run"] < 100
    assert 0 < overhead["live_percent"] < 100
    assert [comparison["tensors"] for comparison in figures["passes"]] == [8, 20]
    for comparison in figures["passes"]:
        assert comparison["merged"]["transfers"] == comparison["unmerged"]["transfers"] <= 6
        assert comparison["naive"]["transfers"] == 2 * 7 * comparison["tensors"]


@pytest.mark.parametrize(
    ("option", "field"),
    [("--batch-size=0", "BATCH_SIZE"), ("--no-enable-performance-profiling", "ENABLE_PERFORMANCE_PROFILING")],
)
def test_options_that_cannot_be_measured_are_an_error_and_no_traceback(capsys, option, field):
    assert logging_overhead.main([option]) == 1
    assert field in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--alternations=0", "--steps-per-block=2", "--tensors=1", "--json=/none/x.json"])
def test_bad_options_end_with_the_usage(option, capsys):
    with pytest.raises(SystemExit) as ended:
        logging_overhead.main([option])
    assert ended.value.code == 2
    assert option.split("=")[0] in capsys.readouterr().err


def test_blocks_alternate_and_the_run_ends_after_them():
    plan = BlockPlan(steps_per_block=3, alternations=2)
    steps = range(1, plan.steps + 1)
    assert plan.steps == WARM_UP_STEPS + 13
    assert [plan.block(step) for step in steps] == [None] * WARM_UP_STEPS + [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [
        None
    ]
    silent = [step - WARM_UP_STEPS for step in steps if not plan.is_logged(step)]
    assert silent == [1, 2, 3, 7, 8, 9]
    assert [step - WARM_UP_STEPS for step in steps if plan.ends_block(step)] == [3, 6, 9, 12]


def test_transfers_are_counted_once_each():
    numbers = torch.arange(4.0)
    with counted_transfers() as transfers:
        rows = torch.stack([numbers, numbers]).cpu()
        assert isinstance(rows, HostTensor)
        assert [row.tolist() for row in rows] == [[0, 1, 2, 3]] * 2  # these are on the host already
        assert rows[0, 1].item() == 1
        assert numbers.sum().item() == 6
        assert bool(numbers.isfinite().all())
        numbers.tolist()
    assert transfers == ["cpu", "item", "__bool__", "tolist"]
    assert not isinstance(numbers.cpu(), HostTensor)


def test_a_spread_names_median_and_extremes():
    spread = spread_of([0.003, 0.001, 0.002, 0.010])
    assert (spread.median, spread.smallest, spread.largest, spread.repeats) == (0.0025, 0.001, 0.010, 4)
    assert spread.text(1, "ms", 1000) == "2.5 ms (1.0 to 10.0)"
    assert spread.text(3) == "0.003 (0.001 to 0.010)"


def test_ratios_are_taken_pair_by_pair():
    assert ratio_of([6.0, 2.0, 9.0], [2.0, 1.0, 9.0]) == spread_of([3.0, 2.0, 1.0])
