"""Each of the eight promised logging constants has the effect that its name promises, in a whole run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
from tests.held_clock import HeldClock

Run = Callable[..., Path]


@pytest.fixture
def run(small_arguments: Callable[..., list[str]], tmp_path: Path) -> Run:
    def start(*more: str) -> Path:
        # Samples only at the end, and few: these tests are about the other categories.
        name = f"run{len(list(tmp_path.glob('logs/*')))}"
        arguments = (
            "--sampling-steps=1",
            "--recogniser-steps=0",
            '--sample-prompts=["A", "B"]',
            "--lr-schedule=constant",
            f"--experiment-name={name}",
        )
        assert main.main(small_arguments(*arguments, *more)) == 0
        return tmp_path / "logs" / name

    return start


NO_VIDEOS = ("--no-enable-video-logging", "--no-enable-noise-visualization")


def steps_of(folder: Path, tag: str) -> list[int]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if line["tag"] == tag]


def tags_of(folder: Path) -> set[str]:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    kinds = accumulator.Tags()
    return {tag for kind in ("scalars", "images", "histograms", "tensors") for tag in kinds[kind]}


def starting_with(folder: Path, *prefixes: str) -> set[str]:
    return {tag for tag in tags_of(folder) if tag.startswith(prefixes)}


@pytest.mark.slow
def test_log_every_epochs(run: Run) -> None:
    arguments = ("--num-epochs=4", "--max-steps=none", "--batch-size=12", *NO_VIDEOS)
    assert steps_of(run("--log-every-epochs=1", *arguments), "03_Epoch_Summary/Average_Loss") == [1, 2, 3, 4]
    assert steps_of(run("--log-every-epochs=2", *arguments), "03_Epoch_Summary/Average_Loss") == [2, 4]


@pytest.mark.slow
def test_diagnostic_log_every_steps(run: Run) -> None:
    often = run("--max-steps=5", "--diagnostic-log-every-steps=2", *NO_VIDEOS)
    rarely = run("--max-steps=5", "--diagnostic-log-every-steps=100", *NO_VIDEOS)
    assert steps_of(often, "11_Gradient_Stats/Total_Gradient_Norm") == [1, 2, 4, 5]
    assert steps_of(rarely, "11_Gradient_Stats/Total_Gradient_Norm") == [1, 5]


@pytest.mark.slow
def test_tensorboard_flush_every_steps(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between flushes the file on disk does not grow; at each flush it does."""
    from logging_system.dispatcher import Dispatcher

    sizes: list[int] = []
    on_step = Dispatcher.on_step

    def watched(self: Dispatcher, record) -> None:  # type: ignore[no-untyped-def]
        on_step(self, record)
        sizes.append((self._run_folder / "metrics.jsonl").stat().st_size)

    monkeypatch.setattr(Dispatcher, "on_step", watched)
    monkeypatch.setattr("logging_system.dispatcher.time", HeldClock())  # time alone brings a flush, too
    run("--max-steps=6", "--tensorboard-flush-every-steps=3", "--log-every-steps=1", *NO_VIDEOS)
    assert sizes[2] > sizes[1]
    assert sizes[3] == sizes[4] == sizes[2]
    assert sizes[5] > sizes[4]


@pytest.mark.slow
def test_enable_gradient_histograms(run: Run) -> None:
    def histograms(folder: Path) -> set[str]:
        accumulator = EventAccumulator(str(folder))
        accumulator.Reload()
        return {tag for tag in accumulator.Tags()["histograms"] if tag.startswith("11_Gradient_Stats")}

    on = run("--max-steps=1", *NO_VIDEOS)
    off = run("--max-steps=1", "--no-enable-gradient-histograms", *NO_VIDEOS)
    assert histograms(on)
    assert histograms(off) == set()
    assert "11_Gradient_Stats/Total_Gradient_Norm" in tags_of(off)  # the norms stay


@pytest.mark.parametrize(
    ("option", "prefixes"),
    [
        ("enable-parameter-tracking", ("09_Parameter_Stats", "10_Parameter_Histograms")),
        ("enable-video-logging", ("12_Generated_Samples",)),
        ("enable-noise-visualization", ("13_Noise_Visualization",)),
        ("enable-performance-profiling", ("05_Performance",)),
    ],
)
@pytest.mark.slow
def test_a_switch_turns_its_categories_off_and_nothing_else(run: Run, option: str, prefixes: tuple[str, ...]) -> None:
    on, off = run("--max-steps=1"), run("--max-steps=1", f"--no-{option}")
    assert starting_with(on, *prefixes)
    assert starting_with(off, *prefixes) == set()
    assert {tag for tag in tags_of(on) if not tag.startswith(prefixes)} == tags_of(off)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "method"), [("enable-video-logging", "generate"), ("enable-noise-visualization", "visualise_noise")]
)
def test_a_switch_removes_the_cost_and_not_only_the_picture(
    run: Run, monkeypatch: pytest.MonkeyPatch, option: str, method: str
) -> None:
    from training.showcase import Showcase

    calls: list[str] = []
    original = getattr(Showcase, method)
    monkeypatch.setattr(Showcase, method, lambda *arguments: (calls.append(method), original(*arguments))[1])
    run("--max-steps=1", f"--no-{option}")
    assert calls == []
    run("--max-steps=1")
    assert calls == [method]
