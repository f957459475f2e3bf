"""The check for GPUs keeps what it found whatever happens, finds what is wrong, and its code runs."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu, gpu_checks, gpu_runs
from benchmarks.gpu_checks import Findings
from benchmarks.gpu_runs import Check
from benchmarks.worker_process import TimeLimitError, WorkerError
from compute.device import ComputeDevice
from models.attention import attend
from models.layers import Upsample
from tests.training.test_fake_device import imagined_training  # noqa: F401  a fixture
from training.estimate import TrainingEstimate
from training.step import TrainStep

SECONDS = (10.0, 20.0, 40.0, 20.0)  # that the pretended checks are expected to take


class Pretended:
    """Checks of which each does what a test says, and a clock that only they advance."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
        self.now = 1000.0
        self.limits: dict[int, float] = {}
        self.does: dict[int, Callable[[Callable[..., None]], None]] = {}
        self.takes: dict[int, float] = {}
        self.path = path
        monkeypatch.setattr(gpu, "CHECKS", tuple(Check(f"check {i}", each, print) for i, each in enumerate(SECONDS)))
        monkeypatch.setattr(gpu, "run_worker", self._run)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(gpu.time, "monotonic", lambda: self.now)

    def _run(self, command: list[str], *, seconds: float, memory_gib: float) -> None:
        plan = json.loads(command[-1])
        number = plan["check"]
        self.limits[number] = seconds
        self.now += self.takes.get(number, SECONDS[number])
        assert plan["seconds"] == seconds

        def write(**finding: object) -> None:
            with Path(plan["path"]).open("a") as file:
                file.write(json.dumps(finding) + "\n")

        write(figure="first", value=number)
        if number in self.does:
            self.does[number](write)

    def run(self, *options: str) -> int:
        return gpu.main(["--output", str(self.path), *options])

    @property
    def results(self) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self.path.read_text().splitlines()) if "check" in line]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pretended:
    return Pretended(monkeypatch, tmp_path / "gpu.json")


def raises(error: BaseException) -> Callable[[Callable[..., None]], None]:
    def do(write: Callable[..., None]) -> None:
        raise error

    return do


