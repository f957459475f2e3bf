"""One diagnostic pass of 09, 10 and 11 against one number at a time, on networks of many small tensors."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.spread import Spread, ratio_of, spread_of
from common.randomness import torch_generator
from logging_system.categories.c09_parameter_stats import ParameterStats
from logging_system.categories.c10_parameter_histograms import ParameterHistograms
from logging_system.categories.c11_gradient_stats import GradientStats
from logging_system.category import Category, Due
from logging_system.files.writer import Writer
from logging_system.records import (
    DiffusionTensors,
    GeneratedSamples,
    NoiseVisualisation,
    RunInformation,
    SampleStatistics,
    StepRecord,
)
from logging_system.statistics.histogram import Histogram

WIDTH = 24  # of the square layers
BINS = 64
UNMERGED = 10**6
DIAGNOSTICS = Due(scalars=False, diagnostics=True)
Pass = Callable[[int], None]


@dataclass(frozen=True)
class PassCost:
    """One way to make a diagnostic pass over one network."""

    seconds: Spread
    transfers: int  # times the host waits for the device


@dataclass(frozen=True)
class Comparison:
    """Ways to make the pass, at one number of parameter tensors."""

    tensors: int
    merged: PassCost  # as a run does it: at most PARAMETER_TRACKING_MAX_LAYERS layers
    unmerged: PassCost  # a layer a module
    naive: PassCost
    naive_to_merged: Spread  # ratio of seconds
    naive_to_unmerged: Spread


class HostTensor(Tensor):
    """What has been copied to the host: reading its numbers costs no further transfer."""


class SyntheticView:
    """The least that the three categories look at."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.ema_model = model
        self.total_steps = None
        self.run = RunInformation({}, {}, (), 0, None, None)

    def learning_rate_at(self, step: int) -> float | None:
        return None

    def scheduler_state(self) -> dict[str, float]:
        return {}

    def generate_samples(self) -> GeneratedSamples:
        raise NotImplementedError("the three categories make no samples")

    def visualise_noise(self) -> NoiseVisualisation:
        raise NotImplementedError("the three categories make no samples")


def compare(tensors: int, maximum_layers: int, alternations: int) -> Comparison:
    """Time the ways in turn, `alternations` times after one to warm up, and count their transfers.

    Args:
        tensors: parameter tensors of the network, an even number: a weight and a bias for each of its layers.
        maximum_layers: PARAMETER_TRACKING_MAX_LAYERS of the merged way.
        alternations: at least 1.
    """
    view = SyntheticView(_network(tensors))
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        ways: dict[str, Pass] = {
            "merged": _category_pass(view, maximum_layers, writer),
            "unmerged": _category_pass(view, UNMERGED, writer),
            "naive": lambda step: _naive_pass(view.model, step, writer),
        }
        transfers = {name: _count_transfers(way) for name, way in ways.items()}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for alternation in range(alternations):
            for name, way in ways.items():
                start = time.perf_counter()
                way(alternation + 1)
                seconds[name].append(time.perf_counter() - start)
                writer.flush()
        writer.close()
    costs = {name: PassCost(spread_of(seconds[name]), transfers[name]) for name in ways}
    return Comparison(
        tensors,
        **costs,
        naive_to_merged=ratio_of(seconds["naive"], seconds["merged"]),
        naive_to_unmerged=ratio_of(seconds["naive"], seconds["unmerged"]),
    )


def _network(tensors: int) -> nn.Module:
    """Return square layers in groups of ten, with gradients, from a private random stream."""
    layers = [nn.utils.skip_init(nn.Linear, WIDTH, WIDTH) for _ in range(tensors // 2)]
    model = nn.Sequential(*(nn.Sequential(*layers[start : start + 10]) for start in range(0, len(layers), 10)))
    generator = torch_generator(0, "diagnostic_pass_benchmark")
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return model


def _category_pass(view: SyntheticView, maximum_layers: int, writer: Writer) -> Pass:
    categories: tuple[Category, ...] = (
        ParameterStats(maximum_layers),
        ParameterHistograms(maximum_layers, BINS),
        GradientStats(maximum_layers, BINS),
    )
    for category in categories:
        category.on_start(view, writer)

    def run(step: int) -> None:
        record = _record(step)
        for category in categories:
            category.before_step(step, DIAGNOSTICS, view)
        for category in categories:
            category.on_step(record, DIAGNOSTICS, view, writer)

    return run


def _naive_pass(model: nn.Module, step: int, writer: Writer) -> None:
    """Ask for one number at a time: six statistics and a histogram of every weight and of every gradient."""
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        for kind, tensor in (("weight", parameter.detach()), ("gradient", parameter.grad)):
            numbers = {
                "Mean": tensor.mean().item(),
                "Std": tensor.std().item(),
                "Min": tensor.min().item(),
                "Max": tensor.max().item(),
                "Norm": tensor.norm().item(),
                "Non_Finite": (~torch.isfinite(tensor)).sum().item(),
            }
            for statistic, value in numbers.items():
                writer.scalar(f"naive/{kind}/{name}/{statistic}", value, step)
            counts = torch.histc(tensor, BINS).tolist()
            smallest, largest = numbers["Min"], numbers["Max"]
            limits = [smallest + (largest - smallest) * (number + 1) / BINS for number in range(BINS)]
            squares = numbers["Norm"] ** 2
            total = numbers["Mean"] * tensor.numel()
            histogram = Histogram(smallest, largest, tensor.numel(), total, squares, limits, counts)
            writer.histogram(f"naive/{kind}/{name}", histogram, step)


def _record(step: int) -> StepRecord:
    one = torch.ones(())
    return StepRecord(
        step=step,
        is_first=False,
        is_last=False,
        epoch=0,
        clips_in_step=1,
        frames_in_step=1,
        samples_seen=step,
        loss=one,
        gradient_norm=2 * one,
        gradient_norm_clipped=one,
        skipped=torch.zeros((), dtype=torch.bool),
        overflowed=torch.zeros((), dtype=torch.bool),
        learning_rates={"all": 1e-3},
        samples=SampleStatistics(*[one.reshape(1)] * len(dataclasses.fields(SampleStatistics))),
        tensors=DiffusionTensors(*[one.reshape(1)] * len(dataclasses.fields(DiffusionTensors))),
        data_seconds=0.0,
        step_seconds=1.0,
    )


def _count_transfers(way: Pass) -> int:
    with counted_transfers() as transfers:
        way(0)
    return len(transfers)


@contextmanager
def counted_transfers() -> Iterator[list[str]]:
    """Collect the names of the calls that would copy from a device to the host, and so wait for it.

    On a CPU nothing is copied, but the calls are the same ones. What such a call returned is on the host: reading it
    again is not counted.
    """
    transfers: list[str] = []

    def watch(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def watched(tensor: Tensor, *arguments: Any, **options: Any) -> Any:
            if isinstance(tensor, HostTensor):
                return original(tensor, *arguments, **options)
            transfers.append(name)
            result = original(tensor, *arguments, **options)
            return result.as_subclass(HostTensor) if isinstance(result, Tensor) else result

        return watched

    names = ("cpu", "item", "tolist", "numpy", "__bool__", "__int__", "__float__")
    patches = [patch.object(Tensor, name, watch(name, getattr(Tensor, name))) for name in names]
    with patches[0], patches[1], patches[2], patches[3], patches[4], patches[5], patches[6]:
        yield transfers
