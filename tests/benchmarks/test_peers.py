"""The comparison with other libraries' networks: figures, skipped cells and options."""

import dataclasses
import json
import os
import statistics
from importlib.metadata import PackageNotFoundError

import pytest

from benchmarks import peer_measures, peers
from benchmarks.limited_process import LimitError, MemoryLimitError, TimeLimitError
from benchmarks.networks import NETWORK_NAMES
from benchmarks.peer_figures import Cell, CellResult, Measurement, Skip, compare
from benchmarks.peer_measures import Plan, measure_cell
from benchmarks.peer_plot import plot_peers
from benchmarks.peer_report import report

CELL = Cell(image_size=32, parameters=5_000_000, batch_size=4, frames=16)
PLAN = Plan(alternations=3, turn_seconds=0.1, threads=1, allocation="same")
OURS = Measurement("text2sign", 4_870_000, (0.5, 0.4, 0.8), (0.1, 0.2, 0.1), 40 * 10**9, 13 * 10**9, 1.25, 0.4)
PEER = Measurement("diffusers", 5_480_000, (5.0, 6.0, 4.0), (2.0, 2.0, 2.0), 80 * 10**9, 26 * 10**9, 5.0, 0.5)


class FakeWorker:
    """Stands for a process: seconds and memory are known, and `failures` happen when a network is started."""

    failures: dict = {}  # noqa: RUF012
    log: list = []  # noqa: RUF012

    def __init__(self, network, cell, plan):
        self.log.append((network, "start"))
        if network in self.failures:
            raise self.failures[network]
        self.network = network
        self.parameters, self.imported_gib = 1000, 0.25

    def time(self, what):
        self.log.append((self.network, what))
        return {"step": 3.0, "forward": 1.0}[what]

    def peak_gib(self):
        return 2.0

    def clip_flops(self):
        return 100, 300

    def memory_gib(self):
        return 1.0

    def stop(self):
        self.log.append((self.network, "stop"))


@pytest.fixture
def worker(monkeypatch):
    monkeypatch.setattr(FakeWorker, "failures", {})
    monkeypatch.setattr(FakeWorker, "log", [])
    monkeypatch.setattr(peer_measures, "Worker", FakeWorker)
    monkeypatch.setattr(peer_measures, "matmul_flops_per_second", lambda: 200.0)
    return FakeWorker


def test_networks_take_turns_and_operations_are_those_of_the_batch(worker):
    result = measure_cell(CELL, NETWORK_NAMES, [], PLAN)
    assert result.matmul_flops_per_second == (200.0,) * 3
    assert [found.network for found in result.measurements] == list(NETWORK_NAMES)
    for found in result.measurements:
        assert found == Measurement(found.network, 1000, (3.0,) * 3, (1.0,) * 3, 300 * 4, 100 * 4, 2.0, 0.25)
    turns = [(name, what) for _ in range(3) for name in NETWORK_NAMES for what in ("step", "forward")]
    assert [entry for entry in worker.log if entry[1] in ("step", "forward")] == turns
    assert sorted(worker.log[-3:]) == sorted((name, "stop") for name in NETWORK_NAMES)


def test_waiting_processes_end_where_memory_is_short(worker, monkeypatch):
    memory = type("Memory", (), {"available": 0})
    monkeypatch.setattr(peer_measures.psutil, "virtual_memory", lambda: memory)
    result = measure_cell(CELL, NETWORK_NAMES[:2], [], PLAN)
    assert all(found.step_seconds == (3.0,) * 3 for found in result.measurements)
    running = set()
    for name, what in worker.log:
        if what == "start":
            assert not running
            running.add(name)
        elif what == "stop":
            running.remove(name)
    assert worker.log.count(("diffusers", "start")) == 1 + 3  # it is ended for each turn of the other one
    assert not running