def test_a_check_that_hangs_or_dies_keeps_its_findings_and_ends_no_other(
    pretended: Pretended, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended.does = {
        0: raises(TimeLimitError("more than 55 s")),
        1: raises(WorkerError("ended by signal 11")),
        2: lambda write: write(fault="a | b\nc"),
    }
    assert pretended.run() == 1
    results = pretended.results
    assert [result["state"] for result in results] == ["failed", "failed", "failed", "passed"]
    assert [result["figures"] for result in results] == [{"first": number} for number in range(4)]
    assert [result["faults"] for result in results] == [["more than 55 s"], ["ended by signal 11"], ["a | b\nc"], []]
    assert [result["seconds"] for result in results] == [10, 20, 40, 20]
    assert "| 2 | check 2 | failed | 40 | a / b c |" in capsys.readouterr().out


def test_a_finding_that_is_cut_off_ends_nothing(pretended: Pretended, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **limits: float) -> None:
        Path(json.loads(command[-1])["path"]).write_text('{"figure": "whole", "value": 1}\n{"figure": "cu')
        raise TimeLimitError("more than 55 s")

    monkeypatch.setattr(gpu, "run_worker", run)
    assert pretended.run("--checks=0,1") == 1
    assert [result["figures"] for result in pretended.results] == [{"whole": 1}, {"whole": 1}]


def test_a_check_has_some_time_more_than_expected_and_the_last_one_all_that_is_left(pretended: Pretended) -> None:
    assert pretended.run("--budget-seconds=200") == 0
    grace = gpu.GRACE_SECONDS
    assert pretended.limits == {0: 10 + grace, 1: 20 + grace, 2: 40 + grace, 3: 200 - 10 - 20 - 40}


def test_what_the_budget_does_not_suffice_for_is_skipped_and_cut(pretended: Pretended) -> None:
    """90 s: after 10 and 65 there are 15 left, too few for 40, enough for half of 20."""
    pretended.takes = {1: 65}
    assert pretended.run("--budget-seconds=90") == 0
    assert [result["state"] for result in pretended.results] == ["passed", "passed", "skipped", "passed"]
    assert pretended.limits[3] == 15


def test_an_interrupted_check_is_written_too_and_the_rest_is_skipped(pretended: Pretended) -> None:
    pretended.does = {1: raises(KeyboardInterrupt())}
    assert pretended.run() == 130
    assert [result["state"] for result in pretended.results] == ["passed", "failed", "skipped", "skipped"]
    assert pretended.results[1]["figures"] == {"first": 1}


def test_checks_are_chosen_by_number_and_lines_are_added_to_the_file(pretended: Pretended) -> None:
    assert pretended.run("--checks=2,0") == 0
    assert pretended.run("--checks=1", "--device=cpu", "--budget-seconds=30") == 0
    assert [result["check"] for result in pretended.results] == [2, 0, 1]
    assert pretended.limits[1] == 30  # on a CPU what is expected of a GPU is no limit


@pytest.mark.parametrize("checks", ["4", "-1", "", "0,", "a", "1-3"])
def test_a_check_that_does_not_exist_is_refused_with_those_that_do(
    pretended: Pretended, capsys: pytest.CaptureFixture[str], checks: str
) -> None:
    with pytest.raises(SystemExit):
        pretended.run(f"--checks={checks}")
    assert f"--checks: must be numbers from 0 to 3, such as 0,1,6, not {checks!r}" in capsys.readouterr().err


def test_nothing_is_checked_on_a_device_that_is_not_there(
    pretended: Pretended, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        pretended.run()
    assert "--device cuda: PyTorch sees none here; --device cpu tries the code" in capsys.readouterr().err
    assert not pretended.path.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_file_that_cannot_be_written_is_named(pretended: Pretended, capsys: pytest.CaptureFixture[str]) -> None:
    pretended.path = Path("/dev/full")
    assert pretended.run() == 1
    assert "error: --output /dev/full cannot be written: " in capsys.readouterr().err


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path / "findings", torch.device("cpu"), tmp_path / "cache", time.monotonic() + 1e6)


def found(findings: Findings) -> tuple[dict[str, Any], list[str]]:
    """Return the figures and the faults."""
    lines = [json.loads(line) for line in findings.path.read_text().splitlines()]
    figures = {line["figure"]: line["value"] for line in lines if "figure" in line}
    return figures, [line["fault"] for line in lines if "fault" in line]


def test_an_error_is_a_fault_and_the_next_part_runs(findings: Findings) -> None:
    with findings.part("one"):
        raise RuntimeError("CUDA error\nmore")
    with findings.part("two"):
        findings.note("two", 2)
    assert found(findings) == ({"two": 2}, ["one: RuntimeError: CUDA error"])


@pytest.mark.slow
def test_right_attention_passes_at_every_place_and_wrong_attention_is_found(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_checks.check_attention(findings)
    figures, faults = found(findings)
    assert faults == []
    assert len(figures) == len(gpu_checks.attention_places(is_small=True))
    assert all(each["MATH"]["difference"] < 0.02 for each in figures.values())

    def ignores_bias(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        return attend(query, key, value, None if bias is None else 0 * bias.nan_to_num(neginf=0))

    monkeypatch.setattr(gpu_checks, "attend", ignores_bias)
    gpu_checks.check_attention(findings)
    assert {fault.split(":")[0] for fault in found(findings)[1]} == {
        "attention (caption of 13)",
        "attention (text of 13)",
    }


def test_places_of_attention_reach_beyond_what_a_grid_takes() -> None:
    places = gpu_checks.attention_places(is_small=False)
    assert {65_535, 65_536} < {place.heads for place in places}
    assert 65_536 in {place.sequences for place in places}
    assert {place.keys for place in places if place.bias} == {*range(1, 9), 13, 64}


def test_not_a_number_is_infinitely_off() -> None:
    assert gpu_checks.share_off(torch.tensor([1.0, float("nan")]), torch.ones(2)) == float("inf")
    assert gpu_checks.share_off(torch.tensor([1.0, 4.5]), torch.tensor([1.0, 5.0])) == pytest.approx(0.1)


def test_a_layout_that_changes_and_a_gradient_that_is_wrong_are_found(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_checks.check_network(findings)
    figures, faults = found(findings)
    assert faults == []
    assert figures["bfloat16"]["cosine"] > 0.99
    right = Upsample.forward

    def plain(self: Upsample, x_NCHW: Tensor) -> Tensor:
        result = right(self, x_NCHW).contiguous()
        return 2 * result.detach() - result if result.dtype == torch.bfloat16 else result

    monkeypatch.setattr(Upsample, "forward", plain)
    gpu_checks.check_network(findings)
    faults = found(findings)[1]
    assert [fault.split(":")[0] for fault in faults] == ["float32", "bfloat16", "bfloat16"]
    assert "not channels last" in faults[0]
    assert "cosine" in faults[1]


def test_a_step_that_changes_weights_although_it_is_not_finite_is_found(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_checks._spoil_step(findings)
    assert found(findings) == ({"not_finite": {"skipped": True, "changed": []}}, [])
    monkeypatch.setattr("training.step.step_unless", lambda optimizer, skipped: optimizer.step())
    gpu_checks._spoil_step(findings)
    assert found(findings)[1][0].startswith("a step with NaN changed ['model.")


@pytest.mark.slow
def test_the_machine_is_described_by_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    options = ["--checks=0", "--device=cpu", f"--cache-dir={tmp_path}", "--budget-seconds=100000"]
    assert gpu.main([f"--output={path}", *options]) == 0
    figures = json.loads(path.read_text().splitlines()[-1])["figures"]
    assert figures["environment"]["torch"] == torch.__version__
    assert figures["matmul_tflops_float32"] > 0


@pytest.mark.slow
def test_all_checks_pass_on_a_cpu(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    code = gpu.main([f"--output={path}", "--device=cpu", f"--cache-dir={tmp_path}", "--budget-seconds=100000"])
    results = [json.loads(line) for line in path.read_text().splitlines()][1:]
    assert {result["title"]: result["faults"] for result in results} == {check.title: [] for check in gpu_runs.CHECKS}
    assert code == 0
    for precision in ("off", "auto"):
        assert results[5]["figures"][f"losses, MIXED_PRECISION {precision}"].keys() == {"alone", "ddp", "fsdp"}
    assert results[6]["figures"]["resumed_off_by"] == {"model": 0, "ema": 0, "optimizer": 0}
    assert results[7]["figures"]["host_ms"] > 0


@pytest.fixture
def imagined_findings(
    imagined_training: Any,  # noqa: F811
    findings: Findings,
    monkeypatch: pytest.MonkeyPatch,
) -> Findings:
    """The checks at full size, on a CUDA device without values; nothing is repeated to be timed."""
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(gpu_runs, "peak_gib", lambda: 1.0)
    monkeypatch.setattr(TrainStep, "draw_ahead", lambda *_: None)  # tensors without values belong to one thread
    estimate = TrainingEstimate(1, 10**12, 1.0, 1, 1, 1.0)
    monkeypatch.setattr("training.learner.estimate_training", lambda *_, **__: estimate)
    compute = ComputeDevice(torch.device(imagined_training.name), torch.bfloat16)
    monkeypatch.setattr("benchmarks.step_worker.build_device", lambda *_: compute)
    monkeypatch.setattr("training.learner.forward_flops", lambda *_: 10**9)
    monkeypatch.setattr(Findings, "seconds_each", lambda findings, work, repeats=1: (work(), 0.5)[1])
    imagined_training.parameters = []
    real_build = gpu_checks.build

    def build(*arguments: Any, **options: Any) -> Any:
        learner, batch = real_build(*arguments, **options)
        imagined_training.parameters = list(learner.model.parameters())
        return learner, batch

    monkeypatch.setattr(gpu_checks, "build", build)
    monkeypatch.setattr(gpu_runs, "build", build)
    return Findings(findings.path, compute.device, findings.cache, findings.end)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("check", [gpu_runs.check_profile, gpu_runs.check_settings], ids=["profile", "settings"])
def test_full_size_fits_together_on_an_imagined_device(
    check: Callable[[Findings], None], imagined_findings: Findings
) -> None:
    check(imagined_findings)
    figures, faults = found(imagined_findings)
    assert faults == []
    speeds = [each for each in figures.values() if isinstance(each, dict)]
    assert len(speeds) == (1 if check is gpu_runs.check_profile else 7)
    assert all(each["tflops"] == 2 and each["peak_gib"] == 1 for each in speeds)


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_network_of_base_passes_clips_on_an_imagined_device(
    dtype: torch.dtype | None, imagined_findings: Findings
) -> None:
    config = gpu_checks.load_config(imagined_findings, "base", "--batch-size=2", device="cpu")
    found = gpu_checks.pass_through(config, ComputeDevice(imagined_findings.device, dtype))
    assert 0 < found.loss < 1  # layouts are those of a PyTorch without cuDNN, so they say nothing
