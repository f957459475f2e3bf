"""What a run will take, before it starts: measured on one clip, on a GPU on one batch too, and scaled to the step.

These clips have MAX_FRAMES frames, and steps are taken to cost as much as frames of such clips.

Training does not notice: no gradient, weight, optimizer state or random number is touched.
"""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from common.errors import UserError
from compute.device import ComputeDevice
from compute.environment import first_clips
from compute.memory import SMALLER_CLIP, device_name, first_line, is_out_of_memory, memory_in_use
from data.records import FixedClips
from distributed.models import gathered_bytes, is_sharded, own_part

FORWARD_AND_BACKWARD = 3  # times the arithmetic of a forward pass: the backward pass makes two products for each
BUDGET_SECONDS = 1.0  # after which no third pass begins
MOST_PASSES = 4

HELD_BY_CPU_ALLOCATOR = 1.5  # times what is in use, because holes stay between buffers; measured with 1 to 16 clips


@dataclass(frozen=True)
class ClipCost:
    """What one clip takes on its way forward and back."""

    seconds: float
    activation_bytes: int  # what the forward pass leaves for the backward pass
    cast_weight_bytes: int  # weights in a lower precision, which are left once for all clips of a batch


@dataclass(frozen=True)
class TrainingEstimate:
    """What training alone takes; validation, samples and checkpoints come on top."""

    parameters: int
    step_flops: int  # on average over the lengths of the clips, as are the seconds
    step_seconds: float
    memory_bytes: int  # of this process at its peak, on the device
    memory_limit: int  # that it can have
    measuring_seconds: float
    processes_here: int = 1  # of this run, on this machine
    clips_measured: int = 1  # at once
    batch_fits: bool = True  # False: a whole batch was tried, and there was too little memory for it


def estimate_training(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    fixed: FixedClips,
    compute: ComputeDevice,
    *,
    forward_flops: int,
    frames: int,
    batch_size: int,
    accumulation_steps: int,
    most_at_once: float,
    clips_a_step: float,
    processes_here: int = 1,
) -> TrainingEstimate:
    """Measure one clip, or on a GPU a batch, and scale it. Call when model and averaged weights are in memory.

    Call on all processes where the model is divided over several. What they send each other is then part of the
    seconds of a clip, though it is sent once for all clips of a batch.

    A GPU takes hardly longer for a batch than for a clip as long as it waits for the host, so that seconds are scaled
    from a whole batch there. Where that does not fit, or the model is divided over processes (of which one alone might
    run out of memory), they are those of a clip times the number of clips, which on a GPU is an upper bound; they are
    one of a compiled model too, which is measured as it is. The optimizer's own time, which does not depend on the
    clips, is left out. The memory of a GPU is a lower bound: what its kernels and its allocator hold beyond the tensors
    is not counted.

    Args:
        fixed: at least one clip, the first of which is used.
        forward_flops: of one forward pass over one clip of `frames`.
        frames: of the clips that are measured: the most that a clip has.
        batch_size: clips of so many frames at once.
        accumulation_steps: batches of a step.
        most_at_once: the same as `batch_size`, of the batch with the most frames.
        clips_a_step: frames of a step of this process, on average, divided by `frames`.
        processes_here: that share the machine.

    Raises:
        UserError: not even one clip fits into the memory.
    """
    start = time.perf_counter()
    memory = memory_in_use(compute.device, processes_here)
    clip = measure_clip(model, fixed, frames, compute)
    weights = sum(own_part(parameter).nbytes for parameter in model.parameters())
    lasting = 1 if optimizer.state else 3  # gradients; two moments, which a resumed run has already
    held = HELD_BY_CPU_ALLOCATOR if compute.device.type == "cpu" else 1.0
    gathered = gathered_bytes(model, adds_up_gradients=accumulation_steps > 1) if is_sharded(model) else 0
    passing = gathered + clip.cast_weight_bytes + held * most_at_once * clip.activation_bytes
    tries_batch = compute.device.type != "cpu" and batch_size > 1 and not is_sharded(model)
    seconds_of_batch = measure_batch(model, fixed, batch_size, frames, compute) if tries_batch else None
    return TrainingEstimate(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        step_flops=round(FORWARD_AND_BACKWARD * forward_flops * clips_a_step),
        step_seconds=(clip.seconds if seconds_of_batch is None else seconds_of_batch / batch_size) * clips_a_step,
        # Once the activations are gone, moving the averaged weights takes a copy of all weights.
        memory_bytes=memory.here + lasting * weights + round(max(passing, weights)),
        memory_limit=memory.limit,
        measuring_seconds=time.perf_counter() - start,
        processes_here=processes_here,
        clips_measured=1 if seconds_of_batch is None else batch_size,
        batch_fits=not tries_batch or seconds_of_batch is not None,
    )


