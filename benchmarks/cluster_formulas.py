"""Memory and time of a training step on a cluster, modelled. Every constant that is assumed is named here.

Memory: weights, gradients, AdamW's two moments and the averaged weights are float32 (compute.device), 20 bytes a
parameter; FSDP divides them by the number of GPUs (Rajbhandari et al. 2020, ZeRO, arXiv 1910.02054, section 3). Time:
matrix products and convolutions at a share of the peak, everything else at the memory's bandwidth, all of it not faster
than the host prepares batches and launches kernels. Communication: a ring (Patarasuk and Yuan 2009, Bandwidth optimal
all-reduce algorithms), hidden behind the pass that it belongs to, but for the first or last message.
"""

import math
from dataclasses import dataclass
from typing import Literal

from benchmarks.cluster_hardware import Cluster, Gpu
from benchmarks.cluster_workload import FLOAT_BYTES, Workload
from benchmarks.processes_plan import gradient_buckets

Parallelism = Literal["ddp", "fsdp"]

LASTING_COPIES = 5  # weights, gradients, two moments, average
UPDATE_PASSES = 18  # over as many numbers: norm 1, clipping 2, AdamW 7, average 8 (three separate operations)
FORWARD_AND_BACKWARD = 3  # times a forward pass; one more with activation checkpointing
SHARED_UNITS = 2  # that FSDP has put together at once: one computes, the next one arrives

MATMUL_SHARE = 0.35  # assumed: of the peak, by matrix products and convolutions of a U-Net
MATMUL_SHARES = (0.2, 0.5)  # assumed: the range of it
MEMORY_SHARE = 0.8  # assumed: of the memory's bandwidth
LAUNCH_SECONDS = 6e-6  # assumed: of Python and the driver for a kernel, eager
LINK_SHARE = 0.65  # assumed: of a link's peak that collectives reach
LINK_LATENCY = 5e-6  # assumed: seconds from one GPU to the next
CONTEXT_BYTES = 1.5e9  # assumed: CUDA context, kernels, NCCL's buffers, cuDNN's workspace
ALLOCATOR_SHARE = 1.1  # assumed: what PyTorch's allocator holds, by what is in use


@dataclass(frozen=True)
class Choice:
    """How to train."""

    parallelism: Parallelism
    gpus: int
    clips: int  # a GPU
    checkpoints_activations: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at the peak of a step."""

    weights: float
    gradients: float
    moments: float
    average: float
    activations: float  # with weights that were cast to bfloat16
    gathered: float  # what FSDP puts together

    @property
    def tensors(self) -> float:
        """All of it, without what context and allocator add."""
        return self.weights + self.gradients + self.moments + self.average + self.activations + self.gathered

    @property
    def on_gpu(self) -> float:
        """All of it, with what context and allocator add."""
        return CONTEXT_BYTES + ALLOCATOR_SHARE * self.tensors


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step."""

    compute: float
    update: float
    sent: float  # all communication, hidden or not
    exposed: float  # what is not hidden
    host: float  # that one thread works meanwhile: it runs ahead of the device

    @property
    def total(self) -> float:
        return max(self.host, self.device)

    @property
    def device(self) -> float:
        """All that the device does and waits for."""
        return self.compute + self.update + self.exposed


@dataclass(frozen=True)
class Link:
    """A way between two neighbours of a ring."""

    bytes_per_second: float
    latency: float


def memory_of(work: Workload, choice: Choice) -> Memory:
    """Return what one GPU holds."""
    own = FLOAT_BYTES * _own_numbers(work, choice)
    if choice.checkpoints_activations:
        kept = choice.clips * (work.checkpointed_bytes + work.recomputed_bytes)
    else:
        kept = choice.clips * work.activation_bytes
    passing = kept + work.cast_weight_bytes
    gathered = 0.0
    if choice.parallelism == "fsdp":
        # Weights and, on the way back, gradients of the units at work; the rest belongs to the outermost unit.
        largest = max(unit.padded(choice.gpus) for unit in work.units)
        gathered = FLOAT_BYTES * 2 * (SHARED_UNITS * largest + work.outer_unit.padded(choice.gpus))
    # The averaged weights move by a copy of all differences, when the activations are gone.
    return Memory(own, own, 2 * own, own, max(passing, own), gathered)


def _own_numbers(work: Workload, choice: Choice) -> float:
    """Return how many of the parameters a GPU has, with padding."""
    return work.padded(choice.gpus) / choice.gpus if choice.parallelism == "fsdp" else work.parameters


def compute_seconds(work: Workload, choice: Choice, gpu: Gpu, matmul_share: float = MATMUL_SHARE) -> float:
    """Return the seconds of the forward and backward pass."""
    matmul = FORWARD_AND_BACKWARD * work.forward_flops * choice.clips / (gpu.flops_per_second * matmul_share)
    traffic = work.other_traffic_bytes * choice.clips + work.fixed_traffic_bytes
    others = traffic / (gpu.memory_bytes_per_second * MEMORY_SHARE)
    return max(_passes(choice) * (matmul + others), launch_seconds(work, choice))


