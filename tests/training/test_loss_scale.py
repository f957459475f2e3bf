"""Training steps with float16 gradients on a CPU: scaled, unscaled, overflowing, and the same after a resume."""

import pytest
import torch
from torch import Tensor

from compute.device import ComputeDevice
from tests.training.step_rig import Rig, batch, equal
from training.optimizer import DynamicLossScale, LossScale, build_loss_scale

LARGEST_FLOAT16 = 65504.0
FAR_TOO_LARGE = 1e12  # times the gradients: no scale here lets float16 hold them


def half(loss_scale: LossScale, accumulation_steps: int = 1) -> Rig:
    return Rig(accumulation_steps, loss_scale=loss_scale, is_half=True)


def verdict(rig: Rig, step: int, factor: float = 1.0) -> str:
    outcome = rig.run(step, factor)
    return {(0, 0): "done", (1, 0): "fault", (0, 1): "overflow"}[int(outcome.skipped), int(outcome.overflowed)]


@pytest.mark.parametrize("accumulation_steps", [1, 4])
def test_a_scale_changes_no_bit_of_what_is_learned(accumulation_steps: int) -> None:
    """A factor that is a power of two is exact in float32, and so is its inverse."""
    scaled, plain = Rig(accumulation_steps, loss_scale=DynamicLossScale("cpu")), Rig(accumulation_steps)
    for step in range(1, 6):
        one, other = scaled.run(step), plain.run(step)
        assert torch.equal(one.loss, other.loss)
        assert torch.equal(one.gradient_norm, other.gradient_norm)
        assert one.loss_scale is not None
        assert (one.loss_scale.item(), other.loss_scale) == (2.0**16, None)
    assert equal(scaled.everything(), plain.everything())


def test_gradients_too_small_for_float16_survive_only_with_a_scale() -> None:
    tiny = 1e-6
    assert half(LossScale()).run(1, tiny).gradient_norm == 0
    expected = tiny * half(LossScale()).run(1).gradient_norm
    found = half(DynamicLossScale("cpu")).run(1, tiny).gradient_norm
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_an_overflow_changes_no_weight_and_halves_the_scale_until_it_fits(accumulation_steps: int) -> None:
    rig = half(DynamicLossScale("cpu", initial_scale=2.0**18), accumulation_steps)
    unscaled = half(LossScale(), accumulation_steps)
    for each in (rig, unscaled):
        assert verdict(each, 1, factor=1e-3) == "done"
    unscaled.run(2)
    # float16 holds so much with a scale of 2**16, and with no larger one.
    factor = 0.75 * LARGEST_FLOAT16 / 2.0**16 / unscaled.model.largest_gradient.item()
    before = rig.everything()
    for scale in (2.0**18, 2.0**17):
        outcome = rig.run(2, factor)
        assert (bool(outcome.overflowed), bool(outcome.skipped)) == (True, False)
        assert outcome.loss_scale == scale
        assert not torch.isfinite(outcome.gradient_norm)
        assert equal(rig.everything(), before)
    assert verdict(rig, 2, factor) == "done"
    assert rig.loss_scale.state()["scale"] == 2.0**16
    assert not equal(rig.everything(), before)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_mere_overflow(poison: float) -> None:
    rig = half(DynamicLossScale("cpu"))
    rig.run(1)
    before = rig.everything()
    rig.model.register_forward_hook(lambda *called: (called[-1][0] * poison, *called[-1][1:]))
    outcome = rig.step.run(2, batch())
    assert (bool(outcome.skipped), bool(outcome.overflowed)) == (True, False)
    assert equal(rig.everything(), before)


def test_without_a_scale_left_to_lower_an_overflow_is_a_fault() -> None:
    rig = half(DynamicLossScale("cpu", initial_scale=4.0))
    verdicts = [verdict(rig, step, FAR_TOO_LARGE) for step in range(1, 5)]
    assert verdicts == ["overflow", "overflow", "fault", "fault"]  # scales 4, 2, 1 and 0.5
    assert verdict(half(LossScale()), 1, FAR_TOO_LARGE) == "fault"


def test_the_scale_doubles_after_enough_steps_in_a_row() -> None:
    rig = half(DynamicLossScale("cpu", initial_scale=8.0, growth_interval=3))
    after, during = [], []
    for step in range(1, 10):
        used = rig.run(step, FAR_TOO_LARGE if step == 5 else 1.0).loss_scale
        assert used is not None
        during.append(used.item())
        after.append(rig.loss_scale.state()["scale"])
    assert after == [8.0, 8.0, 16.0, 16.0, 8.0, 8.0, 8.0, 16.0, 16.0]
    assert during == [8.0, *after[:-1]]


def test_a_resumed_run_scales_as_one_that_was_never_stopped() -> None:
    whole = half(DynamicLossScale("cpu", initial_scale=8.0, growth_interval=3))
    for step in range(1, 6):
        whole.run(step)
    assert whole.loss_scale.state() == {"scale": 16.0, "growth_tracker": 2.0}
    resumed = half(DynamicLossScale("cpu", growth_interval=3))
    resumed.loss_scale.load_state(whole.loss_scale.state())
    for rig in (whole, resumed):
        assert verdict(rig, 6) == "done"
        assert rig.loss_scale.state() == {"scale": 32.0, "growth_tracker": 0.0}
        assert verdict(rig, 7, FAR_TOO_LARGE) == "overflow"
        assert rig.loss_scale.state() == {"scale": 16.0, "growth_tracker": 0.0}


def test_a_state_can_be_taken_and_given_before_and_after_the_first_step() -> None:
    fresh = DynamicLossScale("cpu", initial_scale=8.0)
    assert fresh.state() == {"scale": 8.0, "growth_tracker": 0.0}
    used = DynamicLossScale("cpu")
    half(used).run(1)
    used.load_state(fresh.state())
    assert used.state() == {"scale": 8.0, "growth_tracker": 0.0}
    used.load_state({})  # of a run that was in another precision
    assert used.state()["scale"] == 8.0


def test_only_float16_is_scaled() -> None:
    for dtype in (None, torch.bfloat16):
        assert isinstance(build_loss_scale(ComputeDevice(torch.device("cpu"), dtype)), LossScale)
    assert isinstance(build_loss_scale(ComputeDevice(torch.device("cpu"), torch.float16)), DynamicLossScale)


def test_without_scaling_a_loss_is_what_it_was() -> None:
    loss_scale, loss = LossScale(), torch.tensor(float("inf"))
    assert loss_scale.scale(loss) is loss
    scaled = loss_scale.update(loss)
    assert not bool(scaled.overflowed)
    assert scaled.scale is None
    assert loss_scale.state() == {}


def test_nothing_in_a_step_asks_the_device_for_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = half(DynamicLossScale("cpu"), accumulation_steps=2)
    rig.run(1)

    def forbid(tensor: Tensor, *_: object) -> None:
        raise AssertionError("the device would be waited for")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "__bool__", "__float__"):
            patch.setattr(torch.Tensor, name, forbid)
        outcome = rig.run(2)
    assert not outcome.overflowed
