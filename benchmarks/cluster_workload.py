"""What a preset's network computes, keeps and moves: counted on tensors without contents, in bfloat16 autocast.

Nothing is computed, so that a network for a large GPU is counted in seconds. Two batch sizes tell what a clip takes
from what every step takes.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.processes_plan import NUMBERS_OF_THE_STEP
from common.settings import load_settings
from compute.environment import flop_counter
from config import PRESETS, Config
from logging_system.records import SampleStatistics
from models.build import build_model, build_tokenizer
from models.unet3d import TextToVideoModel

CPU = torch.device("cpu")
FLOAT_BYTES = 4
MATRIX_OPERATIONS = frozenset({"mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward"})
NO_KERNEL = frozenset({"device", "_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "new_empty"})


@dataclass(frozen=True)
class Unit:
    """A part of the network that FSDP puts together in one message: rows, and numbers a row, of each parameter."""

    shapes: tuple[tuple[int, int], ...]

    @property
    def numbers(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    def padded(self, processes: int) -> int:
        """Return how many numbers so many processes send each other for it.

        Each has as many rows of a parameter as the first, which has the most; where there are none left, it is padding.
        """
        return sum(-(-rows // processes) * processes * columns for rows, columns in self.shapes)


@dataclass(frozen=True)
class Workload:
    """What one training step takes, of a clip where nothing else is said.

    Attributes:
        forward_flops: of the forward pass.
        activation_bytes: kept for the backward pass.
        cast_weight_bytes: kept for it once for all clips: weights in bfloat16, and whatever else does not grow.
        checkpointed_bytes: kept with activation checkpointing: what goes into each stage, and what is kept outside.
        recomputed_bytes: of the largest stage, which exist again while its backward pass runs.
        other_traffic_bytes: that operations other than matrix products and convolutions read and write, both passes.
        fixed_traffic_bytes: the same, of a step, whatever the number of clips.
        kernels: of a step, both passes.
        units: each part that FSDP puts together for itself.
        outer_unit: the rest.
        statistics: numbers that the processes tell each other.
        host_seconds: that the host works for it beside launching kernels (`cluster_host`); 0 where not measured.
    """

    preset: str
    batch_size: int  # of the preset
    parameters: int
    forward_flops: float
    activation_bytes: float
    cast_weight_bytes: float
    checkpointed_bytes: float
    recomputed_bytes: float
    other_traffic_bytes: float
    fixed_traffic_bytes: float
    kernels: int
    units: tuple[Unit, ...]
    outer_unit: Unit
    statistics: int
    host_seconds: float = 0.0

    @property
    def largest_unit(self) -> int:
        """Numbers in it."""
        return max(unit.numbers for unit in self.units)

    def padded(self, processes: int) -> int:
        """Return the numbers of all parts together, with their padding."""
        return sum(unit.padded(processes) for unit in (*self.units, self.outer_unit))


@dataclass(frozen=True)
class _Count:
    forward_flops: float
    saved_bytes: float
    checkpointed_bytes: float
    recomputed_bytes: float
    traffic_bytes: float
    kernels: int


def workload_of(preset: str, options: Sequence[str] = (), *, has_contents: bool = False) -> Workload:
    """Count a preset's network.

    Args:
        preset: of config.py.
        options: of main.py, further ones.
        has_contents: compute with real tensors, to check the count; for a small network.
    """
    config = load_settings(Config, PRESETS, [f"--preset={preset}", *options], program="main.py").config
    tokenizer = build_tokenizer(config, None)
    model = build_model(config, tokenizer, CPU).train()
    one, two = (_count(model, config, clips, has_contents=has_contents) for clips in (1, 2))
    units, outer_unit = _units(model)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Workload(
        preset=preset,
        batch_size=config.BATCH_SIZE,
        parameters=parameters,
        forward_flops=two.forward_flops - one.forward_flops,
        activation_bytes=two.saved_bytes - one.saved_bytes,
        cast_weight_bytes=2 * one.saved_bytes - two.saved_bytes,
        checkpointed_bytes=two.checkpointed_bytes - one.checkpointed_bytes,
        recomputed_bytes=two.recomputed_bytes - one.recomputed_bytes,
        other_traffic_bytes=two.traffic_bytes - one.traffic_bytes,
        fixed_traffic_bytes=max(0.0, 2 * one.traffic_bytes - two.traffic_bytes),
        kernels=two.kernels,
        units=units,
        outer_unit=outer_unit,
        statistics=len(fields(SampleStatistics)) + NUMBERS_OF_THE_STEP,
    )


def _units(model: nn.Module) -> tuple[tuple[Unit, ...], Unit]:
    """Return the parts that distributed.models puts together for themselves, and the rest."""
    listed = [child for module in model.modules() if isinstance(module, nn.ModuleList) for child in module]
    kinds = tuple({type(child) for child in listed})
    units = [module for module in model.modules() if isinstance(module, kinds)]
    inside = {parameter for unit in units for parameter in unit.parameters()}
    rest = [parameter for parameter in model.parameters() if parameter not in inside]
    return tuple(_unit(list(unit.parameters())) for unit in units), _unit(rest)


def _unit(parameters: Sequence[nn.Parameter]) -> Unit:
    return Unit(tuple((each.shape[0], each.numel() // each.shape[0]) for each in parameters))


def _count(model: TextToVideoModel, config: Config, clips: int, *, has_contents: bool) -> _Count:
    kept = _Kept(model)
    traffic = _Traffic()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with nullcontext() if has_contents else fake:
        tensors = dict[str, Tensor](model.named_parameters())
        if not has_contents:
            tensors = {name: fake.from_tensor(each) for name, each in tensors.items()}
        kept.pass_over(tensors.values())
        inputs = (
            torch.empty(clips, 3, config.NUM_FRAMES, config.IMAGE_SIZE, config.IMAGE_SIZE),
            torch.zeros(clips, dtype=torch.int64),
            torch.ones(clips, config.MAX_CAPTION_LENGTH, dtype=torch.int64),
            torch.zeros(clips, dtype=torch.bool),
        )
        with flop_counter() as counter, traffic:  # the counter takes operations apart; traffic sees them first
            with torch.autocast("cpu", dtype=torch.bfloat16), kept:
                prediction = torch.func.functional_call(model, tensors, inputs)
            forward_flops = counter.get_total_flops()
            torch.autograd.backward(prediction.float().square().mean())
    return _Count(
        forward_flops=forward_flops,
        saved_bytes=kept.saved_bytes,
        checkpointed_bytes=kept.checkpointed_bytes,
        recomputed_bytes=kept.recomputed_bytes,
        traffic_bytes=traffic.bytes,
        kernels=traffic.kernels,
    )


class _Traffic(TorchDispatchMode):
    """Counts kernels, and the bytes that all but the matrix operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.kernels = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
    ) -> object:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if not func.is_view and name not in NO_KERNEL:
            self.kernels += 1
            if name not in MATRIX_OPERATIONS:
                leaves = tree_leaves((args, kwargs, result))
                self.bytes += sum(each.nbytes for each in leaves if isinstance(each, Tensor))
        return result


