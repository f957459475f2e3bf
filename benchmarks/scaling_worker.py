"""Time training steps of one setting: a worker of benchmarks.scaling.

Its one argument is a JSON object, whose "options" are main.py's; it prints a `Measurement` as JSON. A process of its
own, because what one setting held would count in the peak of the next. Freed memory is kept as in a run of main.py.
"""

import dataclasses
import json
import statistics
import sys
from collections.abc import Callable, Sequence

import psutil
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import runner
from benchmarks.worker_process import GIBIBYTE, peak_memory_gib, read_plan
from common.settings import load_settings
from compute.device import choose_device
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from data.records import Batch
from distributed.models import SharedModel
from distributed.processes import Processes
from models.build import build_model, build_objective, build_tokenizer
from training.optimizer import ExponentialMovingAverage, build_adamw, build_loss_scale
from training.step import TrainStep

MEASURE_SECONDS = 1.0
CAPTION = "CAB"


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one setting took."""

    seconds: float  # of a training step: median of at least one, after one to warm up
    memory_gib: float  # peak of the process, above what it had before the network was built
    parameters: int


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    keep_freed_memory()
    plan = read_plan(arguments, __doc__)
    print(json.dumps(dataclasses.asdict(measure(plan["options"]))))


def measure(options: Sequence[str]) -> Measurement:
    """Build, warm up with one step, then time steps for about MEASURE_SECONDS."""
    before: float = psutil.Process().memory_info().rss / GIBIBYTE
    step, parameters = training_step(options)
    step()
    seconds: list[float] = []
    while not seconds or sum(seconds) < MEASURE_SECONDS:
        seconds.append(runner.seconds_of(step))
    return Measurement(statistics.median(seconds), peak_memory_gib() - before, parameters)


def training_step(options: Sequence[str]) -> tuple[Callable[[], object], int]:
    """Build the trainer's own step, on clips of noise; return a call that does one, and the number of parameters.

    Args:
        options: of main.py.

    Raises:
        UserError: the options do not fit together.
    """
    config = load_settings(Config, PRESETS, list(options), program="main.py").config
    compute = choose_device(config.DEVICE, config.MIXED_PRECISION)
    tokenizer = build_tokenizer(config, None)
    model = build_model(config, tokenizer, compute.device).train()
    ema, objective = ExponentialMovingAverage(model, config.EMA_DECAY), build_objective(config, compute.device)
    step = TrainStep(
        shared=SharedModel(model),
        ema=ema,
        optimizer=build_adamw(config, model),
        loss_scale=build_loss_scale(compute),
        objective=objective,
        compute=compute,
        processes=Processes(),
        config=config,
    )
    clips = config.clips_per_step
    shape = (clips, 3, config.NUM_FRAMES, config.IMAGE_SIZE, config.IMAGE_SIZE)
    batch = Batch(
        video_BCTHW=torch.rand(shape, generator=torch.Generator().manual_seed(config.SEED)) * 2 - 1,
        tokens_BL=tokenizer((CAPTION,) * clips),
        captions=(CAPTION,) * clips,
        ids=tuple(map(str, range(clips))),
        epoch=0,
        index_in_epoch=0,
    )
    return lambda: step.run(1, batch), sum(parameter.numel() for parameter in model.parameters())


def profile_step(options: Sequence[str], steps: int) -> dict[str, float]:
    """Profile some steps on the CPU after one to warm up.

    Args:
        options: of main.py.
        steps: at least 1.

    Returns:
        The percentage of the time that each operator takes itself, those that it calls left out; the largest first.
    """
    step, _ = training_step(options)
    step()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for _ in range(steps):
            step()
    seconds = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = sum(seconds.values())
    return {name: 100 * seconds[name] / total for name in sorted(seconds, key=seconds.__getitem__, reverse=True)}


if __name__ == "__main__":
    main(sys.argv[1:])
