"""The tables of benchmarks.cluster_model, in Markdown."""

from collections.abc import Sequence
from dataclasses import replace

from benchmarks import cluster_formulas as formulas
from benchmarks.cluster_check import Comparison
from benchmarks.cluster_formulas import (
    MATMUL_SHARES,
    Choice,
    Memory,
    Parallelism,
    StepTime,
    clips_that_fit,
    compute_seconds,
    host_seconds,
    memory_of,
    parameters_that_fit,
    step_time,
)
from benchmarks.cluster_hardware import Cluster, Gpu
from benchmarks.cluster_workload import Workload

GPUS = (1, 8, 64, 512)
PARALLELISMS: tuple[Parallelism, ...] = ("ddp", "fsdp")
NOT_MEASURED = (
    "Every figure about GPUs below is modelled, from data sheets and the assumptions above. None was measured: no part "
    "of this project has run on a GPU."
)


def workload_table(works: Sequence[Workload]) -> list[str]:
    """Return what was counted of each preset's network."""
    return [
        "| preset | parameters | GFLOP forward, a clip | activations, a clip | with checkpointing, kept + computed "
        "again | other traffic, a clip, both passes | kernels a step | parts of FSDP, the largest | sent by "
        f"FSDP with {GPUS[-1]} GPUs, padded | host, a batch |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_workload_row(work) for work in works),
        "",
    ]


def _workload_row(work: Workload) -> str:
    return (
        f"| {work.preset} | {work.parameters / 1e6:.2f} M | {work.forward_flops / 1e9:.1f} | "
        f"{_giga(work.activation_bytes)} | {_giga(work.checkpointed_bytes)} + {_giga(work.recomputed_bytes)} | "
        f"{_giga(work.other_traffic_bytes)} | {work.kernels:,} | "
        f"{len(work.units) + 1}, {work.largest_unit / 1e6:.2f} M | "
        f"{work.padded(GPUS[-1]) / work.parameters:.2f} times the parameters | "
        f"{_milli(work.batch_size * work.host_seconds)} |"
    )


def memory_table(work: Workload, gpu: Gpu) -> list[str]:
    """Return where the memory of one GPU goes, and how many clips would fit."""
    return [
        f"| {work.preset}, {work.batch_size} clips a GPU of {gpu.memory_bytes / 1e9:.0f} GB | weights, gradients, "
        "moments, average | activations | checkpointed | put together | in all | checkpointed | clips that fit | "
        "checkpointed |",
        "|---|---|---|---|---|---|---|---|---|",
        _memory_row(work, "1 GPU, or DDP on any number", Choice("ddp", 1, work.batch_size), gpu),
        *(
            _memory_row(work, _name("fsdp", gpus), Choice("fsdp", gpus, work.batch_size), gpu)
            for gpus in GPUS
            if gpus > 1
        ),
        "",
    ]


def _memory_row(work: Workload, name: str, choice: Choice, gpu: Gpu) -> str:
    choices = [replace(choice, checkpoints_activations=checkpoints) for checkpoints in (False, True)]
    plain, checkpointed = (memory_of(work, choice) for choice in choices)
    lasting = plain.weights + plain.gradients + plain.moments + plain.average
    fit = [f"{clips_that_fit(work, choice, gpu)}" for choice in choices]
    return (
        f"| {name} | {_giga(lasting)} | {_giga(plain.activations)} | "
        f"{_giga(checkpointed.activations)} | {_giga(plain.gathered)} | {_fitting(plain, gpu)} | "
        f"{_fitting(checkpointed, gpu)} | {' | '.join(fit)} |"
    )


def _fitting(memory: Memory, gpu: Gpu) -> str:
    return _giga(memory.on_gpu) + (", **too much**" if memory.on_gpu > gpu.memory_bytes else "")


def time_table(work: Workload, cluster: Cluster) -> list[str]:
    """Return step times; with activation checkpointing where the preset's batch does not fit otherwise."""
    plain = Choice("ddp", 1, work.batch_size)
    checkpoints = memory_of(work, plain).on_gpu > cluster.gpu.memory_bytes
    note = ", activations checkpointed" if checkpoints else ""
    return [
        f"| {work.preset} on {cluster.label}{note} | step | of it compute | host, meanwhile | sent | not hidden | "
        f"clips a second (at {100 * MATMUL_SHARES[0]:.0f} to {100 * MATMUL_SHARES[1]:.0f} %) | FLOP/s, % of peak | "
        "efficiency |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            _time_row(work, cluster, Choice(parallelism, gpus, work.batch_size, checkpoints))
            for gpus in GPUS
            for parallelism in PARALLELISMS
            if gpus > 1 or parallelism == "ddp"
        ),
        "",
    ]


