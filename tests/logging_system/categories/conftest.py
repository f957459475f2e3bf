"""A small network, invented records with known numbers, and logging without a trainer."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from config import Config
from logging_system.cadence import LoggingClock
from logging_system.categories import CATEGORIES
from logging_system.category import CategoryContext
from logging_system.dispatcher import Dispatcher
from logging_system.files.writer import Writer
from logging_system.records import (
    CheckpointRecord,
    DiffusionTensors,
    EpochRecord,
    GeneratedSamples,
    NoiseVisualisation,
    RunInformation,
    SampleStatistics,
    StepRecord,
    ValidationRecord,
)

NUM_TIMESTEPS = 100
NOISE_VIDEOS = ("original", "noisy", "actual_noise", "predicted_noise", "denoised")
BETWEEN_0_AND_1 = ("weighted_loss", "unweighted_mse", "temporal_difference_mse", "x0_mse", "alphas_cumprod", "beta")


class Network(nn.Module):
    """Four modules with parameters, at two depths, and one parameter of the network's own."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor([0.5, -0.25]))
        self.entry = nn.Linear(3, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
        self.exit = nn.Linear(4, 2, bias=False)


class View:
    """A `TrainingView` whose samples and schedule are made up."""

    def __init__(self, model: nn.Module, run: RunInformation) -> None:
        self.run = run
        self.model = model
        self.last_step: int | None = 2000
        self.planned: str | None = None
        self.samples_made = 0
        self.visualisations_made = 0
        self.state: Mapping[str, float] = {"last_epoch": 7.0}

    def total_steps(self) -> int | None:
        return self.last_step

    def plan(self) -> str | None:
        return self.planned

    def learning_rate_at(self, step: int) -> float | None:
        return 1e-3 * (1 - step / 4000)

    def scheduler_state(self) -> Mapping[str, float]:
        return self.state

    def generate_samples(self) -> GeneratedSamples:
        self.samples_made += 1
        random = numpy.random.default_rng(self.samples_made)
        clips = tuple(random.integers(0, 256, (frames, 8, 8, 3), dtype=numpy.uint8) for frames in (4, 8))
        return GeneratedSamples(
            prompts=("CAB", "ä/b <i>[c](d)?"),
            held_out=(True, False),
            generated=clips,
            generated_raw=tuple(255 - clip for clip in clips),
            real=tuple(clip[:4] // 2 for clip in clips),
            seconds=((0.5, 0.4), (1.0, 1.5)),
            measures={
                "Text_Sensitivity": 0.25,
                "Motion_Energy_Ratio": 0.5,
                "Sharpness_Ratio": 2.0,
            },
            frames_per_second=8.0,
        )

    def visualise_noise(self) -> NoiseVisualisation:
        self.visualisations_made += 1
        clips = numpy.random.default_rng(7).integers(0, 256, (8, 4, 8, 8, 3), dtype=numpy.uint8)
        return NoiseVisualisation(
            caption="CAB",
            timestep=60,
            **dict(zip(NOISE_VIDEOS, clips[:5], strict=True)),
            filmstrip=clips[5:],
            frames_per_second=8.0,
        )


def _run_information(**changes: object) -> RunInformation:
    config = {"NUM_TRAIN_TIMESTEPS": NUM_TIMESTEPS, "LEARNING_RATE": 1e-3, "MAX_STEPS": None, "NAME": "a|b"}
    environment = {"torch": "2.0", "command line": "python main.py --text *"}
    measures = {"Captions_Unread_Percent": 25.0, "Captions_Alike_Percent": 0.0}
    facts = RunInformation(config, environment, ("24 clips",), measures, (), 0, 2_000_000_000, 1e13)
    return dataclasses.replace(facts, **changes)


def _record(step: int, *, clips: int = 6, generator: torch.Generator | None = None, **changes: object) -> StepRecord:
    random = generator or torch.Generator().manual_seed(step)

    def values(low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(clips, generator=random)

    timestep = torch.randint(0, NUM_TIMESTEPS, (clips,), generator=random)
    timestep[0] = NUM_TIMESTEPS - 1
    samples = SampleStatistics(
        timestep=timestep,
        is_terminal=timestep == NUM_TIMESTEPS - 1,
        is_captioned=torch.arange(clips) % 3 != 0,
        predict_zero_mse=values(0.9, 1.1),
        snr_decibel=values(-20, 20),
        noise_mse=values(),
        noise_mae=values(),
        duration_error=values(),
        **{name: values() for name in BETWEEN_0_AND_1},
    )
    shape = (4, 3, 3, 6, 6)
    video = torch.rand(shape, generator=random) * 2 - 1
    noise = torch.randn(shape, generator=random)
    tensors = DiffusionTensors(
        video=video,
        actual_noise=noise,
        predicted_noise=0.5 * noise + torch.randn(shape, generator=random),
        timestep=timestep[:4],
        is_terminal=timestep[:4] == NUM_TIMESTEPS - 1,
    )
    norm = torch.tensor(0.5 + step % 3)
    record = StepRecord(
        step=step,
        is_first=False,
        is_last=False,
        epoch=1,
        clips_in_step=clips,
        frames_in_step=clips * 3,
        samples_seen=clips * step,
        loss=torch.tensor(1.0 / step),
        gradient_norm=norm,
        gradient_norm_clipped=norm.clamp(max=1.0),
        skipped=torch.tensor(False),
        overflowed=torch.tensor(False),
        learning_rates={"weights": 1e-3},
        samples=samples,
        tensors=tensors,
        data_seconds=0.05,
        step_seconds=0.25,
        rank_seconds=(0.05, 0.1),
    )
    return dataclasses.replace(record, **changes)


def _validation(step: int) -> ValidationRecord:
    return ValidationRecord(
        step=step,
        loss=0.3,
        loss_shuffled=0.375,
        loss_null=0.35,
        predict_zero=1.0,
        gap_shuffled_interval=(0.05, 0.1),
        loss_by_bin=tuple(0.1 * number for number in range(1, 9)),
        gap_shuffled_by_bin=tuple(0.01 * number for number in range(1, 9)),
        trained_loss=0.2,
        trained_loss_shuffled=0.26,
        duration_error=0.125,
        best_loss=0.25,
        seconds=1.5,
    )


def _epoch(epoch: int, step: int, **changes: object) -> EpochRecord:
    facts = {"optimizer_steps": step, "clips": 6 * step, "frames": 48 * step, "seconds": 12.5, "learning_rate": 2e-4}
    record = EpochRecord(epoch=epoch, step=step, is_partial=False, is_last=False, **facts)
    return dataclasses.replace(record, **changes)


def _fill_gradients(model: nn.Module, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=random)


class Reader:
    """What stands in a run's event files, read by TensorBoard's own reader."""

    def __init__(self, events: EventAccumulator) -> None:
        self.events = events
        self.tags: dict[str, list[str]] = events.Tags()

    def points(self, tag: str) -> dict[int, float]:
        """Return the scalar by step; a step that occurs twice fails."""
        found = [(event.step, event.value) for event in self.events.Scalars(tag)]
        assert len(dict(found)) == len(found), f"{tag} has two points at one step"
        return dict(found)

    def last(self, tag: str) -> float:
        return list(self.points(tag).values())[-1]

    def histogram(self, tag: str) -> object:
        return self.events.Histograms(tag)[-1].histogram_value

    def image(self, tag: str) -> bytes:
        return self.events.Images(tag)[-1].encoded_image_string

    def image_steps(self, tag: str) -> list[int]:
        return [event.step for event in self.events.Images(tag)]

    def text(self, tag: str) -> str:
        return self.events.Tensors(tag)[-1].tensor_proto.string_val[0].decode()

    def description(self, tag: str) -> str:
        return self.events.SummaryMetadata(tag).summary_description

    @property
    def all_tags(self) -> set[str]:
        names = {name for kind in ("scalars", "images", "histograms", "tensors") for name in self.tags[kind]}
        return {name for name in names if not name.startswith(("_hparams_", "custom_scalars"))}


@pytest.fixture
def config() -> Config:
    return Config(
        LOG_EVERY_STEPS=2,
        LOG_EVERY_EPOCHS=1,
        DIAGNOSTIC_LOG_EVERY_STEPS=4,
        TENSORBOARD_FLUSH_EVERY_STEPS=100,
        SAMPLE_EVERY_STEPS=6,
        SYSTEM_SAMPLE_SECONDS=60.0,
        PARAMETER_TRACKING_MAX_LAYERS=64,
        HISTOGRAM_BINS=16,
        NUM_TRAIN_TIMESTEPS=NUM_TIMESTEPS,
    )


@pytest.fixture
def make(config: Config, tmp_path: Path) -> SimpleNamespace:
    """Factories of records, views, networks and what a category is built from."""

    def context(writer: Writer, **changes: object) -> CategoryContext:
        view = View(_seeded_network(), _run_information())
        return CategoryContext(config.model_copy(update=changes), view, writer, LoggingClock(), tmp_path)

    return SimpleNamespace(
        record=_record,
        validation=_validation,
        epoch=_epoch,
        checkpoint=lambda step: CheckpointRecord(step, Path("step"), 12_500_000, 0.25, 1.5),
        run=_run_information,
        view=lambda model=None, **facts: View(model or _seeded_network(), _run_information(**facts)),
        gradients=_fill_gradients,
        network=_seeded_network,
        context=context,
    )


def _seeded_network() -> Network:
    model = Network()
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
    return model


class Session:
    """A dispatcher over some of the categories, without a trainer."""

    def __init__(
        self,
        run_folder: Path,
        config: Config,
        names: tuple[str, ...],
        view: View,
        accumulate: Callable[[Path], EventAccumulator],
    ) -> None:
        self.run_folder = run_folder
        self._accumulate = accumulate
        self.view = view
        self.messages: list[str] = []
        chosen = [category for category in CATEGORIES if not names or category.name in names]
        writer = Writer(run_folder, report=self.messages.append)
        self.dispatcher = Dispatcher(
            chosen, config=config, run_folder=run_folder, view=view, writer=writer, report=self.messages.append
        )
        self.dispatcher.on_start()

    def step(self, record: StepRecord) -> None:
        self.dispatcher.on_step(record)
        if self.dispatcher.samples_are_due(record):
            self.dispatcher.on_samples(record)

    def finish(self) -> Reader:
        """End the run and read it; a category that failed fails the test."""
        self.dispatcher.on_end()
        self.dispatcher.close()
        assert not self.dispatcher.failures, self.messages
        return Reader(self._accumulate(self.run_folder))


@pytest.fixture
def session(
    tmp_path: Path, config: Config, make: SimpleNamespace, accumulate: Callable[[Path], EventAccumulator]
) -> Callable[..., Session]:
    """Start logging with the named categories (all fifteen without names)."""

    def start(*names: str, view: View | None = None, **changes: object) -> Session:
        run_folder = tmp_path / "run"
        run_folder.mkdir()
        changed = config.model_copy(update={name.upper(): value for name, value in changes.items()})
        return Session(run_folder, changed, names, view or make.view(), accumulate)

    return start
