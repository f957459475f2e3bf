"""One optimizer step: accumulation, determinism, and losses that are not finite; in float32 and scaled for float16."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from data.order import Part
from distributed.processes import Processes
from tests.training.step_rig import Rig, batch, equal, part_of
from training.optimizer import DynamicLossScale, LossScale, optimizer_tensors
from training.step import DURATION_WEIGHT, StepOutcome, TrainStep

BuildScale = Callable[[], LossScale]


def float16_scale() -> LossScale:
    return DynamicLossScale("cpu", initial_scale=1024.0)


in_each_precision = pytest.mark.parametrize("build_scale", [LossScale, float16_scale])


@in_each_precision
@pytest.mark.parametrize(("clips", "last"), [(8, 2), (7, 1), (5, 1)])
def test_accumulated_micro_batches_equal_one_large_batch(build_scale: BuildScale, clips: int, last: int) -> None:
    """Also where the clips do not divide evenly: seven are 2, 2, 2 and 1."""
    whole, parts = Rig(1, loss_scale=build_scale()), Rig(4, loss_scale=build_scale())
    for step in (1, 2, 3):
        one, other = whole.step.run(step, batch(clips)), parts.step.run(step, batch(clips))
        torch.testing.assert_close(one.loss, other.loss)
        torch.testing.assert_close(one.gradient_norm, other.gradient_norm)
        for name in ("timestep", "weighted_loss", "is_captioned", "noise_mse"):
            torch.testing.assert_close(getattr(one.samples, name), getattr(other.samples, name))
    for first, second in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)
    assert other.tensors.video.shape[0] == last  # the last micro-batch


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


@in_each_precision
def test_the_gradient_norm_is_reported_before_and_after_clipping(build_scale: BuildScale) -> None:
    rig = Rig(clip_norm=1e-3, loss_scale=build_scale())
    outcome = rig.step.run(1, batch())
    clipped = torch.cat([parameter.grad.flatten() for parameter in rig.model.parameters()]).norm()
    assert outcome.gradient_norm > 1e-2
    torch.testing.assert_close(outcome.gradient_norm_clipped, torch.tensor(1e-3))
    torch.testing.assert_close(clipped, torch.tensor(1e-3), rtol=1e-3, atol=1e-8)
    unclipped = Rig(clip_norm=1e3).step.run(1, batch())
    torch.testing.assert_close(unclipped.gradient_norm, outcome.gradient_norm)
    torch.testing.assert_close(unclipped.gradient_norm_clipped, outcome.gradient_norm)


@in_each_precision
@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["prediction", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing_and_says_so(
    poison: float, where: str, build_scale: BuildScale
) -> None:
    rig = Rig(accumulation_steps=2, loss_scale=build_scale())
    rig.step.run(1, batch())
    before = rig.everything()
    if where == "prediction":
        hook = rig.model.register_forward_hook(lambda *called: (called[-1][0] * poison, *called[-1][1:]))
    else:
        hook = rig.model.mix.weight.register_hook(lambda gradient: gradient * poison)
    outcome = rig.step.run(2, batch())
    hook.remove()
    may_be_the_scale = where == "gradient" and build_scale is float16_scale  # the loss is finite
    assert (bool(outcome.skipped), bool(outcome.overflowed)) == (not may_be_the_scale, may_be_the_scale)
    assert equal(rig.everything(), before)
    assert not bool(rig.step.run(3, batch()).skipped)  # and the run goes on


def test_durations_learn_from_how_far_their_logarithms_are_off() -> None:
    """Its gradient does not grow with certainty: it once outgrew that of the video, and clipping then took the rest."""
    rig, clips = Rig(clip_norm=1e9), batch()
    with torch.no_grad():
        expected = rig.model.duration(rig.model.embedding(clips.tokens_BL).mean(1))[:, 0]
    rig.run(1)
    gradient = optimizer_tensors(rig.optimizer, rig.model)["exp_avg.duration.bias"] / (1 - 0.9)  # ADAM_BETA_1
    torch.testing.assert_close(gradient[0], DURATION_WEIGHT * (expected - clips.seconds_B.log()).mean())


def test_caption_dropout_follows_its_share() -> None:
    rig = Rig()
    captioned = [rig.step.run(step, batch(40)).samples.is_captioned.float().mean().item() for step in range(1, 26)]
    share = sum(captioned) / len(captioned)
    assert share == pytest.approx(0.75, abs=0.05)  # 1,000 draws: 3.6 standard deviations


def test_noise_that_is_drawn_ahead_is_the_same_and_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    fill = TrainStep._fill

    def noted(step: TrainStep, noise: Tensor, number: int) -> Tensor:
        threads.append(threading.current_thread().name)
        return fill(step, noise, number)

    monkeypatch.setattr(TrainStep, "_fill", noted)
    plain, ahead = Rig(2), Rig(2)
    for number in (1, 2, 3):  # as many steps with different numbers of clips
        clips = batch(8 - number)
        ahead.step.draw_ahead(number + 1, batch(8 - number - 1).clips_BTHWC.shape)
        one, other = plain.step.run(number, clips), ahead.step.run(number, clips)
        assert torch.equal(one.tensors.actual_noise, other.tensors.actual_noise)
        assert torch.equal(one.loss, other.loss)
    assert equal(plain.everything(), ahead.everything())
    in_threads = [name for name in threads if name.startswith("noise")]
    assert len(threads) - len(in_threads) == 3 + 1  # all of the one, and the first of the other
    assert len(in_threads) == 3


@pytest.mark.parametrize("clips", [8, 7])
def test_the_noise_of_each_process_is_its_part_of_that_of_one(clips: int) -> None:
    whole = Rig().step.draw(5, batch(clips))
    for rank in range(2):
        rig = Rig()
        rig.step._processes = Processes(Part(rank, 2))
        own = part_of(batch(clips), Part(rank, 2))
        rig.step.draw_ahead(5, own.clips_BTHWC.shape)
        for drawn, expected in zip(rig.step.draw(5, own), whole, strict=True):
            assert torch.equal(drawn, expected[rank::2])
