"""The model of benchmarks.cluster_model against what can be measured here: CPU processes, and two of them over gloo."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchmarks.cluster_formulas import Choice, Link, all_reduce_seconds, gather_seconds, memory_of
from benchmarks.cluster_workload import FLOAT_BYTES, Workload, workload_of
from benchmarks.limited_process import LimitError
from benchmarks.machine import GIBIBYTE
from benchmarks.processes_measure import APART, PROCESSES, REPLICATED, SHARDED, Round
from benchmarks.processes_plan import Communication, gradient_buckets
from benchmarks.scaling_axes import Setting
from benchmarks.scaling_measure import measure_in_process
from benchmarks.scaling_worker import Measurement
from common.settings import load_settings
from compute.device import ComputeDevice
from config import PRESETS, Config
from data.records import Batch
from models.build import build_model, build_tokenizer
from training.estimate import HELD_BY_CPU_ALLOCATOR, measure_clip

MEMORY_CASES = (("tiny", 4), ("tiny", 16), ("base", 1), ("base", 2))
QUICK_MEMORY_CASES = (("tiny", 1),)

MeasureMemory = Callable[[Setting], Measurement | LimitError]


@dataclass(frozen=True)
class Comparison:
    """A modelled quantity beside the measured one."""

    quantity: str
    unit: str
    modelled: float
    measured: float

    @property
    def deviation(self) -> float:
        """By how much of the measured value the model is too high."""
        return self.modelled / self.measured - 1


def check_memory(
    works: Mapping[str, Workload], cases: Sequence[tuple[str, int]], measure: MeasureMemory = measure_in_process
) -> list[Comparison]:
    """Compare the peak of a real training process, above its start, with what the model says a GPU holds.

    Args:
        works: by preset.
        cases: presets and numbers of clips.
        measure: makes the process.

    Raises:
        LimitError: a process failed.
    """
    found = []
    for preset, clips in cases:
        options = (f"--preset={preset}", f"--batch-size={clips}", f"--epoch-size={max(clips, 2048)}", "--device=cpu")
        measured = measure(Setting(preset, clips, options))
        if isinstance(measured, LimitError):
            raise measured
        name = f"peak memory, {preset}, {clips} clip{'s' if clips > 1 else ''}"
        found.append(Comparison(name, "GiB", cpu_gib(works[preset], clips), measured.memory_gib))
    return found


def cpu_gib(work: Workload, clips: int) -> float:
    """Return what the model says of a process on a CPU, whose allocator holds more than it uses."""
    memory = memory_of(work, Choice("ddp", 1, clips))
    held = (HELD_BY_CPU_ALLOCATOR - 1) * clips * work.activation_bytes
    return (memory.tensors + held) / GIBIBYTE


def link_of(communication: Communication) -> Link:
    """Fit the two quantities of the model's ring to the smallest and the largest all-reduce of two processes."""
    by_size = sorted((int(size), seconds) for size, seconds in communication.seconds_of_bytes.items())
    (_, shortest), (largest, longest) = by_size[0], by_size[-1]
    return Link(largest / (longest - shortest), shortest / 2)


def check_counts(work: Workload) -> list[Comparison]:
    """Compare the count without contents with a real pass, and with what training.estimate finds before a run."""
    real = workload_of(work.preset, has_contents=True)
    config = load_settings(Config, PRESETS, [f"--preset={work.preset}"], program="main.py").config
    tokenizer = build_tokenizer(config, None)
    model = build_model(config, tokenizer, torch.device("cpu")).train()
    batch = Batch(
        video_BCTHW=torch.zeros(1, 3, config.NUM_FRAMES, config.IMAGE_SIZE, config.IMAGE_SIZE),
        tokens_BL=torch.ones(1, config.MAX_CAPTION_LENGTH, dtype=torch.int64),
        captions=("",),
        ids=("0",),
        epoch=0,
        index_in_epoch=0,
    )
    clip = measure_clip(model, batch, ComputeDevice(torch.device("cpu"), torch.bfloat16))
    kept = work.activation_bytes + work.cast_weight_bytes
    return [
        Comparison(
            f"activations and cast weights, {work.preset}, 1 clip, by training.estimate",
            "MB",
            kept / 1e6,
            (clip.activation_bytes + clip.cast_weight_bytes) / 1e6,
        ),
        Comparison(
            f"other traffic, {work.preset}, a clip, of a real pass",
            "MB",
            work.other_traffic_bytes / 1e6,
            real.other_traffic_bytes / 1e6,
        ),
    ]


def check_communication(rounds: Sequence[Round], work: Workload | None) -> list[Comparison]:
    """Compare two processes over gloo with the model, whose link is fitted to two all-reduces that are not compared.

    A core that computes also sends, so that nothing is hidden here.

    Args:
        rounds: of benchmarks.processes.
        work: of its network, for FSDP.
    """
    rows = [_communication_of(works, work) for works in rounds]
    return [
        Comparison(name, "ms", *(1000 * statistics.median(row[name][side] for row in rows) for side in (0, 1)))
        for name in rows[0]
    ]


def _communication_of(works: Round, work: Workload | None) -> dict[str, tuple[float, float]]:
    """Return modelled and measured seconds of one alternation."""
    measured = works[REPLICATED].communication
    assert measured is not None
    link = link_of(measured)
    gradients = sum(all_reduce_seconds(size, PROCESSES, link) for size in gradient_buckets(measured.gradient_bytes))
    together = gather_seconds(FLOAT_BYTES * measured.statistics_numbers * PROCESSES, PROCESSES, link)
    alone = works[APART].step_seconds
    rows = {
        "all-reduce of the gradients": (gradients, measured.gradients_seconds),
        "gathering the statistics": (together, measured.statistics_seconds),
        "a step of two processes, DDP": (alone + gradients + together, works[REPLICATED].step_seconds),
    }
    if work is not None:
        parts = (FLOAT_BYTES * unit.padded(PROCESSES) for unit in (*work.units, work.outer_unit))
        divided = 3 * sum(gather_seconds(size, PROCESSES, link) for size in parts)  # weights twice, gradients once
        rows["a step of two processes, FSDP"] = (alone + divided + together, works[SHARDED].step_seconds)
    return rows
