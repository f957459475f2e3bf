"""The comparison with other libraries' networks: figures, skipped cells and options."""

import json
import os
import statistics
from importlib.metadata import PackageNotFoundError

import pytest

from benchmarks import peers
from benchmarks.network_worker import NetworkPlan
from benchmarks.networks import NETWORK_NAMES
from benchmarks.peers import Cell, CellResult, Measurement, measure_cell, report
from benchmarks.worker_process import MemoryLimitError, TimeLimitError, WorkerError

CELL = Cell(image_size=32, parameters=5_000_000, batch_size=4, frames=16)
SPEEDS = [100e9, 200e9, 160e9]
OURS = Measurement(4_870_000, 40 * 10**9, [0.5, 0.4, 0.8], [0.1, 0.2, 0.1], SPEEDS, 1.25)
PEER = Measurement(5_480_000, 80 * 10**9, [5.0, 6.0, 4.0], [2.0, 2.0, 2.0], SPEEDS, 5.0)


def plans(*networks):
    return {name: NetworkPlan(name, 32, 5_000_000, 4, 16, True, 0.1) for name in networks or NETWORK_NAMES}


class FakeWorker:
    """Replaces the processes: seconds and memory are known, and `failures` happen when a network is measured."""

    def __init__(self):
        self.failures, self.log = {}, []

    def run(self, command, *, seconds):
        name = json.loads(command[-1])["network"]
        self.log.append(name)
        if name in self.failures:
            raise self.failures[name]
        seconds = {"step_seconds": 3.0, "forward_seconds": 1.0}
        return {**seconds, "parameters": 1000, "step_flops": 1200, "peak_gib": 1.5 if len(self.log) % 2 else 2.0}


@pytest.fixture
def worker(monkeypatch):
    fake = FakeWorker()
    monkeypatch.setattr(peers, "run_worker", fake.run)
    monkeypatch.setattr(peers, "matmul_flops_per_second", lambda: 200.0)
    return fake


def test_networks_take_turns(worker):
    result = measure_cell(CELL, plans(), [], 3)
    assert list(result.measurements) == list(NETWORK_NAMES)
    for found in result.measurements.values():
        assert found == Measurement(1000, 1200, [3.0] * 3, [1.0] * 3, [200.0] * 3, 2.0)
    assert worker.log == [name for _ in range(3) for name in NETWORK_NAMES]


@pytest.mark.parametrize(
    ("error", "bound"),
    [
        (TimeLimitError("more than 480 s"), "seconds"),
        (MemoryLimitError("more than 16 GiB"), "memory"),
        (WorkerError("ended by signal 9"), None),
    ],
)
def test_a_network_past_a_limit_is_skipped_and_not_tried_with_larger_batches(worker, capsys, tmp_path, error, bound):
    worker.failures["diffusers"] = error
    path = tmp_path / "figures.json"
    arguments = ["--cells", "32:5:16", "32:5:4", "32:20:16", f"--json={path}"]
    assert peers.main([*arguments, "--alternations=2"]) == (1 if bound is None else 0)
    printed, cells = capsys.readouterr().out, json.loads(path.read_text())["cells"]
    batches = [(cell["cell"]["parameters"], cell["cell"]["batch_size"]) for cell in cells]
    assert batches == [(5_000_000, 4), (5_000_000, 16), (20_000_000, 16)]
    reasons = [str(error), "not tried: batch 4 was skipped", str(error)]
    assert [cell["skips"] for cell in cells] == [{"diffusers": reason} for reason in reasons]
    assert worker.log.count("diffusers") == 2
    assert f"| 4 | diffusers | skipped: {error} | –" in printed
    assert "| 16 | diffusers | skipped: not tried: batch 4 was skipped | –" in printed


