"""Numbers that are not finite, in whole runs: counted exactly, shown as what they are, and no harm to anything else."""

import io
import math

import pytest
import torch
from PIL import Image

from logging_system.dispatcher import ERROR_FILE
from logging_system.files.scalar_history import tag_expression
from models.unet3d import UNet3D
from sampling.sampler import ClipSampler
from tests.dashboard_tags import TAG_TABLE
from tests.grids import mostly_slow
from training.step import TrainStep

FAILURES = "05_Performance/Logging_Failures"
BAD_STEPS = (2, 4)
STEPS = (1, 2, 3, 4)


def assert_logging_is_whole(run, undisturbed):
    """No category failed, every picture of the healthy run is there, and each can be decoded to its last frame."""
    assert not (run.folder / ERROR_FILE).exists()
    assert run.curve(FAILURES) == {}
    pictures = run.pictures()
    assert pictures.keys() == undisturbed.pictures().keys()
    for content in pictures.values():
        with Image.open(io.BytesIO(content)) as picture:
            for frame in range(getattr(picture, "n_frames", 1)):
                picture.seek(frame)
                picture.load()


def not_finite(tensors):
    return sum(int((~torch.isfinite(tensor)).sum()) for tensor in tensors)


@pytest.fixture
def poisoned_steps(monkeypatch):
    """Let the network answer NaN in training steps 2 and 4; note what the steps left behind."""
    forward, run_step = UNet3D.forward, TrainStep.run
    poisoned, seen = [], {}

    def answer(*arguments):
        return forward(*arguments) * (math.nan if poisoned else 1.0)

    def run(self, step, batch, *request):
        poisoned.extend([step] if step in BAD_STEPS else [])
        outcome = run_step(self, step, batch, *request)
        poisoned.clear()
        seen[step] = {
            "gradients": not_finite(p.grad for p in self._shared.model.parameters() if p.grad is not None),
            "predicted_noise": not_finite([outcome.tensors.predicted_noise[~outcome.tensors.is_terminal]]),
            "weights": [parameter.detach().clone() for parameter in self._shared.model.parameters()],
        }
        return outcome

    monkeypatch.setattr(UNet3D, "forward", answer)
    monkeypatch.setattr(TrainStep, "run", run)
    return seen


@pytest.mark.slow
def test_steps_that_are_not_finite_are_skipped_and_counted(train, undisturbed, poisoned_steps):
    run = train("--diagnostic-log-every-steps=1", "--save-every-steps=1")
    assert run.curve("01_Training/Skipped_Steps") == {1: 0, 2: 1, 3: 1, 4: 2}
    assert sum(run.curve("03_Epoch_Summary/Skipped_Steps").values()) == 2
    assert run.state()["skipped_steps"] == 2
    for step in STEPS:
        weights = poisoned_steps[step]["weights"]
        before = poisoned_steps[step - 1]["weights"] if step > 1 else None
        if step in BAD_STEPS:
            assert all(torch.equal(*pair) for pair in zip(before, weights, strict=True))
            assert run.curve("01_Training/Loss")[step] == "NaN"
            assert poisoned_steps[step]["gradients"] > 0
        else:
            assert math.isfinite(run.curve("01_Training/Loss")[step])
        assert not_finite(weights) == 0
        assert run.curve("11_Gradient_Stats/Non_Finite")[step] == poisoned_steps[step]["gradients"]
        counted = run.curve("07_Noise_Analysis/Predicted_Non_Finite").get(step, 0)  # absent where all were terminal
        assert counted == poisoned_steps[step]["predicted_noise"]
    weights_not_finite = [
        value for (tag, _), value in run.scalars().items() if tag.startswith("09") and tag.endswith("Non_Finite")
    ]
    assert weights_not_finite
    assert set(weights_not_finite) == {0}
    assert run.curve(FAILURES) == {}
    assert not (run.folder / ERROR_FILE).exists()


@pytest.mark.slow
def test_samples_full_of_nan_are_pictures_all_the_same(
    train, undisturbed, monkeypatch, capsys, assert_same_weights, assert_nothing_lost
):
    sample = ClipSampler.sample

    def nothing_but_nan(*arguments, **options):
        return [torch.full_like(clip, math.nan) for clip in sample(*arguments, **options)]

    monkeypatch.setattr(ClipSampler, "sample", nothing_but_nan)
    run = train()
    assert_same_weights(run)
    assert_logging_is_whole(run, undisturbed)
    assert_nothing_lost(run, "12_Generated_Samples")  # of the measures, what cannot be said may be absent
    assert "Logging: " not in capsys.readouterr().err


@pytest.mark.parametrize("value", mostly_slow([math.nan, math.inf], fast=0))
def test_nan_in_every_statistic(train, undisturbed, monkeypatch, capsys, value):
    """Every weight, and with it every activation, loss, gradient, sample and validation, from step 2 on."""
    run_step = TrainStep.run
    sizes = []

    def poison(self, step, batch, *request):
        if step == 2:
            parameters = [*self._shared.model.parameters(), *self._ema.model.parameters()]
            with torch.no_grad():
                for parameter in parameters:
                    parameter.fill_(value)
            sizes.append(sum(parameter.numel() for parameter in self._shared.model.parameters()))
        return run_step(self, step, batch, *request)

    monkeypatch.setattr(TrainStep, "run", poison)
    run = train()
    assert_logging_is_whole(run, undisturbed)
    assert "Logging: " not in capsys.readouterr().err
    assert run.curve("01_Training/Skipped_Steps") == {1: 0, 2: 1, 3: 2, 4: 3}
    found = run.scalars()
    for step in (2, 4):
        assert found["01_Training/Loss", step] == "NaN"
        assert found["01_Training/Validation_Loss", step] == "NaN"
        layers = [v for (tag, at), v in found.items() if at == step and tag.startswith("09") and "Non_Finite" in tag]
        assert sum(layers) == sizes[0]
    assert found["09_Parameter_Stats/unet/Mean", 1] != "NaN"
    missing = {tag for tag, _ in undisturbed.scalars()} - {tag for tag, _ in found}
    may_be_absent = [tag_expression(tag) for tag, meaning in TAG_TABLE.items() if meaning.absent_when]
    assert [tag for tag in missing if not any(expression.fullmatch(tag) for expression in may_be_absent)] == []