@pytest.mark.parametrize(
    ("error", "bound"),
    [
        (TimeLimitError("more than 60 s a step"), "seconds"),
        (MemoryLimitError("more than 16 GiB"), "memory"),
        (LimitError("ended by signal 9"), None),
    ],
)
def test_a_network_past_a_limit_is_skipped_and_not_tried_with_larger_batches(
    worker, monkeypatch, capsys, tmp_path, error, bound
):
    worker.failures["diffusers"] = error
    path, picture = tmp_path / "figures.json", tmp_path / "figures.png"
    arguments = ["--cells", "32:5:16", "32:5:4", "32:20:16", f"--json={path}", f"--plot={picture}", "--threads=1"]
    assert peers.main([*arguments, "--alternations=2"]) == (1 if bound is None else 0)
    printed, cells = capsys.readouterr().out, json.loads(path.read_text())["cells"]
    batches = [(cell["cell"]["parameters"], cell["cell"]["batch_size"]) for cell in cells]
    assert batches == [(5_000_000, 4), (5_000_000, 16), (20_000_000, 16)]
    reasons = [str(error), "not tried: batch 4 was skipped", str(error)]
    assert [cell["skips"] for cell in cells] == [
        [{"network": "diffusers", "reason": reason, "bound": bound}] for reason in reasons
    ]
    assert worker.log.count(("diffusers", "start")) == 2
    assert f"| 4 | diffusers | skipped: {error} | –" in printed
    assert "| 16 | diffusers | skipped: not tried: batch 4 was skipped | –" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_ratios_are_taken_within_an_alternation():
    result = CellResult(CELL, (100e9, 200e9, 160e9), (OURS, PEER), ())
    comparison = compare(result, PEER)
    assert dataclasses.astuple(comparison.step_ratio) == pytest.approx((10, 5, 15, 3))  # 5 / 0.5, 6 / 0.4, 4 / 0.8
    assert dataclasses.astuple(comparison.forward_ratio) == pytest.approx((20, 10, 20, 3))
    assert comparison.memory_ratio == pytest.approx(4)
    own = compare(result, OURS)
    speeds = [40e9 / 0.5, 40e9 / 0.4, 40e9 / 0.8]
    assert own.step_flops_per_second.median == pytest.approx(statistics.median(speeds))
    assert dataclasses.astuple(own.share_of_matmul) == pytest.approx((0.5, 0.3125, 0.8, 3))
    lines = report([result], 3, "shipped")
    assert any("matmul 160 GFLOP/s (100 to 200)" in line for line in lines)
    assert any(line.startswith("| 4 | diffusers | 5.000 (4.000 to 6.000) | 10.0 (5.0 to 15.0) |") for line in lines)
    assert lines[-1].startswith("Median (smallest to largest) of 3 alternations.")
    columns = {line.count("|") for line in lines if line.startswith("|")}
    assert len(columns) == 1


def test_only_the_very_first_step_of_a_process_may_take_twice_the_time(monkeypatch):
    asked = []

    class FakeProcess:
        def __init__(self, command, *, memory_gib):
            pass

        def answer(self, *, seconds):
            return {"parameters": 1000, "imported_gib": 0.25}

        def ask(self, request, *, seconds):
            asked.append((request, seconds))
            if failing:
                raise TimeLimitError("too long")
            return {"seconds": 1.0}

        def stop(self):
            asked.append("stop")

    monkeypatch.setattr(peer_measures, "LimitedProcess", FakeProcess)
    failing = False
    worker = peer_measures.Worker("text2sign", CELL, PLAN)
    assert asked == [("step 1", 120.0), ("forward 1", 60.0)]
    failing = True
    with pytest.raises(TimeLimitError, match=r"^more than 60 s a step$"):
        worker.time("step")
    with pytest.raises(TimeLimitError, match=r"^more than 120 s the first step$"):
        peer_measures.Worker("text2sign", CELL, PLAN)
    assert asked[-3:] == [("step 1", 60.0), ("step 1", 120.0), "stop"]


def test_ctrl_c_ends_with_a_report_of_the_cells_so_far(worker, monkeypatch, capsys):
    def interrupted(cell, networks, skips, plan):
        if cell.batch_size == 16:
            raise KeyboardInterrupt
        return measure_cell(cell, networks, skips, plan)

    monkeypatch.setattr(peers, "measure_cell", interrupted)
    assert peers.main(["--cells", "32:5:4", "32:5:16", "--threads=1", "--networks", "text2sign"]) == 130
    rows = [line for line in capsys.readouterr().out.splitlines() if "| text2sign |" in line]
    assert [row.split(" | ")[:3] for row in rows] == [["| 4", "text2sign", "3.000 (3.000 to 3.000)"]]


