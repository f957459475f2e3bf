"""What benchmarks.sampling measures with a trained network: seconds a clip, and errors against real clips."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.sampling_run import NO_GUIDANCE, Cell, SampledRun
from benchmarks.spread import Spread, ratio_of, spread_of
from diffusion.guidance import Guidance
from diffusion.schedule import evenly_spaced_timesteps
from measures.clips import motion_energy, ratio_to_real, sharpness
from measures.text_use import TIMESTEP_BINS

CLIPS_AT_ONCE = 2


@dataclass(frozen=True)
class Generation:
    """Clips from pure noise, with the run's guidance. Ratios to real clips: 1 is right, None where those are flat."""

    cell: Cell
    network_calls: int  # a clip; with guidance each is one with twice the clips, not two
    seconds: tuple[float, ...]  # a clip, by alternation
    seconds_spread: Spread
    ratio_to_default: Spread  # of seconds, to the run's own sampler and steps in the same alternation
    motion_energy_ratio: float | None
    sharpness_ratio: float | None


@dataclass(frozen=True)
class Denoising:
    """Real clips, noised and then cleaned by a sampler: mean squared errors of values in [-1, 1].

    Attributes:
        x0_mse: against the real clips, without guidance.
        x0_mse_guided: the same with the run's guidance.
        distance_to_reference: without guidance, to what Heun's method makes of the same noisy clips in the most steps.
            Deterministic samplers come closer to it with more steps.
    """

    cell: Cell
    x0_mse: float
    x0_mse_guided: float
    distance_to_reference: float


@dataclass(frozen=True)
class OneShot:
    """Error of the clean estimate that the network makes of noised real clips in one call."""

    timestep: int
    x0_mse: float


@dataclass(frozen=True)
class GuidanceCost:
    """Seconds a clip with the run's own sampler and steps."""

    without: Spread
    guided: Spread
    ratio: Spread  # pair by pair


def measure_generation(run: SampledRun, cells: Sequence[Cell], alternations: int) -> list[Generation]:
    """Sample from pure noise with every cell in turn, `alternations` times.

    Every alternation takes further captions and noises, the same ones for every cell.

    Args:
        cells: the run's own default among them.
    """
    seconds: dict[Cell, list[float]] = {cell: [] for cell in cells}
    made: dict[Cell, list[Tensor]] = {cell: [] for cell in cells}
    calls: dict[Cell, int] = {}
    guidance = run.settings.guidance
    run.generate(run.default, guidance, 0, CLIPS_AT_ONCE)  # a first call prepares memory and kernels
    for alternation in range(alternations):
        for cell in cells:
            with counted_calls(run.model) as counted:
                clips, elapsed = _timed(run, cell, guidance, alternation)
            calls[cell] = len(counted)
            seconds[cell].append(elapsed)
            made[cell].append(clips)
    real = run.clips.video_BCTHW[run.real_indices(0, alternations * CLIPS_AT_ONCE)]
    return [
        Generation(
            cell=cell,
            network_calls=calls[cell],
            seconds=tuple(seconds[cell]),
            seconds_spread=spread_of(seconds[cell]),
            ratio_to_default=ratio_of(seconds[cell], seconds[run.default]),
            motion_energy_ratio=ratio_to_real(motion_energy, torch.cat(made[cell]), real),
            sharpness_ratio=ratio_to_real(sharpness, torch.cat(made[cell]), real),
        )
        for cell in cells
    ]


def measure_guidance(run: SampledRun, alternations: int) -> GuidanceCost:
    """Time the run's own sampler and steps without guidance and with it, in turn."""
    guidance = run.settings.guidance
    without, guided = [], []
    for alternation in range(alternations):
        without.append(_timed(run, run.default, NO_GUIDANCE, alternation)[1])
        guided.append(_timed(run, run.default, guidance, alternation)[1])
    return GuidanceCost(spread_of(without), spread_of(guided), ratio_of(guided, without))


def measure_denoising(run: SampledRun, cells: Sequence[Cell]) -> list[Denoising]:
    """Let every cell clean the held-out clips from `run.start_timestep` on."""
    real = run.clips.video_BCTHW
    reference = run.denoise(Cell("heun", max(cell.steps for cell in cells)), NO_GUIDANCE)
    results = []
    for cell in cells:
        plain, guided = run.denoise(cell, NO_GUIDANCE), run.denoise(cell, run.settings.guidance)
        results.append(
            Denoising(
                cell=cell,
                x0_mse=_mean_squared_error(plain, real),
                x0_mse_guided=_mean_squared_error(guided, real),
                distance_to_reference=_mean_squared_error(plain, reference),
            )
        )
    return results


def measure_one_shot(run: SampledRun) -> list[OneShot]:
    """Return the errors at evenly spaced timesteps and, last, where `measure_denoising` starts.

    The best answer in one call is the mean of all clips that the noisy one may be. A sampler picks one of them, and may
    so have up to twice the squared error.
    """
    timesteps = evenly_spaced_timesteps(TIMESTEP_BINS, run.settings.schedule.num_timesteps).tolist()
    return [
        OneShot(timestep, _mean_squared_error(run.estimate(timestep), run.clips.video_BCTHW))
        for timestep in [*timesteps, run.start_timestep]
    ]


@contextmanager
def counted_calls(network: nn.Module) -> Iterator[list[None]]:
    """Collect an entry for every call of a network, whatever a sampler does in a step."""
    calls: list[None] = []
    handle = network.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


def _timed(run: SampledRun, cell: Cell, guidance: Guidance, alternation: int) -> tuple[Tensor, float]:
    """Return an alternation's clips, which are on the CPU, and the seconds that each took."""
    start = time.perf_counter()
    clips = run.generate(cell, guidance, alternation * CLIPS_AT_ONCE, CLIPS_AT_ONCE)
    return clips, (time.perf_counter() - start) / CLIPS_AT_ONCE


def _mean_squared_error(made: Tensor, wanted: Tensor) -> float:
    return (made - wanted).square().mean().item()
