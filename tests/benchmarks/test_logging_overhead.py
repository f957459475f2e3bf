"""The benchmark runs, and what it reports follows from what it measured."""

import json

import pytest

from benchmarks import logging_overhead
from benchmarks.logging_overhead import WARM_UP_STEPS, BlockPlan

TINY = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=4",
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


@pytest.mark.slow
def test_a_small_measurement_from_end_to_end(tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["--alternations=2", "--steps-per-block=4", f"--json={path}", *TINY]
    assert logging_overhead.main(arguments) == 0
    printed = capsys.readouterr().out
    figures = json.loads(path.read_text())
    assert figures["machine"] in printed.splitlines()
    overhead = figures["overhead"]
    without, with_logging, observing, point, diagnostics, flush, reading = overhead["seconds"].values()
    for spread in (without, with_logging, *overhead["ratios"].values()):
        assert spread["repeats"] == 2
    assert [spread["repeats"] for spread in (observing, point, diagnostics, flush)] == [4, 2, 2, 2]
    for spread in (without, with_logging, observing, flush, reading):
        assert 0 < spread["smallest"] <= spread["median"] <= spread["largest"]
    shares, step = overhead["amortised_percent"], without["median"]
    assert shares["every step"] == pytest.approx(100 * observing["median"] / step)
    assert shares["scalar points"] == pytest.approx(100 * point["median"] / 2 / step)
    assert shares["diagnostics"] == pytest.approx(100 * diagnostics["median"] / 500 / step)
    assert f"{sum(shares.values()):.3f} % of a step without logging" in printed
    assert 0 < overhead["live_percent"] < 100


@pytest.mark.parametrize(
    ("option", "field"),
    [("--batch-size=0", "BATCH_SIZE"), ("--no-enable-performance-profiling", "ENABLE_PERFORMANCE_PROFILING")],
)
def test_options_that_cannot_be_measured_are_an_error_and_no_traceback(capsys, option, field):
    assert logging_overhead.main([option]) == 1
    assert field in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--alternations=0", "--steps-per-block=2", "--json=/none/x.json"])
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