def _time_row(work: Workload, cluster: Cluster, choice: Choice) -> str:
    time = step_time(work, choice, cluster)
    slow, fast = (rate(choice, step_time(work, choice, cluster, share)) for share in MATMUL_SHARES)
    flops = formulas.FORWARD_AND_BACKWARD * work.forward_flops * choice.clips / time.total
    clips = f"{rate(choice, time):,.0f} ({slow:,.0f} to {fast:,.0f})"
    host = _milli(time.host) + (", **slower**" if time.host > time.device else "")
    return (
        f"| {_name(choice.parallelism, choice.gpus)} | {_milli(time.total)} | {_milli(time.compute)} | {host} | "
        f"{_milli(time.sent)} | {_milli(time.exposed)} ({100 * time.exposed / time.total:.1f} %) | {clips} | "
        f"{100 * flops / cluster.gpu.flops_per_second:.1f} | {100 * efficiency(work, choice, cluster):.1f} % |"
    )


def rate(choice: Choice, time: StepTime) -> float:
    """Return the clips a second of all GPUs."""
    return choice.gpus * choice.clips / time.total


def efficiency(work: Workload, choice: Choice, cluster: Cluster) -> float:
    """Return the share of N times the clips a second that one GPU does by itself."""
    alone = Choice("ddp", 1, choice.clips, choice.checkpoints_activations)
    one = rate(alone, step_time(work, alone, cluster))
    return rate(choice, step_time(work, choice, cluster)) / (choice.gpus * one)


def limits_table(works: Sequence[Workload], clusters: Sequence[Cluster]) -> list[str]:
    """Return up to which size of network DDP fits, and what limits the speed of a GPU."""
    rows = []
    for gpu in dict.fromkeys(cluster.gpu for cluster in clusters):
        for work in works:
            most = parameters_that_fit(work, 1, gpu) / 1e6
            rows.append(f"| {gpu.name} | {work.preset} | {most:,.0f} M | {_limit(work, gpu)} |")
    return [
        "| GPU | preset | parameters up to which DDP fits, beside one clip of it, checkpointed | what takes the time |",
        "|---|---|---|---|",
        *rows,
        "",
    ]


def _limit(work: Workload, gpu: Gpu) -> str:
    choice = Choice("ddp", 1, work.batch_size)
    compute = compute_seconds(work, choice, gpu)
    if compute <= host_seconds(work, choice):
        return "the host: preparing batches and launching kernels"
    matmul = formulas.FORWARD_AND_BACKWARD * work.forward_flops * choice.clips
    share = matmul / (gpu.flops_per_second * formulas.MATMUL_SHARE) / compute
    return f"{100 * share:.0f} % matrix products and convolutions, the rest memory bandwidth"


def check_table(comparisons: Sequence[Comparison]) -> list[str]:
    """Return model and measurement side by side."""
    return [
        "| checked on this machine | modelled | measured | deviation |",
        "|---|---|---|---|",
        *(
            f"| {each.quantity} | {each.modelled:.2f} {each.unit} | {each.measured:.2f} {each.unit} | "
            f"{100 * each.deviation:+.0f} % |"
            for each in comparisons
        ),
        "",
    ]


def assumptions() -> list[str]:
    """Name every constant that is assumed, with its value."""
    names = (
        ("MATMUL_SHARE", "of the peak, matrix products and convolutions"),
        ("MATMUL_SHARES", "the range of it"),
        ("MEMORY_SHARE", "of the memory's bandwidth, everything else"),
        ("LAUNCH_SECONDS", "for each kernel, at the least"),
        ("LINK_SHARE", "of a link's peak, collectives"),
        ("LINK_LATENCY", "seconds from a GPU to the next of a ring"),
        ("CONTEXT_BYTES", "CUDA context, NCCL's buffers, workspaces"),
        ("ALLOCATOR_SHARE", "what the allocator holds, by what is in use"),
        ("SHARED_UNITS", "parts of FSDP that are together at once"),
    )
    values = vars(formulas)
    return [
        "Assumed: " + "; ".join(f"{name} = {values[name]} ({meaning})" for name, meaning in names) + ".",
        "",
        "The host's time for a batch (to float32, tokens, noise, pinning) was measured on one thread of this machine; "
        "a GPU's host may be faster or slower. It runs ahead of the device, so that the slower of the two makes the "
        "step. What it does for the optimizer, the dashboard and the console is left out.",
    ]


def _name(parallelism: Parallelism, gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs, {parallelism.upper()}"


def _giga(size: float) -> str:
    return f"{size / 1e9:.2f} GB" if size < 10e9 else f"{size / 1e9:.1f} GB"


def _milli(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