def measure_clip(model: nn.Module, fixed: FixedClips, frames: int, compute: ComputeDevice) -> ClipCost:
    """Pass the first clip of a batch forward and back, once to count and warm up, then a few times to measure.

    Processes that divide a model make the same number of passes, whatever their clocks say.

    Raises:
        UserError: the clip does not fit into the memory.
    """
    start = time.perf_counter()
    inputs = first_clips(fixed, 1, frames, compute.device)
    saved = _SavedTensors(model)
    try:
        with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
            _time_pass(model, inputs, compute)
        seconds = _time_passes(model, inputs, compute, start, 1 if is_sharded(model) else MOST_PASSES - 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"one clip forward and back does not fit into the memory of this {device_name(compute.device)}; lower "
            f"{SMALLER_CLIP} ({first_line(error)})"
        ) from error
    return ClipCost(
        seconds=seconds,
        activation_bytes=saved.activation_bytes,
        cast_weight_bytes=saved.cast_weight_bytes,
    )


def measure_batch(model: nn.Module, fixed: FixedClips, clips: int, frames: int, compute: ComputeDevice) -> float | None:
    """Return the seconds of a batch forward and back, after one to warm up; None if it does not fit into the memory."""
    start = time.perf_counter()
    try:
        inputs = first_clips(fixed, clips, frames, compute.device)
        _time_pass(model, inputs, compute)
        return _time_passes(model, inputs, compute, start, MOST_PASSES - 1)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return None


def _time_passes(
    model: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor], compute: ComputeDevice, start: float, most: int
) -> float:
    """Return the median of up to `most` passes, of which none begins BUDGET_SECONDS after `start` but the first."""
    seconds = [_time_pass(model, inputs, compute)]
    while time.perf_counter() - start < BUDGET_SECONDS and len(seconds) < most:
        seconds.append(_time_pass(model, inputs, compute))
    return statistics.median(seconds)


class _SavedTensors:
    """Adds up the bytes that autograd keeps for the backward pass, each storage once, the parameters themselves not."""

    def __init__(self, model: nn.Module) -> None:
        self._is_sharded = is_sharded(model)
        self._parameters_of = [module._parameters for module in model.modules()]
        self._seen = self._weights_here()
        self._parameter_shapes = {_outline(parameter) for parameter in model.parameters()}
        self.activation_bytes = 0
        self.cast_weight_bytes = 0

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # No address is used twice: what is saved stays alive until the backward pass begins. Only gathered weights of a
        # divided model do not, so theirs are looked up each time.
        address = storage.data_ptr()
        if address not in self._seen and not (self._is_sharded and address in self._weights_here()):
            self._seen.add(address)
            if tensor.dtype != torch.float32 and _outline(tensor) in self._parameter_shapes:
                self.cast_weight_bytes += storage.nbytes()
            else:
                self.activation_bytes += storage.nbytes()
        return tensor

    def _weights_here(self) -> set[int]:
        """Return the addresses of the parameters; of a divided model, of those that are gathered now."""
        own = (parameter for of_module in self._parameters_of for parameter in of_module.values())
        return {
            parameter.untyped_storage().data_ptr()
            for parameter in own
            if parameter is not None and not isinstance(parameter, DTensor)
        }


def _outline(tensor: Tensor) -> tuple[int, ...]:
    return tuple(sorted(tensor.shape))  # a matrix may be saved transposed


def _time_pass(model: nn.Module, inputs: tuple[Tensor, Tensor, Tensor, Tensor], compute: ComputeDevice) -> float:
    compute.wait()
    start = time.perf_counter()
    with compute.autocast():
        prediction = model(*inputs)
    result = prediction.float().square().mean()
    if is_sharded(model):  # its parameters themselves are not what the result was computed from
        torch.autograd.backward(result)
        model.zero_grad(set_to_none=True)
    else:  # not `backward`, which would leave gradients in the parameters
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        torch.autograd.grad(result, trained, allow_unused=True)
    compute.wait()
    return time.perf_counter() - start
