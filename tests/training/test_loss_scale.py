"""float16 gradients on a CPU: scaled, unscaled, overflowing, and the same after a resume."""

import copy

import pytest
import torch
from torch import Tensor, nn

from training.device import ComputeDevice
from training.loss_scale import DynamicLossScale, LossScale, NoLossScale, build_loss_scale
from training.optimizer import build_optimizer, optimizer_tensors, step_unless

LARGEST_FLOAT16 = 65504.0


class HalfGradient(torch.autograd.Function):
    """Passes values on, and their gradients in float16, as a float16 network would: rounded, or infinite."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient.half().float()


class Rig:
    """A linear map whose gradients pass through float16 on their way, or do not."""

    def __init__(self, loss_scale: LossScale, *, is_half: bool = True) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(4, 3)
        self.optimizer = build_optimizer(self.model, learning_rate=0.01, betas=(0.9, 0.99), weight_decay=0.0)
        self.loss_scale = loss_scale
        self.is_half = is_half

    def step(self, number: int, *, factor: float = 1.0, micro_batches: int = 1) -> tuple[bool, bool]:
        """Return whether the step was skipped, and whether for an overflow alone; `factor` multiplies the loss."""
        self.optimizer.zero_grad()
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(number)).sign()
        losses = []
        for part in x.chunk(micro_batches):
            y = self.model(part)
            loss = factor * (HalfGradient.apply(y) if self.is_half else y).sum(dim=1).mean()
            self.loss_scale.scale(loss / micro_batches).backward()
            losses.append(loss.detach())
        self.loss_scale.unscale(self.optimizer)
        loss = torch.stack(losses).mean()
        norm = nn.utils.get_total_norm([parameter.grad for parameter in self.model.parameters()])
        skipped = ~(torch.isfinite(loss) & torch.isfinite(norm))
        step_unless(self.optimizer, skipped)
        return bool(skipped), bool(self.loss_scale.update(loss))

    def everything(self) -> dict[str, Tensor]:
        return copy.deepcopy({**self.model.state_dict(), **optimizer_tensors(self.optimizer, self.model)})


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("micro_batches", [1, 4])
def test_scaled_training_ends_with_the_weights_of_float32(micro_batches: int) -> None:
    scaled, plain = Rig(DynamicLossScale("cpu", initial_scale=1024.0)), Rig(NoLossScale(), is_half=False)
    for number in range(1, 9):
        assert scaled.step(number, micro_batches=micro_batches) == (False, False)
        assert plain.step(number, micro_batches=micro_batches) == (False, False)
    # Here every gradient and the scale are powers of two times small integers: float16 holds them exactly.
    assert equal(scaled.everything(), plain.everything())


def test_gradients_too_small_for_float16_survive_only_with_a_scale() -> None:
    tiny = 1e-7  # an eighth of it, the mean over 8 clips, rounds to 0 in float16
    unscaled, scaled = Rig(NoLossScale()), Rig(DynamicLossScale("cpu"))
    unscaled.step(1, factor=tiny)
    scaled.step(1, factor=tiny)
    assert not unscaled.model.bias.grad.any()
    torch.testing.assert_close(scaled.model.bias.grad, torch.full((3,), tiny), rtol=1e-3, atol=0)


def test_an_overflow_changes_no_weight_and_halves_the_scale_until_it_fits() -> None:
    rig = Rig(DynamicLossScale("cpu", initial_scale=2.0**18))
    rig.step(1, factor=1e-3)
    before = rig.everything()
    factor = 8 * LARGEST_FLOAT16 / 2.0**16  # over 8 clips: it fits with a scale of 2**16, and with no larger one
    assert [rig.step(number, factor=factor) for number in (2, 3)] == [(True, True), (True, True)]
    assert equal(rig.everything(), before)
    assert rig.loss_scale.state()["scale"] == 2.0**16
    assert rig.step(4, factor=factor) == (False, False)
    assert not equal(rig.everything(), before)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_mere_overflow(poison: float) -> None:
    rig = Rig(DynamicLossScale("cpu"))
    rig.step(1)
    before = rig.everything()
    assert rig.step(2, factor=poison) == (True, False)
    assert equal(rig.everything(), before)


def test_without_a_scale_left_to_lower_an_overflow_is_a_fault() -> None:
    rig = Rig(DynamicLossScale("cpu", initial_scale=4.0))
    outcomes = [rig.step(number, factor=1e9) for number in range(1, 5)]
    assert outcomes == [(True, True), (True, True), (True, False), (True, False)]  # scales 4, 2, 1 and 0.5


def test_the_scale_doubles_after_enough_steps_in_a_row() -> None:
    rig = Rig(DynamicLossScale("cpu", initial_scale=8.0, growth_interval=3))
    scales = []
    for number in range(1, 10):
        rig.step(number, factor=1e9 if number == 5 else 1.0)
        scales.append(rig.loss_scale.state()["scale"])
    assert scales == [8.0, 8.0, 16.0, 16.0, 8.0, 8.0, 8.0, 16.0, 16.0]


def test_a_resumed_run_scales_as_one_that_was_never_stopped() -> None:
    whole = DynamicLossScale("cpu", initial_scale=8.0, growth_interval=3)
    rig = Rig(whole)
    for number in (1, 2, 3, 4, 5):
        rig.step(number)
    assert whole.state() == {"scale": 16.0, "growth_tracker": 2.0}
    resumed = DynamicLossScale("cpu", growth_interval=3)
    resumed.load_state(whole.state())
    assert resumed.state() == whole.state()
    for loss_scale in (whole, resumed):
        rig.loss_scale = loss_scale
        rig.step(6)
        assert loss_scale.state() == {"scale": 32.0, "growth_tracker": 0.0}
        rig.step(7, factor=1e9)
        assert loss_scale.state() == {"scale": 16.0, "growth_tracker": 0.0}


def test_a_state_can_be_taken_and_given_before_and_after_the_first_step() -> None:
    fresh = DynamicLossScale("cpu", initial_scale=8.0)
    assert fresh.state() == {"scale": 8.0, "growth_tracker": 0.0}
    used = DynamicLossScale("cpu")
    Rig(used).step(1)
    used.load_state(fresh.state())
    assert used.state() == {"scale": 8.0, "growth_tracker": 0.0}
    used.load_state({})  # of a run that was in another precision
    assert used.state()["scale"] == 8.0


def test_only_float16_is_scaled() -> None:
    for dtype in (None, torch.bfloat16):
        assert isinstance(build_loss_scale(ComputeDevice(torch.device("cpu"), dtype)), NoLossScale)
    assert isinstance(build_loss_scale(ComputeDevice(torch.device("cpu"), torch.float16)), DynamicLossScale)


def test_without_scaling_a_loss_is_what_it_was() -> None:
    loss_scale, loss = NoLossScale(), torch.tensor(float("inf"))
    assert loss_scale.scale(loss) is loss
    assert not bool(loss_scale.update(loss))
    assert loss_scale.state() == {}


def test_nothing_in_a_step_asks_the_device_for_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(DynamicLossScale("cpu"))
    rig.step(1)
    loss = rig.model(torch.ones(1, 4)).mean()

    def forbid(tensor: Tensor, *_: object) -> None:
        raise AssertionError("the device would be waited for")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "__bool__", "__float__"):
            patch.setattr(torch.Tensor, name, forbid)
        rig.loss_scale.scale(loss).backward()
        rig.loss_scale.unscale(rig.optimizer)
        rig.loss_scale.update(loss.detach())