def test_ratios_are_taken_within_an_alternation():
    lines = report([CellResult(CELL, {"text2sign": OURS, "diffusers": PEER}, {})], 3, "shipped")
    # 5 / 0.5, 6 / 0.4, 4 / 0.8; 2 / 0.1, 2 / 0.2, 2 / 0.1; 16, 13.3 and 20 GFLOP/s
    assert any(
        "| 4 | diffusers | 5.000 (4.000 to 6.000) | 10.0 (5.0 to 15.0) | 2.000 (2.000 to 2.000) | 20.0 (10.0 to 20.0) "
        "| 80.0 | 16 (13 to 20) | 12 (7 to 16) | 5.00 | 4.0 | 5.48 |" in line
        for line in lines
    )
    # 80, 100 and 50 GFLOP/s of 100, 200 and 160
    assert any("| 40.0 | 80 (50 to 100) | 50 (31 to 80) | 1.25 | 1.0 | 4.87 |" in line for line in lines)
    assert lines[-1].startswith("Median (smallest to largest) of 3 alternations.")
    assert "the others leave the allocator alone" in lines[-1]
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_ctrl_c_ends_with_a_report_of_the_cells_so_far(worker, monkeypatch, capsys):
    def interrupted(cell, plans_of_cell, before, alternations):
        if cell.batch_size == 16:
            raise KeyboardInterrupt
        return measure_cell(cell, plans_of_cell, before, alternations)

    monkeypatch.setattr(peers, "measure_cell", interrupted)
    assert peers.main(["--cells", "32:5:4", "32:5:16", "--networks", "text2sign"]) == 130
    rows = [line for line in capsys.readouterr().out.splitlines() if "| text2sign |" in line]
    assert [row.split(" | ")[:3] for row in rows] == [["| 4", "text2sign", "3.000 (3.000 to 3.000)"]]


def test_a_library_that_is_missing_is_named_where_its_network_is_chosen(worker, monkeypatch, capsys):
    def version(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    arguments = ["--cells", "32:5:4", "--networks", "text2sign"]
    assert peers.main(arguments) == 0
    assert peers.main([*arguments, "diffusers"]) == 1
    assert "error: diffusers is not installed: pip install -r benchmarks/requirements.txt" in capsys.readouterr().err


def test_without_own_figures_there_are_no_ratios():
    result = CellResult(CELL, {"diffusers": PEER}, {"text2sign": MemoryLimitError("more than 16 GiB")})
    lines = report([result], 3, "same")
    assert any("| 4 | text2sign | skipped: more than 16 GiB | – | – |" in line for line in lines)
    assert any("| 5.000 (4.000 to 6.000) | – | 2.000 (2.000 to 2.000) | – |" in line for line in lines)


@pytest.mark.slow
def test_a_small_comparison_from_end_to_end(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    path = tmp_path / "figures.json"
    networks = ["text2sign", "video-diffusion-pytorch"]
    assert peers.main(["--quick", f"--json={path}", "--networks", *networks]) == 0
    printed, figures = capsys.readouterr().out, json.loads(path.read_text())
    assert printed.splitlines()[0] == figures["machine"]
    (cell,) = figures["cells"]
    own, peer = (cell["measurements"][name] for name in networks)
    for found in (own, peer):
        assert len(found["step_seconds"]) == len(found["forward_seconds"]) == 2
        assert min(*found["step_seconds"], *found["forward_seconds"]) > 0
        assert found["step_flops"] > 0
        assert 0 < found["peak_gib"] < 4
    ratios = [one / other for one, other in zip(peer["step_seconds"], own["step_seconds"], strict=True)]
    assert f"| {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f}) |" in printed
    assert f"| 1 | video-diffusion-pytorch | {statistics.median(peer['step_seconds']):.3f} (" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cells", "32:5"],
        ["--cells", "30:5:4"],
        ["--cells", "8:5:4"],
        ["--cells", "32:7:4"],
        ["--cells", "32:0:4"],
        ["--cells", "32:5:0"],
        ["--alternations=0"],
        ["--networks=other"],
        ["--json=missing/figures.json"],
    ],
)
def test_options_that_cannot_work_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        peers.main(arguments)
    assert end.value.code == 2
    assert "error: argument" in capsys.readouterr().err
