"""What a training pass makes a GPU do, counted without one: python -m benchmarks.operators [main.py options]

The network is built on tensors without values that say they are on a CUDA device (FakeTensorMode), and passes one batch
forward, under autocast in bfloat16, and back from its mean square. Noise, loss, optimizer and average are left out.

- Operators: what PyTorch dispatches, except views. An operator may start several kernels.
- Traffic: the bytes of all tensors that an operator is given and of all that it returns. Group normalisation reads its
  inputs twice, first for the statistics. Copies that CUDA's operators make inside themselves, because they know one
  memory layout alone, count as operators.
- Matrix products are convolutions, matrix products and attention; everything else is traffic besides them.
- Activations: what autograd keeps for the backward pass, each storage once, the parameters themselves not.
"""

import contextlib
import ctypes
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from benchmarks import runner
from common.console import program
from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from models.build import build_model, build_tokenizer

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
ROWS = 25
_PRODUCTS = ("convolution", "mm", "attention")
_READS_TWICE = ("group_norm", "text2sign::norm")
_MOVES_NOTHING = ("_unsafe_view", "detach", "empty", "empty_like", "empty_strided", "new_empty")

aten = torch.ops.aten


@contextlib.contextmanager
def guarded_cuda() -> Iterator[None]:
    """Let a PyTorch for the CPU alone name CUDA devices.

    It has no device guard for CUDA, and then plain indexing fails ("PyTorch is not linked with support for cuda
    devices"), so it borrows the guard of the "meta" device, which does nothing. A PyTorch built for CUDA needs no help.

    Raises:
        UserError: not on Linux.
    """
    if torch.version.cuda is not None:
        yield
        return
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if not library.exists():
        raise UserError("a PyTorch without CUDA can only pretend to have it on Linux")
    cuda, meta, count = 1, 14, 15  # c10::DeviceType
    guards = (ctypes.c_void_p * count).in_dll(ctypes.CDLL(str(library)), "_ZN3c104impl26device_guard_impl_registryE")
    before = guards[cuda]
    guards[cuda] = guards[meta]
    try:
        yield
    finally:
        guards[cuda] = before


@dataclass(frozen=True)
class Count:
    """What one pass forward and back takes: by the names of operators, forward and backward together."""

    operators: Counter[str]
    bytes: Counter[str]
    activation_bytes: int

    @property
    def traffic(self) -> int:
        """Bytes besides matrix products."""
        return sum(size for name, size in self.bytes.items() if not is_product(name))


def is_product(name: str) -> bool:
    """Return whether an operator is a convolution, a matrix product or attention."""
    return any(part in name for part in _PRODUCTS)


class _Counter(TorchDispatchMode):
    """Counts operators and their bytes, with CUDA's memory layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::")
        if name.startswith("native_group_norm"):  # knows NCHW alone
            args = tuple(self._copied(each, torch.contiguous_format) for each in args)
        is_channels_last = name.startswith("convolution") and _is_channels_last(args[:3])
        if is_channels_last:
            args = tuple(self._copied(each, torch.channels_last) for each in args)
        result = func(*args, **(kwargs or {}))
        if is_channels_last:  # cuDNN's results are so too, which a PyTorch without CUDA does not know
            result = tree_map_only(Tensor, _as_channels_last, result)
        if not func.is_view and name not in _MOVES_NOTHING and not name.startswith("prim::"):
            given, returned = _bytes((args, kwargs)), _bytes(result)
            reads = 2 if any(part in name for part in _READS_TWICE) else 1
            self.operators[name] += 1
            self.bytes[name] += reads * given + returned
        return result

    def _copied(self, value: object, memory_format: torch.memory_format) -> object:
        """Return a tensor of images in a layout, after a copy that counts if it was not in it."""
        if not isinstance(value, Tensor) or value.ndim != 4 or value.is_contiguous(memory_format=memory_format):
            return value
        self.operators["copy of layout"] += 1
        self.bytes["copy of layout"] += 2 * value.nbytes
        return value.contiguous(memory_format=memory_format)


def _is_channels_last(values: Sequence[object]) -> bool:
    """Return whether cuDNN would convolve in channels last: one of the tensors is, and is not also contiguous."""
    images = (each for each in values if isinstance(each, Tensor) and each.ndim == 4)
    return any(each.is_contiguous(memory_format=torch.channels_last) and not each.is_contiguous() for each in images)


def _as_channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _bytes(values: object) -> int:
    tensors = {id(leaf): leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
    return sum(tensor.nbytes for tensor in tensors.values())


class _Attention(TorchFunctionMode):
    """Chooses CUDA's kernel for attention, as a PyTorch without CUDA cannot: flash, with a bias the efficient one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, key, value = (each.to(torch.bfloat16) for each in args)
        if kwargs["attn_mask"] is None:
            return aten._scaled_dot_product_flash_attention(query, key, value, scale=kwargs["scale"])[0]
        bias = kwargs["attn_mask"].to(torch.bfloat16).expand(*query.shape[:3], key.shape[2])
        kept = torch.is_grad_enabled()
        return aten._scaled_dot_product_efficient_attention(query, key, value, bias, kept, scale=kwargs["scale"])[0]


