"""Choosing a device and a precision, and waiting for a device that is behind, with devices that are not there."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import main
import training.estimate
import training.loop
from common.errors import UserError
from compute.device import ALONE, ComputeDevice, OnItsWay, Place, build_device, choose_device
from config import Config
from distributed.failure import ReportedFailure, report_failures
from distributed.processes import Processes
from logging_system.cadence import Cadence
from tests.held_clock import HeldClock
from training.estimate import ClipCost

LAG_SECONDS = 0.3


def test_waiting_asks_the_device_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(device))
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("mps"))
    ComputeDevice(torch.device("cuda", 1), None).wait()
    assert calls == [torch.device("cuda", 1)]
    ComputeDevice(torch.device("mps"), None).wait()
    assert calls[1:] == ["mps"]
    ComputeDevice(torch.device("cpu"), None).wait()
    assert len(calls) == 2


@pytest.mark.parametrize("allowed", [False, True])
def test_cudnn_s_attention_is_off_unless_it_is_asked_for(allowed: bool) -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        build_device(Config(DEVICE="cpu", **({"CUDNN_ATTENTION": True} if allowed else {})), ALONE)
        assert torch.backends.cuda.cudnn_sdp_enabled() == allowed
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


class Tensor:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def pin_memory(self) -> "Tensor":
        self.asked.append(("pin",))
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> "Tensor":
        self.asked.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("name", "asked"),
    [("cuda", [("pin",), ("cuda", True)]), ("mps", [("mps", False)]), ("cpu", [("cpu", False)])],
)
def test_only_a_gpu_copies_from_pinned_memory_without_the_host(name: str, asked: list[tuple[object, ...]]) -> None:
    tensor = Tensor()
    assert ComputeDevice(torch.device(name), None).send(tensor) is tensor
    assert tensor.asked == asked


def test_results_are_needed_at_each_cadence_and_never_between() -> None:
    cadence = Cadence.from_config(
        Config(
            VALIDATE_EVERY_STEPS=6,
            SAVE_EVERY_STEPS=8,
            LOG_EVERY_STEPS=4,
            SAMPLE_EVERY_STEPS=9,
            DIAGNOSTIC_LOG_EVERY_STEPS=11,
        )
    )
    assert [step for step in range(1, 17) if cadence.needs_results(step)] == [4, 6, 8, 9, 11, 12, 16]


@pytest.mark.slow
def test_work_that_the_device_still_has_counts_as_training_and_not_as_logging(
    small_arguments: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    clock = HeldClock()
    monkeypatch.setattr(training.loop, "time", clock)

    def lag(device: ComputeDevice) -> None:
        waits.append(1)
        clock.now += LAG_SECONDS

    monkeypatch.setattr(ComputeDevice, "wait", lag)
    # The estimate before the first step waits as well; it is not what is counted here.
    monkeypatch.setattr(training.estimate, "measure_clip", lambda *_: ClipCost(1.0, 0, 0))
    arguments = small_arguments(
        "--experiment-name=lag",
        "--max-steps=7",
        "--clip-timing=stretched",
        "--batch-size=4",
        "--log-every-steps=4",
        "--no-enable-video-logging",
        "--no-enable-noise-visualization",
    )
    assert main.main(arguments) == 0
    assert len(waits) == 4  # steps 1 and 4, 6, which ends an epoch, and 7, which ends the run; not once a step
    points = map(json.loads, (tmp_path / "logs" / "lag" / "metrics.jsonl").read_text().splitlines())
    seconds = [point["value"] for point in points if point["tag"] == "05_Performance/Step_Time_Seconds"]
    assert seconds == pytest.approx([2 * LAG_SECONDS / 4, 2 * LAG_SECONDS / 3])


@pytest.mark.parametrize(
    ("mixed_precision", "has_avx512", "has_amx", "expected"),
    [
        ("auto", True, False, torch.bfloat16),
        ("auto", False, True, torch.bfloat16),
        ("auto", False, False, None),
        ("off", True, True, None),
        ("bfloat16", False, False, torch.bfloat16),
    ],
)
def test_a_cpu_takes_bfloat16_where_it_computes_in_it_or_is_told_to(
    mixed_precision: str,
    has_avx512: bool,
    has_amx: bool,
    expected: torch.dtype | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    compute = choose_device("cpu", mixed_precision)
    assert compute.autocast_dtype is expected
    with compute.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (expected or torch.float32)


class Machine:
    """A machine as PyTorch would describe it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.patch = patch
        self.own: list[torch.device] = []
        self.has(gpus=0)

    def has(self, *, gpus: int, capability: tuple[int, int] = (8, 0), macos: int | None = None) -> None:
        self.patch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        self.patch.setattr(torch.cuda, "device_count", lambda: gpus)
        self.patch.setattr(torch.cuda, "set_device", self.own.append)
        self.patch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        self.patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
        self.patch.setattr(torch.backends.mps, "is_available", lambda: macos is not None)
        self.patch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, _: (macos or 0) >= major)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize(
    ("capability", "mixed_precision", "expected"),
    [
        ((9, 0), "auto", torch.bfloat16),
        ((7, 5), "auto", torch.float16),
        ((7, 0), "auto", torch.float16),
        ((6, 1), "auto", None),
        ((8, 0), "float16", torch.float16),
        ((7, 5), "bfloat16", torch.bfloat16),
        ((8, 0), "off", None),
    ],
)
def test_a_gpu_takes_what_it_computes_in_or_what_it_is_told(
    machine: Machine, capability: tuple[int, int], mixed_precision: str, expected: torch.dtype | None
) -> None:
    machine.has(gpus=1, capability=capability)
    compute = choose_device("auto", mixed_precision)
    assert compute.device == torch.device("cuda")
    assert compute.autocast_dtype is expected


