"""One optimizer step: accumulation, determinism, and losses that are not finite."""

import copy

import pytest
import torch
from torch import Tensor, nn

from data.records import Batch
from diffusion.schedule import build_noise_schedule
from training.device import ComputeDevice
from training.ema import ExponentialMovingAverage
from training.loss_scale import NoLossScale
from training.optimizer import build_optimizer, optimizer_tensors
from training.processes import Processes
from training.shared_model import SharedModel
from training.step import DiffusionObjective, StepOutcome, TrainStep


class TinyNetwork(nn.Module):
    """Depends on everything that a network is given, clip by clip."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv3d(3, 3, 1)
        self.embedding = nn.Embedding(10, 3)

    def forward(self, video: Tensor, timestep: Tensor, tokens: Tensor, drop_caption: Tensor) -> Tensor:
        text = self.embedding(tokens).mean(1) * (~drop_caption)[:, None]
        return self.mix(video) + (text + 0.001 * timestep[:, None])[:, :, None, None, None]


def batch(clips: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(5)
    return Batch(
        video_BCTHW=torch.rand(clips, 3, 4, 6, 6, generator=generator) * 2 - 1,
        tokens_BL=torch.randint(2, 10, (clips, 3), generator=generator),
        captions=("A",) * clips,
        ids=tuple(map(str, range(clips))),
        epoch=0,
        index_in_epoch=0,
    )


class Rig:
    """A network with everything that a step needs."""

    def __init__(self, accumulation_steps: int = 1, clip_norm: float = 1.0, seed: int = 0) -> None:
        torch.manual_seed(0)
        self.model = TinyNetwork()
        self.ema = ExponentialMovingAverage(self.model, 0.9)
        self.optimizer = build_optimizer(self.model, learning_rate=0.01, betas=(0.9, 0.99), weight_decay=0.0)
        schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=True)
        self.step = TrainStep(
            shared=SharedModel(self.model),
            ema=self.ema,
            optimizer=self.optimizer,
            objective=DiffusionObjective(schedule, "v_prediction", "uniform", 5.0, 0.25),
            compute=ComputeDevice(torch.device("cpu"), None),
            processes=Processes(),
            loss_scale=NoLossScale(),
            accumulation_steps=accumulation_steps,
            gradient_clip_norm=clip_norm,
            seed=seed,
        )

    def everything(self) -> dict[str, Tensor]:
        state = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        state |= {f"ema.{name}": value for name, value in self.ema.model.state_dict().items()}
        return copy.deepcopy(state | optimizer_tensors(self.optimizer, self.model))


def test_accumulated_micro_batches_equal_one_large_batch() -> None:
    whole, parts = Rig(1), Rig(4)
    for step in (1, 2, 3):
        one, other = whole.step.run(step, batch()), parts.step.run(step, batch())
        torch.testing.assert_close(one.loss, other.loss)
        torch.testing.assert_close(one.gradient_norm, other.gradient_norm)
        for name in ("timestep", "weighted_loss", "is_captioned", "noise_mse"):
            torch.testing.assert_close(getattr(one.samples, name), getattr(other.samples, name))
    for first, second in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    assert other.tensors.video.shape[0] == 2  # the last micro-batch


def outcome_of(seed: int, step: int) -> StepOutcome:
    return Rig(seed=seed).step.run(step, batch())


def test_a_step_is_a_function_of_seed_and_number_and_of_no_global_state() -> None:
    torch.manual_seed(1)
    first = outcome_of(0, 7)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    repeated = outcome_of_without_reseeding(7, state)
    assert torch.equal(first.loss, repeated.loss)
    assert torch.equal(first.tensors.actual_noise, repeated.tensors.actual_noise)
    for other in (outcome_of(1, 7), outcome_of(0, 8)):
        assert not torch.equal(first.tensors.actual_noise, other.tensors.actual_noise)
        assert not torch.equal(first.samples.timestep, other.samples.timestep)


def outcome_of_without_reseeding(step: int, state: Tensor) -> StepOutcome:
    rig = Rig()
    torch.set_rng_state(state)
    outcome = rig.step.run(step, batch())
    assert torch.equal(torch.get_rng_state(), state)
    return outcome


def test_the_gradient_norm_is_reported_before_and_after_clipping() -> None:
    rig = Rig(clip_norm=1e-3)
    outcome = rig.step.run(1, batch())
    clipped = torch.cat([parameter.grad.flatten() for parameter in rig.model.parameters()]).norm()
    assert outcome.gradient_norm > 1e-2
    torch.testing.assert_close(outcome.gradient_norm_clipped, torch.tensor(1e-3))
    torch.testing.assert_close(clipped, torch.tensor(1e-3), rtol=1e-3, atol=1e-8)
    unclipped = Rig(clip_norm=1e3).step.run(1, batch())
    torch.testing.assert_close(unclipped.gradient_norm, outcome.gradient_norm)
    torch.testing.assert_close(unclipped.gradient_norm_clipped, outcome.gradient_norm)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["batch", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(poison: float, where: str) -> None:
    rig = Rig(accumulation_steps=2)
    rig.step.run(1, batch())
    before = rig.everything()
    bad = batch()
    if where == "batch":
        bad.video_BCTHW[1, 0, 0, 0, 0] = poison
        outcome = rig.step.run(2, bad)
    else:
        hook = rig.model.mix.weight.register_hook(lambda gradient: gradient * poison)
        outcome = rig.step.run(2, bad)
        hook.remove()
    assert bool(outcome.skipped)
    after = rig.everything()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not bool(rig.step.run(3, batch()).skipped)  # and the run goes on


def test_caption_dropout_follows_its_share() -> None:
    rig = Rig()
    captioned = [rig.step.run(step, batch(40)).samples.is_captioned.float().mean().item() for step in range(1, 26)]
    share = sum(captioned) / len(captioned)
    assert share == pytest.approx(0.75, abs=0.05)  # 1,000 draws: 3.6 standard deviations
