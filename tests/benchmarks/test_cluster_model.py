"""The model of a cluster: its formulas by hand, its counts against real passes, and its checks and tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import cluster_formulas as formulas
from benchmarks import cluster_model
from benchmarks.cluster_check import Comparison, check_communication, check_memory, cpu_gib, link_of
from benchmarks.cluster_formulas import (
    Choice,
    Link,
    StepTime,
    all_reduce_seconds,
    clips_that_fit,
    compute_seconds,
    gather_seconds,
    memory_of,
    parameters_that_fit,
    step_time,
    update_seconds,
)
from benchmarks.cluster_hardware import A100, CLUSTERS, H100, L4, Cluster, Gpu, Network
from benchmarks.cluster_report import check_table, efficiency, memory_table, rate, time_table
from benchmarks.cluster_workload import Unit, Workload, _Traffic, workload_of
from benchmarks.limited_process import LimitError, MemoryLimitError
from benchmarks.processes_measure import APART, REPLICATED, SHARDED
from benchmarks.processes_plan import Communication, Work
from benchmarks.scaling_axes import Setting
from benchmarks.scaling_worker import Measurement
from common.settings import load_settings
from compute.device import ComputeDevice
from compute.environment import forward_flops
from config import PRESETS, Config
from data.records import Batch
from models.build import build_model, build_tokenizer
from training.estimate import measure_clip

SMALL = (
    *("--image-size=16", "--num-frames=4", "--model-channels=16,32", "--spatial-attention-sizes=4"),
    *("--attention-head-channels=16", "--text-channels=16", "--text-layers=1"),
)
WORK = Workload(
    preset="tiny",
    batch_size=2,
    parameters=1000,
    forward_flops=1e6,
    activation_bytes=30_000,
    cast_weight_bytes=2_000,
    checkpointed_bytes=1_000,
    recomputed_bytes=500,
    other_traffic_bytes=8e5,
    fixed_traffic_bytes=4e5,
    kernels=10,
    units=(Unit(((30, 10),)), Unit(((40, 10),))),
    outer_unit=Unit(((30, 10),)),
    statistics=16,
)
GPU = Gpu("slow", flops_per_second=1e6, memory_bytes=10e9, memory_bytes_per_second=1e6)
CLUSTER = Cluster("slow", "slow", GPU, Network(1e6, 1e5))


def test_ddp_holds_five_copies_of_all_weights_and_the_activations_of_its_clips() -> None:
    memory = memory_of(WORK, Choice("ddp", 8, clips=2))
    assert (memory.weights, memory.gradients, memory.moments, memory.average) == (4000, 4000, 8000, 4000)
    assert memory.activations == 2 * 30_000 + 2_000
    assert memory.gathered == 0
    assert memory.tensors == 20_000 + 62_000
    assert memory.on_gpu == pytest.approx(1.5e9 + 1.1 * 82_000)


def test_fsdp_holds_parts_and_what_it_puts_together() -> None:
    memory = memory_of(WORK, Choice("fsdp", 10, clips=2))
    assert (memory.weights, memory.gradients, memory.moments, memory.average) == (400, 400, 800, 400)
    assert memory.activations == 62_000  # activations and cast weights are not divided
    assert memory.gathered == 4 * 2 * (2 * 400 + 300)  # weights and gradients of two units and of the outer one


def test_checkpointing_keeps_what_goes_into_stages_and_one_stage_again() -> None:
    memory = memory_of(WORK, Choice("ddp", 1, clips=2, checkpoints_activations=True))
    assert memory.activations == 2 * (1_000 + 500) + 2_000
    few = replace(WORK, checkpointed_bytes=0, recomputed_bytes=0, cast_weight_bytes=0)
    assert memory_of(few, Choice("ddp", 1, 2, checkpoints_activations=True)).activations == 4000  # the average moves


def test_compute_is_matrix_operations_and_then_everything_else() -> None:
    """3 * 1e6 * 2 operations at 0.35e6 a second, and 2 * 8e5 + 4e5 bytes at 0.8e6 a second."""
    seconds = compute_seconds(WORK, Choice("ddp", 1, clips=2), GPU)
    assert seconds == pytest.approx(6 / 0.35 + 2 / 0.8)
    checkpointed = Choice("ddp", 1, clips=2, checkpoints_activations=True)
    assert compute_seconds(WORK, checkpointed, GPU) == pytest.approx(seconds * 4 / 3)
    assert compute_seconds(WORK, Choice("ddp", 1, clips=2), H100) == pytest.approx(10 * 6e-6)  # launches


def test_the_update_is_divided_with_the_weights() -> None:
    assert update_seconds(WORK, Choice("ddp", 8, 2), GPU) == pytest.approx(18 * 4000 / 0.8e6)
    assert update_seconds(WORK, Choice("fsdp", 10, 2), GPU) == pytest.approx(18 * 400 / 0.8e6)


@pytest.mark.parametrize(
    ("size", "gpus", "latency", "seconds"),
    [(1e9, 1, 1, 0), (1e9, 2, 0, 1.0), (1e9, 4, 0, 1.5), (1e9, 8, 0, 1.75), (0, 8, 1, 6), (0, 512, 1, 18)],
)
def test_an_all_reduce_goes_twice_round_the_ring_or_over_trees(
    size: float, gpus: int, latency: float, seconds: float
) -> None:
    """2 (N - 1) / N times the bytes; without bytes, up and down trees of log2(N) levels."""
    assert all_reduce_seconds(size, gpus, Link(1e9, latency)) == pytest.approx(seconds)


def test_an_all_gather_goes_once_round_the_ring() -> None:
    assert gather_seconds(1e9, 4, Link(1e9, 0.01)) == pytest.approx(0.03 + 0.75)
    assert gather_seconds(1e9, 1, Link(1e9, 0.01)) == 0


def test_ddp_hides_all_but_the_last_message_behind_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, 4,000 bytes at 0.65e6 a second; the backward pass takes seconds."""
    monkeypatch.setattr(formulas, "LINK_LATENCY", 0.0)
    statistics = 4 * 16 * 2 * 2 / 2 / 0.65e6
    time = step_time(WORK, Choice("ddp", 2, 2), CLUSTER)
    assert time.sent == pytest.approx(4000 / 0.65e6 + statistics)
    assert time.exposed == pytest.approx(time.sent)  # one bucket is the last one
    large = replace(WORK, parameters=10 * 2**20)  # 40 MiB: 1, 25 and 14
    time = step_time(large, Choice("ddp", 2, 2), CLUSTER)
    backward = time.compute * 2 / 3
    assert time.exposed == pytest.approx(40 * 2**20 / 0.65e6 - backward + statistics)
    fast = replace(CLUSTER, network=Network(1e9, 1e9))
    statistics_then = statistics * 1e6 / 1e9
    assert step_time(large, Choice("ddp", 2, 2), fast).exposed == pytest.approx(14 * 2**20 / 0.65e9 + statistics_then)