def launch_seconds(work: Workload, choice: Choice) -> float:
    """Return the seconds that the host needs to launch all kernels of a step."""
    return _passes(choice) * work.kernels * LAUNCH_SECONDS


def host_seconds(work: Workload, choice: Choice) -> float:
    """Return the seconds that one thread of the host works for a step, one thing after the other."""
    return choice.clips * work.host_seconds + launch_seconds(work, choice)


def _passes(choice: Choice) -> float:
    return (FORWARD_AND_BACKWARD + choice.checkpoints_activations) / FORWARD_AND_BACKWARD


def update_seconds(work: Workload, choice: Choice, gpu: Gpu) -> float:
    """Return the seconds of clipping, AdamW and averaging, which the memory's bandwidth limits."""
    return UPDATE_PASSES * FLOAT_BYTES * _own_numbers(work, choice) / (gpu.memory_bytes_per_second * MEMORY_SHARE)


def all_reduce_seconds(size: float, gpus: int, link: Link) -> float:
    """Return the time until all have the sum: twice round the ring, or up and down two trees where that is sooner.

    NCCL chooses so too (trees: Sanders, Speck, Träff 2009, Two-tree algorithms for full bandwidth broadcast).
    """
    if gpus == 1:
        return 0.0
    ring = 2 * (gpus - 1) * link.latency + 2 * (gpus - 1) / gpus * size / link.bytes_per_second
    trees = 2 * math.ceil(math.log2(gpus)) * link.latency + 2 * size / link.bytes_per_second
    return min(ring, trees)


def gather_seconds(size: float, gpus: int, link: Link) -> float:
    """Return the time of an all-gather of `size` bytes in all, or of the reduce-scatter of as many: once round."""
    return (gpus - 1) * link.latency + (gpus - 1) / gpus * size / link.bytes_per_second


def step_time(work: Workload, choice: Choice, cluster: Cluster, matmul_share: float = MATMUL_SHARE) -> StepTime:
    """Return what a step takes."""
    link = Link(cluster.network.ring_bytes_per_second(choice.gpus) * LINK_SHARE, LINK_LATENCY)
    compute = compute_seconds(work, choice, cluster.gpu, matmul_share)
    forward = compute / (FORWARD_AND_BACKWARD + choice.checkpoints_activations)
    sending = _fsdp if choice.parallelism == "fsdp" else _ddp
    sent, exposed = sending(work, choice.gpus, link, forward, compute - forward)
    together = gather_seconds(FLOAT_BYTES * work.statistics * choice.clips * choice.gpus, choice.gpus, link)
    update = update_seconds(work, choice, cluster.gpu)
    return StepTime(compute, update, sent + together, exposed + together, host_seconds(work, choice))


def _ddp(work: Workload, gpus: int, link: Link, forward: float, backward: float) -> tuple[float, float]:
    """Return seconds sent and exposed. The last bucket is full only when the backward pass has ended."""
    buckets = [all_reduce_seconds(size, gpus, link) for size in gradient_buckets(FLOAT_BYTES * work.parameters)]
    return sum(buckets), max(buckets[-1], sum(buckets) - backward)


def _fsdp(work: Workload, gpus: int, link: Link, forward: float, backward: float) -> tuple[float, float]:
    """Return seconds sent and exposed: weights on the way there and back, and gradients."""
    if gpus == 1:
        return 0.0, 0.0
    units = [gather_seconds(FLOAT_BYTES * unit.padded(gpus), gpus, link) for unit in work.units]
    outer = gather_seconds(FLOAT_BYTES * work.outer_unit.padded(gpus), gpus, link)
    there = outer + sum(units)
    back = 2 * there
    norm = all_reduce_seconds(FLOAT_BYTES, gpus, link)
    return there + back + norm, max(outer, there - forward) + max(outer, back - backward) + norm


def clips_that_fit(work: Workload, choice: Choice, gpu: Gpu) -> int:
    """Return the largest batch of a GPU; 0 where not even one clip fits."""
    clips, step = 0, 1 << 16
    while step:
        tried = Choice(choice.parallelism, choice.gpus, clips + step, choice.checkpoints_activations)
        if memory_of(work, tried).on_gpu <= gpu.memory_bytes:
            clips += step
        step //= 2
    return clips


def parameters_that_fit(work: Workload, clips: int, gpu: Gpu) -> float:
    """Return how many parameters DDP has room for beside the activations of `clips` clips, checkpointed."""
    kept = clips * (work.checkpointed_bytes + work.recomputed_bytes)
    of_tensors = (gpu.memory_bytes - CONTEXT_BYTES) / ALLOCATOR_SHARE - kept
    bytes_each = LASTING_COPIES * FLOAT_BYTES + work.cast_weight_bytes / work.parameters
    return max(0.0, of_tensors / bytes_each)
