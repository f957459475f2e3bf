"""How the scaling benchmark fits, skips, groups and reports, and that it runs."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.scaling import (
    BATCH,
    CHANNELS,
    FRAMES,
    FULL,
    PIXELS,
    Setting,
    exponent_of,
    exponents,
    measure_in_process,
    measure_settings,
    report,
)
from benchmarks.step_worker import Work, WorkPlan
from benchmarks.worker_process import MEMORY_LIMIT_GIB, MemoryLimitError, TimeLimitError, WorkerError
from common.settings import load_settings
from config import PRESETS, Config

TINY = (
    *(
        "--image-size=16",
        "--patch-size=2",
        "--max-frames=4",
        "--batch-size=1",
        "--model-channels=16,32",
        "--spatial-attention-sizes=4",
    ),
    *("--attention-head-channels=16", "--text-channels=16", "--text-layers=1", "--text-heads=1", "--device=cpu"),
)


AXES = {"frames": FRAMES, "pixels": PIXELS, "batch": BATCH, "channels": CHANNELS}


def axis(name: str, *sizes: float) -> list[Setting]:
    return [Setting(AXES[name], f"{size:g}", size, (f"--{name}={size}",)) for size in sizes]


def work(seconds: float, memory_gib: float, parameters: int) -> Work:
    return Work(seconds, 1 / seconds, parameters, memory_gib + 1, memory_gib, other_cores=0)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Setting], Work]], None]:
    """Let settings be measured by a function of the test."""

    def use(measure: Callable[[Setting], Work]) -> None:
        def measure_in_process(plan: WorkPlan) -> Work:
            name, size = plan.options[-1].removeprefix("--").split("=")
            return measure(*axis(name, float(size)))

        monkeypatch.setattr(scaling, "measure_in_process", measure_in_process)

    return use


Measured = Callable[[Callable[[Setting], Work]], None]


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.0, 2.3])
def test_a_fit_recovers_the_law_that_made_the_points(exponent: float) -> None:
    sizes = [1.0, 3.0, 8.0, 64.0]
    assert exponent_of(sizes, [0.7 * size**exponent for size in sizes]) == pytest.approx(exponent, abs=1e-12)


def test_a_fit_is_the_least_squares_line_between_the_logarithms() -> None:
    """By hand: logarithms to base 2 are x = 0, 1, 2 and y = 0, 2, 1, whose line has the slope 1/2."""
    assert exponent_of([1, 2, 4], [1, 4, 2]) == pytest.approx(0.5)


def test_the_local_exponent_looks_at_the_two_largest_sizes() -> None:
    """A constant cost hides the growth of small sizes: 9 + x ** 2 grows by less than its square everywhere."""
    every, largest = exponents([1.0, 10.0, 100.0], [[9 + 1.0], [9 + 100.0], [9 + 10_000.0]])
    assert largest.median == pytest.approx(math.log10(10009 / 109))
    assert every.median < largest.median


@pytest.mark.parametrize(("sizes", "values"), [([1], [1]), ([2, 2], [1, 2]), ([1, 2], [0, 1]), ([1, 2], [1])])
def test_points_without_a_law_are_refused(sizes: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError):
        exponent_of(sizes, values)


def test_every_setting_is_one_that_can_be_trained_and_has_the_size_it_says() -> None:
    def configs(name: str) -> list[tuple[Setting, Config]]:
        settings = [setting for setting in FULL if setting.axis == AXES[name]]
        return [(each, load_settings(Config, PRESETS, list(each.options), program="").config) for each in settings]

    assert [config.MAX_FRAMES for _, config in configs("frames")] == [8, 16, 32, 64]
    assert all(setting.size == config.MAX_FRAMES for setting, config in configs("frames"))
    assert all(setting.size == math.prod(config.IMAGE_SIZE) for setting, config in configs("pixels"))
    assert [config.SPATIAL_ATTENTION_SIZES for _, config in configs("pixels")] == [(1,), (8,), (8,), (8,)]
    assert all(setting.size == config.BATCH_SIZE for setting, config in configs("batch"))
    default = Config().MODEL_CHANNELS
    for setting, config in configs("channels"):
        assert [width / base for width, base in zip(config.MODEL_CHANNELS, default, strict=True)] == [setting.size] * 3
    at_default = [config for _, config in configs("pixels") if config.IMAGE_SIZE == Config().IMAGE_SIZE]
    assert at_default[0].SPATIAL_ATTENTION_SIZES == Config().SPATIAL_ATTENTION_SIZES


def test_alternations_go_over_all_settings_in_turn_and_ratios_are_taken_pair_by_pair(measured: Measured) -> None:
    settings = [*axis("frames", 2, 4), *axis("batch", 1, 3)]
    seconds = {"2": [1.0, 10.0], "4": [2.0, 30.0], "1": [5.0, 5.0], "3": [5.0, 5.0]}
    asked: list[str] = []

    def measure(setting: Setting) -> Work:
        asked.append(setting.label)
        return work(seconds[setting.label][(len(asked) - 1) // 4], setting.size**2, 10)

    measured(measure)
    rounds = measure_settings(settings, 2, 1, ())
    assert not rounds.interrupted
    assert asked == ["2", "4", "1", "3"] * 2
    lines = report(settings, rounds)
    # 2 / 1 and 30 / 10; the ratio of the medians would be 16 / 5.5
    assert any("| 4 | 0.00 M | 16.00 s (2.00 to 30.00) | 2.50 (2.00 to 3.00) |" in line for line in lines)
    # of frames: 2 ** 1 and 2 ** 1.58, memory with the square
    assert "| frames | 1.29 (1.00 to 1.58) | 1.29 (1.00 to 1.58) | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) |" in lines


def test_a_setting_that_fails_is_skipped_with_all_larger_ones_and_shown_as_such(measured: Measured) -> None:
    asked: list[str] = []

    def measure(setting: Setting) -> Work:
        asked.append(setting.label)
        if setting.size == 4 and asked.count("4") == 2:
            raise MemoryLimitError("more than 16 GiB")
        return work(setting.size, 1.0, 10)

    measured(measure)
    settings = axis("frames", 1, 2, 4, 8)
    rounds = measure_settings(settings, 3, 1, ())
    assert asked == ["1", "2", "4", "8", "1", "2", "4", "1", "2"]
    assert rounds.exit_code == 0
    rows = report(settings, rounds)
    assert "| 4 | skipped: more than 16 GiB |  |  |  |" in rows
    assert "| 8 | skipped: not tried: 4 was skipped |  |  |  |" in rows
    assert any(row.startswith("| frames | 1.00 (") for row in rows)  # of 1 and 2 alone


def test_too_few_settings_give_a_table_without_a_fit(measured: Measured) -> None:
    def measure(setting: Setting) -> Work:
        raise MemoryLimitError("more than 16 GiB")

    measured(measure)
    settings = axis("frames", 1, 2)
    rows = report(settings, measure_settings(settings, 1, 1, ()))
    assert "| frames | fewer than two settings could be measured |  |  |  |" in rows
    assert {row.count("|") for row in rows if row.startswith("|")} == {6}


@pytest.mark.parametrize(
    ("error", "code"),
    [(TimeLimitError("more than 180 s"), 0), (WorkerError("ended with exit code 1"), 1), (KeyboardInterrupt(), 130)],
)
def test_a_crash_is_told_from_a_limit_by_the_exit_code(
    error: BaseException,
    code: int,
    measured: Measured,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(setting: Setting) -> Work:
        if setting.size == 4:
            return work(1.0, 1.0, 10)
        raise error

    measured(measure)
    monkeypatch.setattr(scaling, "QUICK", axis("frames", 4, 8))
    assert scaling.main(["--quick"]) == code
    if code < 130:
        printed = capsys.readouterr().out
        assert f"| 8 | skipped: {error} |" in printed
        assert "| 4 | 0.00 M | 1.00 s (1.00 to 1.00) |" in printed


@pytest.mark.slow
def test_a_worker_measures_a_step_and_its_memory(tmp_path: Path) -> None:
    options = (*TINY, "--max-word-letters=3", "--batch-size=64", "--epoch-size=64", f"--cache-dir={tmp_path}")
    measured = measure_in_process(WorkPlan(options, steps=1, threads=None, is_pinned=False))
    assert 0 < measured.step_seconds < 60
    videos_gib = 64 * 3 * 4 * 16 * 16 * 4 / 2**30
    assert videos_gib < measured.learner_gib < measured.memory_gib < MEMORY_LIMIT_GIB


@pytest.mark.slow
def test_the_command_prints_tables_and_writes_all_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(lambda each: work(each.size / 4, each.size / 8, 10**6))
    monkeypatch.setattr(scaling, "QUICK", [setting for name in AXES for setting in axis(name, 4, 8)])
    figures = tmp_path / "figures.json"
    assert scaling.main(["--quick", f"--json={figures}"]) == 0
    printed = capsys.readouterr().out
    assert "| 8 | 1.00 M | 2.00 s (2.00 to 2.00) | 2.00 (2.00 to 2.00) | 1.00 GiB (1.00 to 1.00) |" in printed
    assert "| frames | 1.00 (1.00 to 1.00) |" in printed
    content = json.loads(figures.read_text())
    assert [setting["found"][0]["step_seconds"] for setting in content["measurements"][:2]] == [1.0, 2.0]
    assert printed.splitlines()[0] == content["machine"]


@pytest.mark.parametrize("arguments", [["--alternations=0"], ["--json=/no/such/folder/a.json"]])
def test_impossible_options_end_the_command(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scaling.main(arguments)
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err