def test_figures_that_cannot_be_written_do_not_end_the_measuring(worker, full_disk, capsys, tmp_path):
    arguments = ["--cells", "32:5:4", "32:5:16", "--threads=1", "--networks", "text2sign"]
    assert peers.main([*arguments, f"--json={tmp_path / 'figures.json'}"]) == 1
    printed = capsys.readouterr()
    assert "| 16 | text2sign | 3.000 (3.000 to 3.000) |" in printed.out
    assert printed.err.count("warning: the figures so far are not saved: the disk is full") == 2
    assert printed.err.endswith("error: the disk is full\n")


def test_a_library_that_is_missing_is_named_where_its_network_is_chosen(worker, monkeypatch, capsys):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    arguments = ["--cells", "32:5:4", "--threads=1", "--networks", "text2sign"]
    assert peers.main(arguments) == 0
    assert peers.main([*arguments, "diffusers"]) == 1
    assert "error: diffusers is not installed: pip install -r benchmarks/requirements.txt" in capsys.readouterr().err


def test_without_own_figures_there_are_no_ratios():
    skip = Skip("text2sign", "more than 16 GiB", "memory")
    comparison = compare(CellResult(CELL, (1e9,) * 3, (PEER,), (skip,)), PEER)
    assert (comparison.step_ratio, comparison.forward_ratio, comparison.memory_ratio) == (None, None, None)


def test_hatched_bars_reach_the_bound_that_was_passed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("benchmarks.peer_plot.Axes.bar", lambda *args, **options: drawn.append((args[2], options)))
    skips = (Skip("diffusers", "more than 60 s a step", "seconds"),)
    plot_peers([CellResult(CELL, (1e9,) * 3, (OURS,), skips)], tmp_path / "bars.svg")
    hatched = [height for height, options in drawn if "hatch" in options]
    assert hatched == [60.0]
    assert sorted(height for height, options in drawn if "hatch" not in options) == [0.5, 1.25]
    assert "more than 60 s a step" in (tmp_path / "bars.svg").read_text()


def test_a_small_comparison_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    path = tmp_path / "figures.json"
    networks = ["text2sign", "video-diffusion-pytorch"]
    assert peers.main(["--quick", "--threads=1", f"--json={path}", "--networks", *networks]) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    (cell,) = figures["cells"]
    own, peer = cell["measurements"]
    assert [own["network"], peer["network"]] == networks
    for found in (own, peer):
        assert len(found["step_seconds"]) == len(found["forward_seconds"]) == 2
        assert min(*found["step_seconds"], *found["forward_seconds"]) > 0
        assert found["step_flops"] > 2 * found["forward_flops"] > 0
        assert 0 < found["imported_gib"] < found["peak_gib"] < 4
    ratios = [one / other for one, other in zip(peer["step_seconds"], own["step_seconds"], strict=True)]
    comparison = cell["comparisons"]["video-diffusion-pytorch"]
    assert comparison["step_ratio"]["median"] == pytest.approx(statistics.median(ratios))
    assert comparison["step_ratio"]["largest"] == pytest.approx(max(ratios))
    assert f"| 1 | video-diffusion-pytorch | {comparison['step_seconds']['median']:.3f} (" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cells", "32:5"],
        ["--cells", "30:5:4"],
        ["--cells", "8:5:4"],
        ["--cells", "32:nan:4"],
        ["--cells", "32:0:4"],
        ["--cells", "32:5:0"],
        ["--cells", "32:5:4", "--quick"],
        ["--alternations=0"],
        ["--threads=0"],
        ["--networks=other"],
        ["--json=missing/figures.json"],
        ["--plot=figures.txt"],
    ],
)
def test_options_that_cannot_work_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        peers.main(arguments)
    assert end.value.code == 2
    assert "error: argument" in capsys.readouterr().err