def test_fsdp_sends_weights_twice_and_gradients_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulas, "LINK_LATENCY", 0.0)
    time = step_time(WORK, Choice("fsdp", 2, 2), CLUSTER)
    statistics, norm = 4 * 16 * 2 * 2 / 2 / 0.65e6, 4 / 0.65e6
    assert time.sent == pytest.approx(3 * 4000 / 2 / 0.65e6 + norm + statistics)
    outer = 4 * 300 / 2 / 0.65e6
    assert time.exposed == pytest.approx(2 * outer + norm + statistics)  # first there and last back wait for nobody


def test_between_machines_the_slower_network_counts() -> None:
    network = Network(machine_bytes_per_second=300e9, network_bytes_per_second=12.5e9)
    assert [network.ring_bytes_per_second(gpus) for gpus in (2, 8, 9, 512)] == [300e9, 300e9, 12.5e9, 12.5e9]


def test_the_batch_that_fits_is_the_largest() -> None:
    choice = Choice("fsdp", 8, 1)
    most = clips_that_fit(WORK, choice, GPU)
    assert memory_of(WORK, replace(choice, clips=most)).on_gpu <= GPU.memory_bytes
    heavy = replace(WORK, activation_bytes=1e9)
    assert clips_that_fit(heavy, choice, GPU) == 7  # (10e9 - 1.5e9) / 1.1 / 1e9 is 7.7
    assert clips_that_fit(replace(WORK, activation_bytes=1e10), choice, GPU) == 0