@pytest.mark.parametrize(
    ("macos", "mixed_precision", "expected"),
    [(15, "auto", None), (14, "bfloat16", torch.bfloat16), (13, "auto", None), (13, "off", None)],
)
def test_mps_takes_bfloat16_only_where_told_to(
    machine: Machine, macos: int, mixed_precision: str, expected: torch.dtype | None
) -> None:
    machine.has(gpus=0, macos=macos)
    compute = choose_device("auto", mixed_precision)
    assert (compute.device, compute.autocast_dtype) == (torch.device("mps"), expected)


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_float16_anywhere_but_on_cuda_is_refused(machine: Machine, name: str) -> None:
    machine.has(gpus=0, macos=15)
    with pytest.raises(UserError, match=f"'float16', which is for CUDA devices; this run is on {name}. Set MIXED_PREC"):
        choose_device(name, "float16")


def test_bfloat16_on_an_old_macos_is_refused(machine: Machine) -> None:
    machine.has(gpus=0, macos=13)
    with pytest.raises(UserError, match=r"MPS has from macOS 14 on\. Set MIXED_PRECISION to 'auto'"):
        choose_device("mps", "bfloat16")


def test_a_device_that_is_not_there_is_refused(machine: Machine) -> None:
    with pytest.raises(UserError, match="DEVICE is 'cuda', but PyTorch sees only: cpu"):
        choose_device("cuda", "auto")


def test_each_of_several_processes_gets_a_gpu_of_its_own(machine: Machine) -> None:
    machine.has(gpus=4)
    places = [Place(local_rank=local_rank, processes_here=4) for local_rank in range(4)]
    devices = [choose_device("auto", "auto", place).device for place in places]
    assert devices == machine.own == [torch.device("cuda", index) for index in range(4)]


def test_one_process_leaves_the_choice_of_the_gpu_to_cuda(machine: Machine) -> None:
    machine.has(gpus=4)
    assert choose_device("cuda", "auto").device == torch.device("cuda")
    assert machine.own == []


def test_more_processes_than_gpus_are_refused_with_both_numbers(machine: Machine) -> None:
    machine.has(gpus=2)
    with pytest.raises(UserError, match=r"4 processes .* sees 2 CUDA devices.*--nproc-per-node=2, or set DEVICE"):
        choose_device("auto", "auto", Place(local_rank=0, processes_here=4))


