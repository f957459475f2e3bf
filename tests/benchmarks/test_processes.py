"""How the benchmark of two processes measures, counts out what was disturbed, and reports; and that it runs."""

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import processes
from benchmarks.runner import SMALL_NETWORK
from benchmarks.processes import (
    APART,
    BOTH_CORES,
    ONE,
    ONE_DOUBLE,
    REPLICATED,
    SENT_ALWAYS,
    SENT_ONCE,
    SHARDED,
    Way,
    communication_table,
    efficiency_table,
    measure_in_processes,
    report,
    verdict,
    ways_of,
)
from benchmarks.processes_worker import (
    BUCKET_BYTES,
    FIRST_BUCKET_BYTES,
    Communication,
    SendsAlways,
    TimedStep,
    Work,
    gradient_buckets,
    quietest,
)
from benchmarks.worker_process import TimeLimitError
from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from training.build_learner import clips_a_step
from training.shared_model import SharedModel

NAMES = (ONE, ONE_DOUBLE, BOTH_CORES, APART, REPLICATED, SHARDED, SENT_ONCE, SENT_ALWAYS)
SENT = Communication(gradient_bytes=20_000_000, gradients_seconds=0.05, statistics_seconds=0.001)


def work(clips: float = 4.0, seconds: float = 1.0, others: float = 0.0, sent: Communication | None = None) -> Work:
    return Work(seconds, clips, 10**6, 0.5, others, sent)


def a_round(**different: Work) -> dict[str, list[Work]]:
    works = {name: work(sent=SENT if name == REPLICATED else None) for name in NAMES} | different
    return {name: [each] for name, each in works.items()}


def test_gradients_are_sent_in_a_small_message_and_then_in_large_ones() -> None:
    assert gradient_buckets(512) == [512]
    assert gradient_buckets(FIRST_BUCKET_BYTES) == [FIRST_BUCKET_BYTES]
    sizes = gradient_buckets(60 * 2**20 + 100)
    assert sizes == [2**20, BUCKET_BYTES, BUCKET_BYTES, 9 * 2**20 + 100]


def test_the_half_of_the_steps_that_others_disturbed_least_counts() -> None:
    """Others have 0.5 of the first core in step 2, 0.1 of it in step 3, and 0.9 of the second core in step 4.

    The first process works all the time, the second half of it.
    """
    first = [TimedStep(each, each, everybody) for each, everybody in ((1.0, 1.0), (3.0, 4.5), (2.0, 2.2), (9.0, 9.0))]
    second = [TimedStep(2 * each, each, everybody) for each, everybody in ((1, 1), (3, 3), (2, 2), (9, 9 + 0.9 * 18))]
    seconds_of_rank, other_cores = quietest([first, second])
    assert seconds_of_rank == [1.5, 3.0]
    assert other_cores == pytest.approx((0 + 0.1) / 2)


def test_ways_that_are_compared_train_on_the_same_number_of_clips() -> None:
    ways = ways_of(("--device=cpu",), batch_size=4, steps=3)
    assert tuple(ways) == NAMES
    configs = {
        name: load_settings(Config, PRESETS, list(way.plan.options), program="").config for name, way in ways.items()
    }
    clips = {name: ways[name].processes * clips_a_step(config) for name, config in configs.items()}
    assert clips == dict.fromkeys(NAMES, 8) | {ONE: 4}
    assert configs[SENT_ONCE].BATCH_SIZE == 1
    assert ways[SENT_ALWAYS].plan.sends_always
    assert [name for name in NAMES if not ways[name].plan.is_pinned] == [BOTH_CORES]
    assert [name for name in NAMES if configs[name].PARALLELISM == "fsdp"] == [SHARDED]
    assert [name for name in NAMES if ways[name].plan.is_apart] == [APART]


def test_several_processes_are_started_by_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], *, seconds: float) -> dict[str, object]:
        commands.append(command)
        raise TimeLimitError("more than 1 s")

    monkeypatch.setattr(processes, "run_worker", run)
    for way in ways_of((), 4, 3).values():
        with pytest.raises(UserError, match="more than 1 s"):
            measure_in_processes(way)
    assert ["--nproc-per-node=2" in command for command in commands] == [False] * 3 + [True] * 5
    assert json.loads(commands[0][-1])["steps"] == 3