class _Kept:
    """Notes what autograd keeps, each storage once, by the stage that keeps it; and what goes into each stage."""

    def __init__(self, model: TextToVideoModel) -> None:
        self._passed: set[int] = set()
        self._bytes: dict[int, int] = {}
        self._outside: set[int] = set()
        self._into: set[int] = set()
        self._of_stage: list[set[int]] = []
        self._inside = False
        self._alive: list[Tensor] = []  # an address could be used twice otherwise
        self._stages = [module for module in model.modules() if type(module) is type(model.unet.middle)]

    def pass_over(self, tensors: Iterable[Tensor]) -> None:
        """Leave out the weights themselves."""
        self._passed = {self._address(each) for each in tensors}

    def __enter__(self) -> None:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor)
        self._hooks.__enter__()
        self._handles = [
            handle
            for stage in self._stages
            for handle in (stage.register_forward_pre_hook(self._begin), stage.register_forward_hook(self._end))
        ]

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
        for handle in self._handles:
            handle.remove()

    @property
    def saved_bytes(self) -> int:
        return self._sum(self._outside.union(*self._of_stage))

    @property
    def checkpointed_bytes(self) -> int:
        return self._sum(self._outside | self._into)

    @property
    def recomputed_bytes(self) -> int:
        return max(self._sum(stage - self._outside - self._into) for stage in self._of_stage)

    def _sum(self, addresses: set[int]) -> int:
        return sum(self._bytes[address] for address in addresses)

    def _begin(self, stage: nn.Module, inputs: tuple[object, ...]) -> None:
        self._inside = True
        self._of_stage.append(set())
        self._into |= {self._note(each) for each in inputs if isinstance(each, Tensor)} - self._passed

    def _end(self, stage: nn.Module, inputs: object, output: object) -> None:
        self._inside = False

    def _save(self, tensor: Tensor) -> Tensor:
        address = self._note(tensor)
        if address not in self._passed:
            (self._of_stage[-1] if self._inside else self._outside).add(address)
        return tensor

    def _note(self, tensor: Tensor) -> int:
        address = self._address(tensor)
        self._bytes[address] = tensor.untyped_storage().nbytes()
        self._alive.append(tensor.detach())
        return address

    @staticmethod
    def _address(tensor: Tensor) -> int:
        return int(tensor.untyped_storage()._cdata)