def count_pass(config: Config) -> Count:
    """Count a pass of one batch with the longest words of finger-spelling as captions.

    Raises:
        UserError: the constants do not fit together, or this machine cannot pretend to have a GPU.
    """
    with torch.device("meta"):
        model = build_model(config, build_tokenizer(config, LETTERS), torch.device("meta"))
    with guarded_cuda(), FakeTensorMode(), _silu_of_cuda():
        device = torch.device("cuda", 0)
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                like = torch.empty_strided(parameter.shape, parameter.stride(), device=device)
                module.register_parameter(name, nn.Parameter(like))
        kept = _Kept(model)
        counter = _Counter()
        with counter, _Attention(), torch.autograd.graph.saved_tensors_hooks(kept.add, lambda tensor: tensor):
            with _autocast():
                prediction = model(*_inputs(config, device))
            _backward(prediction.float().square().mean())
    return Count(counter.operators, counter.bytes, kept.bytes)


def _inputs(config: Config, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    clips = config.BATCH_SIZE
    return (
        torch.empty(clips, 3, config.MAX_FRAMES, *config.IMAGE_SIZE, device=device),
        torch.zeros(clips, dtype=torch.int64, device=device),
        torch.ones(clips, config.MAX_WORD_LETTERS, dtype=torch.int64, device=device),
        torch.zeros(clips, dtype=torch.bool, device=device),
    )


@contextlib.contextmanager
def _autocast() -> Iterator[None]:
    """Do what `torch.autocast("cuda")` does, which turns itself off where there is no CUDA."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


@contextlib.contextmanager
def _silu_of_cuda() -> Iterator[None]:
    """Let SiLU's backward pass be one operator, as on CUDA; a PyTorch without CUDA would make it of eight."""
    if torch.version.cuda is not None:
        yield
        return
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("silu_backward", lambda gradient, x: NotImplemented, "CUDA")  # never called: nothing is computed
        yield


class _Kept:
    """Adds up the storages that autograd keeps, the parameters' own left out."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._storages: dict[int, torch.UntypedStorage] = {}  # alive, so that no address comes twice

    def add(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._storages[storage._cdata] = storage
        return tensor

    @property
    def bytes(self) -> int:
        return sum(storage.nbytes() for storage in self._storages.values())


@torch.no_grad()
def _backward(result: Tensor) -> None:
    """Do what autograd's engine does, which does not run where the device of a tensor is missing."""
    root = result.grad_fn
    assert root is not None
    waiting_for = _uses(root)
    gradients: dict[Node, dict[int, Tensor]] = {root: {0: torch.ones_like(result)}}
    ready = [root]
    while ready:
        node = ready.pop()
        arrived = gradients.pop(node, {})
        results: Any = (None,) * len(node.next_functions)
        if arrived and not _is_leaf(node):
            function: Any = (
                node.apply if isinstance(node, BackwardCFunction) else node
            )  # of Python, or of PyTorch's own
            results = function(*map(arrived.get, range(len(node._input_metadata))))
            results = results if isinstance(results, tuple) else (results,)
        # A function of Python also answers for arguments that are no tensors, which come last.
        for (target, index), gradient in zip(node.next_functions, results, strict=False):
            if target is None:
                continue
            if gradient is not None:
                own = target._input_metadata[index]
                gradient = gradient.sum_to_size(own.shape).to(own.dtype)
                sums = gradients.setdefault(target, {})
                sums[index] = sums[index] + gradient if index in sums else gradient
            waiting_for[target] -= 1
            if not waiting_for[target]:
                ready.append(target)


def _uses(root: Node) -> Counter[Node]:
    """Return by how many others each node below the root is given gradients."""
    uses: Counter[Node] = Counter()
    seen, left = {root}, [root]
    while left:
        for target, _ in left.pop().next_functions:
            if target is not None:
                uses[target] += 1
                if target not in seen:
                    seen.add(target)
                    left.append(target)
    return uses


def _is_leaf(node: Node) -> bool:
    return node.name() == "torch::autograd::AccumulateGrad"


@program
def main(arguments: Sequence[str]) -> int:
    """Count and print; return the exit code."""
    options, training_options = runner.build_parser("operators", __doc__).parse_known_args(arguments)
    config = load_settings(Config, PRESETS, training_options, program="benchmarks.operators").config
    count = count_pass(config)
    operators = count.operators.total()
    report = [
        f"{operators:,} operators, {count.traffic / 1e9:.1f} GB besides matrix products, "
        f"{count.activation_bytes / 1e9:.2f} GB of activations",
        "",
        *runner.table(
            ("operator", "times", "GB", "product"),
            (
                (name, f"{count.operators[name]:,}", f"{size / 1e9:.2f}", "yes" if is_product(name) else "")
                for name, size in count.bytes.most_common(ROWS)
            ),
        ),
    ]
    figures = {
        "operators": operators,
        "traffic_bytes": count.traffic,
        "activation_bytes": count.activation_bytes,
        "times": count.operators,
        "bytes": count.bytes,
    }
    runner.publish(runner.machine_line(), report, figures, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