def test_a_way_that_fails_ends_the_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *, seconds: float) -> dict[str, object]:
        raise TimeLimitError("more than 600 s")

    monkeypatch.setattr(processes, "run_worker", run)
    assert processes.main([]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("error: 1 process, 1 core: more than 600 s\n")


def test_efficiencies_are_ratios_of_clips_a_second_within_an_alternation() -> None:
    """By hand: 7 / (2 * 4), 6 / (2 * 4), 6 / (2 * 5), 6 / 7, 4.8 / (2 * 4), 4.8 / 6, 3.3 / 3."""
    works = a_round(
        **{ONE: work(4), ONE_DOUBLE: work(5), APART: work(7), REPLICATED: work(6, sent=SENT), SHARDED: work(4.8)},
        **{SENT_ONCE: work(3.3), SENT_ALWAYS: work(3)},
    )
    medians = [line.split("|")[2].split()[0] for line in efficiency_table(works)[2:-1]]
    assert medians == ["0.875", "0.750", "0.600", "0.857", "0.600", "0.800", "1.100"]
    (row,) = [line for line in report(ways_of((), 4, 3), works) if line.startswith("| 2 independent")]
    assert "| 0.88 (0.88 to 0.88) |" in row


def test_sending_by_itself_is_compared_with_the_step() -> None:
    works = a_round(**{REPLICATED: work(seconds=0.5, sent=SENT)})
    row = communication_table(works)[2]
    assert row == "| all-reduce of 20.0 MB of gradients | 50.00 (50.00 to 50.00) | 10.00 (10.00 to 10.00) |"


@pytest.mark.parametrize(("clips", "outcome"), [(6.4, ": kept (91.4 %"), (6.2, ": missed (88.6 %")])
def test_the_verdict_compares_with_what_the_machine_can_do(clips: float, outcome: str) -> None:
    works = a_round(**{APART: work(7), REPLICATED: work(clips, sent=SENT)})
    assert outcome in verdict(works)
    works[ONE] = [work(others=0.11)]
    assert ": not known, because other programs" in verdict(works)


def test_without_no_sync_every_backward_pass_sends() -> None:
    held: list[str] = []

    class Noted(SharedModel):
        @contextmanager
        def gradients_stay_here(self) -> Iterator[None]:
            held.append("here")
            yield

    class Doubled(nn.Module):
        def forward(self, video: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
            return 2 * video

    always = SendsAlways(Noted(Doubled()))
    with always.gradients_stay_here():
        assert always(torch.ones(2), *[torch.zeros(1)] * 3).tolist() == [2, 2]
    assert held == []


def test_the_command_prints_tables_and_saves_all_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ways: list[Way] = []

    def measure(way: Way) -> Work:
        ways.append(way)
        return work(3.8, sent=SENT) if way.plan.measures_communication else work()

    monkeypatch.setattr(processes, "measure_in_processes", measure)
    figures = tmp_path / "figures.json"
    assert processes.main(["--alternations=3", f"--json={figures}"]) == 0
    printed = capsys.readouterr().out
    assert "Median (smallest to largest) of 3 alternations." in printed
    assert ": kept (95.0 %" in printed
    assert ways == ways[:8] * 3
    works = json.loads(figures.read_text())["works"]
    assert works[REPLICATED] == [dataclasses.asdict(work(3.8, sent=SENT))] * 3


def test_a_machine_with_one_core_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda process: {0})
    assert processes.main([]) == 1
    assert "needs 2 cores, and there are 1" in capsys.readouterr().err


def test_a_worker_measures_real_steps(tmp_path: Path) -> None:
    options = (*SMALL_NETWORK, f"--cache-dir={tmp_path}", "--device=cpu")
    measured = measure_in_processes(ways_of(options, batch_size=2, steps=2)[ONE])
    assert measured.clips_per_second == pytest.approx(2 / measured.step_seconds)
    assert 0 < measured.step_seconds < 60
    assert measured.communication is None


@pytest.mark.slow
def test_a_quick_run_measures_two_real_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert processes.main(["--quick", f"--json={figures}"]) == 0
    assert "| **weak scaling" in capsys.readouterr().out
    works = json.loads(figures.read_text())["works"]
    assert set(works) == set(NAMES)
    ((replicated,), sent) = works[REPLICATED], works[REPLICATED][0]["communication"]
    assert sent["gradient_bytes"] == 4 * replicated["parameters"]
    assert sent["statistics_seconds"] > 0