def test_several_processes_on_mps_are_refused_and_on_a_cpu_are_not(machine: Machine) -> None:
    machine.has(gpus=0, macos=15)
    place = Place(local_rank=1, processes_here=2)
    with pytest.raises(UserError, match=r"2 processes cannot share .* MPS device. .* set DEVICE to 'cpu'"):
        choose_device("auto", "auto", place)
    assert choose_device("cpu", "off", place) == ComputeDevice(torch.device("cpu"), None)


def test_float16_autocast_computes_products_in_float16_and_is_named() -> None:
    compute = ComputeDevice(torch.device("cpu"), torch.float16)
    with compute.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float16
    assert compute.precision == "float16"


def test_numbers_on_the_cpu_are_on_the_host_at_once() -> None:
    sent = ComputeDevice(torch.device("cpu"), None).send_to_host(torch.tensor([1, 2]))
    assert sent.is_on_host
    assert sent.read().tolist() == [1, 2]


def test_numbers_on_their_way_are_waited_for_before_they_are_read() -> None:
    calls: list[str] = []
    sent = OnItsWay(torch.tensor([3]), SimpleNamespace(synchronize=lambda: calls.append("waited")))
    assert not sent.is_on_host
    assert sent.read().tolist() == [3]
    assert calls == ["waited"]


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA H300", None),
        ("NVIDIA RTX A1000", None),
    ],
)
def test_the_peak_is_that_of_exactly_this_device_or_unknown(
    name: str, teraflops: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    peak = ComputeDevice(torch.device("cuda"), torch.bfloat16).peak_flops_per_second
    assert peak == (None if teraflops is None else teraflops * 1e12)
    assert ComputeDevice(torch.device("cuda"), None).peak_flops_per_second is None


@pytest.mark.parametrize(("name", "is_pinned"), [("cuda", True), ("mps", False), ("cpu", False)])
def test_memory_to_be_filled_for_a_gpu_is_pinned(name: str, is_pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(torch, "empty", lambda shape, pin_memory: asked.append((shape, pin_memory)))
    ComputeDevice(torch.device(name), None).empty_on_host((2, 3))
    assert asked == [((2, 3), is_pinned)]


@pytest.fixture
def algorithms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back which algorithms PyTorch may choose."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for name in ("benchmark", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.usefixtures("algorithms")
def test_the_fastest_algorithms_are_searched_for_unless_results_must_not_differ() -> None:
    build_device(Config(DEVICE="cpu"), ALONE)
    assert torch.backends.cudnn.benchmark
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    build_device(Config(DEVICE="cpu", DETERMINISTIC=True), ALONE)
    assert not torch.backends.cudnn.benchmark
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert torch.empty(10**5).isnan().sum() < 10**5  # memory is not filled, which would take time


@pytest.mark.usefixtures("algorithms")
def test_what_is_to_be_done_before_cuda_starts_is_done_before_it_is_asked_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.has(gpus=1)
    seen: list[str | None] = []

    def is_available() -> bool:
        seen.append(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
        return True

    monkeypatch.setattr(torch.cuda, "is_available", is_available)
    build_device(Config(DEVICE="cuda", DETERMINISTIC=True), ALONE)
    assert set(seen) == {":4096:8"}


@pytest.mark.usefixtures("algorithms")
@pytest.mark.parametrize(("mixed_precision", "rounds"), [("off", False), ("auto", True)])
def test_float32_on_a_gpu_is_not_rounded_to_tf32(machine: Machine, mixed_precision: str, rounds: bool) -> None:
    machine.has(gpus=1)
    choose_device("cuda", mixed_precision)
    assert torch.backends.cudnn.allow_tf32 is rounds


@pytest.mark.usefixtures("algorithms")
def test_an_operator_without_a_deterministic_form_is_named_with_the_constant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    build_device(Config(DEVICE="cpu", DETERMINISTIC=True), ALONE)
    with pytest.raises(ReportedFailure), report_failures(ALONE, Processes()):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    assert "error: DETERMINISTIC is True, and on this device put_ has no deterministic form" in capsys.readouterr().err