def test_the_largest_network_for_ddp_is_where_memory_ends() -> None:
    """(10e9 - 1.5e9) / 1.1, less 1,500 of activations, at 20 bytes and 2 of cast weights a parameter."""
    assert parameters_that_fit(WORK, 1, GPU) == pytest.approx(((8.5e9 / 1.1) - 1500) / 22)


def test_efficiency_is_the_share_of_n_times_one_gpu() -> None:
    assert efficiency(WORK, Choice("ddp", 1, 2), CLUSTER) == 1
    assert rate(Choice("ddp", 4, 3), StepTime(1.0, 0.25, 9.0, 0.75, 0.5)) == 6
    alone, together = (step_time(WORK, Choice("ddp", gpus, 2), CLUSTER).total for gpus in (1, 512))
    assert efficiency(WORK, Choice("ddp", 512, 2), CLUSTER) == pytest.approx(alone / together)


@pytest.mark.parametrize(
    ("name", "gpu"), [("NVIDIA H100 80GB HBM3", H100), ("NVIDIA A100-SXM4-80GB", A100), ("NVIDIA L4", L4)]
)
def test_peaks_are_those_that_utilisation_is_measured_by(name: str, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device = ComputeDevice(torch.device("cuda"), torch.bfloat16)
    assert device.peak_flops_per_second == gpu.flops_per_second


def test_traffic_is_what_operations_read_and_write_without_matrix_products() -> None:
    x, traffic = torch.ones(4, 10), _Traffic()
    with traffic:
        y = x.view(10, 4)  # no kernel
        z = x + 1  # reads and writes 160 bytes
        torch.mm(z, y)
    assert (traffic.bytes, traffic.kernels) == (320, 2)


def test_a_network_is_counted_as_a_real_pass_is() -> None:
    work, real = (workload_of("tiny", SMALL, has_contents=contents) for contents in (False, True))
    config = load_settings(Config, PRESETS, list(SMALL), program="").config
    model = build_model(config, build_tokenizer(config, None), torch.device("cpu")).train()
    batch = Batch(
        video_BCTHW=torch.zeros(1, 3, 4, 16, 16),
        tokens_BL=torch.ones(1, config.MAX_CAPTION_LENGTH, dtype=torch.int64),
        captions=("",),
        ids=("0",),
        epoch=0,
        index_in_epoch=0,
    )
    assert work.parameters == sum(each.numel() for each in model.parameters()) == work.padded(1)
    assert work.forward_flops == pytest.approx(forward_flops(model, batch, torch.device("cpu")), rel=0.01)
    clip = measure_clip(model, batch, ComputeDevice(torch.device("cpu"), torch.bfloat16))
    kept = clip.activation_bytes + clip.cast_weight_bytes
    assert work.activation_bytes + work.cast_weight_bytes == pytest.approx(kept, rel=0.05)
    assert work.other_traffic_bytes == pytest.approx(real.other_traffic_bytes, rel=0.2)
    assert work.kernels == pytest.approx(real.kernels, rel=0.2)
    assert 0 < work.checkpointed_bytes + work.recomputed_bytes < work.activation_bytes


def test_a_link_is_fitted_to_the_smallest_and_the_largest_message() -> None:
    """Latency 0.001 s a hop, twice; then 1e8 bytes a second."""
    link = link_of(Communication(0, 0, 0, 0, {"4": 0.002, "1000004": 5.0, "100000004": 1.002}))
    assert link.latency == pytest.approx(0.001)
    assert link.bytes_per_second == pytest.approx(1e8, rel=1e-6)


def test_two_real_processes_stand_beside_the_model() -> None:
    sent = Communication(4000, 0.5, 16 * 2, 0.25, {"4": 0.002, "100000004": 1.002})
    works = {
        APART: Work(1.0, 1, 1, 1, 0),
        REPLICATED: Work(2.0, 1, 1, 1, 0, sent),
        SHARDED: Work(4.0, 1, 1, 1, 0),
    }
    gradients, together, step, divided = check_communication([works], WORK)
    assert (gradients.measured, together.measured, step.measured, divided.measured) == (500, 250, 2000, 4000)
    assert gradients.modelled == pytest.approx(2 + 0.04)  # 2 ms of latency, 4,000 bytes at 1e8 a second
    assert together.modelled == pytest.approx(1 + 128 / 1e8 * 1000)
    assert step.modelled == pytest.approx(1000 + gradients.modelled + together.modelled)
    assert divided.modelled == pytest.approx(1000 + 3 * (3 * 1 + 4000 / 2 / 1e8 * 1000) + together.modelled)
    assert step.deviation == pytest.approx(step.modelled / 2000 - 1)
    assert len(check_communication([works], None)) == 3


def test_a_real_process_stands_beside_the_model() -> None:
    (found,) = check_memory({"tiny": WORK}, [("tiny", 3)], lambda setting: Measurement(1.0, 2.0, 1000))
    assert found.measured == 2.0
    assert found.modelled == cpu_gib(WORK, 3)
    assert found.modelled * 2**30 == pytest.approx(20_000 + 1.5 * 3 * 30_000 + 2_000)
    with pytest.raises(LimitError):
        check_memory({"tiny": WORK}, [("tiny", 3)], lambda setting: MemoryLimitError("more than 16 GiB"))


def test_tables_say_what_does_not_fit_and_checkpoint_it() -> None:
    heavy = replace(WORK, activation_bytes=6e9)
    rows = memory_table(heavy, GPU)
    assert "**too much**" in rows[2]
    assert rows[2].split("|")[-3].strip() == "1"
    assert "activations checkpointed" in time_table(heavy, CLUSTER)[0]
    assert "activations checkpointed" not in time_table(WORK, CLUSTER)[0]
    assert check_table([Comparison("memory", "GiB", 1.1, 1.0)])[2] == "| memory | 1.10 GiB | 1.00 GiB | +10 % |"


def test_the_command_says_that_nothing_was_measured_on_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def measure(setting: Setting) -> Measurement:
        asked.append(setting.label)
        return Measurement(1.0, 1.0, 1000)

    monkeypatch.setattr(cluster_model, "workload_of", lambda preset: replace(WORK, preset=preset))
    monkeypatch.setattr(cluster_model, "host_seconds_a_clip", lambda preset: 0.25)
    monkeypatch.setattr(cluster_model, "check_counts", lambda work: [])
    monkeypatch.setattr(cluster_model, "check_memory", lambda works, cases: check_memory(works, cases, measure))
    figures = tmp_path / "figures.json"
    assert cluster_model.main(["--quick", f"--json={figures}"]) == 0
    printed = capsys.readouterr().out
    assert asked == ["tiny"]
    assert "None was measured" in printed
    assert all(
        f"{name} = {vars(formulas)[name]}" in printed for name in ("MATMUL_SHARE", "LINK_SHARE", "LAUNCH_SECONDS")
    )
    assert all(f"| large on {cluster.label} " in printed for cluster in CLUSTERS)
    content = json.loads(figures.read_text())
    assert len(content["modelled"]) == 3 * len(CLUSTERS) * 4 * 2 * 2
    assert content["checked"][0]["measured"] == 1.0
    assert {work["host_seconds"] for work in content["counted"]} == {0.25}


def test_a_file_of_figures_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cluster_model.main(["--processes=/no/such/file.json"]) == 1
    assert "error: " in capsys.readouterr().err
