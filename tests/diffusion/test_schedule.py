"""The noise of each timestep, and the timesteps that are drawn."""

import math

import numpy
import pytest
import torch

from diffusion.schedule import build_noise_schedule, evenly_spaced_timesteps, stratified_timesteps

NAMES = ["linear", "cosine", "sigmoid", "quadratic"]


def _rounded(values: numpy.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).float()


def test_linear_betas_are_those_of_ho_et_al() -> None:
    schedule = build_noise_schedule("linear", num_timesteps=1000, zero_terminal_snr=False)
    betas = numpy.linspace(1e-4, 0.02, 1000)
    torch.testing.assert_close(schedule.betas_N, _rounded(betas), rtol=1e-6, atol=0)
    torch.testing.assert_close(schedule.alphas_cumprod_N, _rounded(numpy.cumprod(1 - betas)), rtol=1e-6, atol=0)
    assert schedule.alphas_cumprod[-1] == pytest.approx(4.0358e-5, rel=1e-4)


def test_quadratic_betas() -> None:
    schedule = build_noise_schedule("quadratic", num_timesteps=1000, zero_terminal_snr=False)
    betas = numpy.linspace(math.sqrt(1e-4), math.sqrt(0.02), 1000) ** 2
    torch.testing.assert_close(schedule.betas_N, _rounded(betas), rtol=1e-6, atol=0)


def test_cosine_follows_the_closed_form_until_the_capped_last_step() -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=50, zero_terminal_snr=False)
    time = numpy.arange(0, 51) / 50
    power = numpy.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    numpy.testing.assert_allclose(schedule.alphas_cumprod[:-1], (power / power[0])[1:-1], rtol=1e-10)
    assert schedule.alphas_cumprod[-1] == pytest.approx(schedule.alphas_cumprod[-2] * 0.001, rel=1e-9)


def test_sigmoid_follows_the_closed_form_until_the_capped_last_step() -> None:
    schedule = build_noise_schedule("sigmoid", num_timesteps=50, zero_terminal_snr=False)
    time = numpy.arange(1, 50) / 50
    end, start = 1 / (1 + math.exp(-3)), 1 / (1 + math.exp(3))
    power = (end - 1 / (1 + numpy.exp(-(-3 + 6 * time)))) / (end - start)
    numpy.testing.assert_allclose(schedule.alphas_cumprod[:-1], power, rtol=1e-10)
    assert schedule.alphas_cumprod[-1] == pytest.approx(schedule.alphas_cumprod[-2] * 0.001, rel=1e-6)


@pytest.mark.parametrize("zero_terminal_snr", [False, True])
@pytest.mark.parametrize("num_timesteps", [2, 10, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_every_schedule_is_sound(name: str, num_timesteps: int, zero_terminal_snr: bool) -> None:
    schedule = build_noise_schedule(name, num_timesteps=num_timesteps, zero_terminal_snr=zero_terminal_snr)
    powers = numpy.array(schedule.alphas_cumprod)
    assert schedule.num_timesteps == num_timesteps == len(schedule.betas_N)
    assert (numpy.diff(powers) < 0).all()
    assert 0 < powers[0] < 1
    assert schedule.has_zero_terminal_snr is zero_terminal_snr
    assert (schedule.alphas_cumprod_N == 0).tolist() == [False] * (num_timesteps - 1) + [zero_terminal_snr]
    assert (schedule.betas_N > 0).all()
    assert (schedule.betas_N <= 1).all()
    assert schedule.sqrt_one_minus_alphas_cumprod_N.min() > 0
    for table in (schedule.betas_N, schedule.alphas_cumprod_N, schedule.sqrt_alphas_cumprod_N):
        assert table.dtype == torch.float32
    numpy.testing.assert_allclose(schedule.sqrt_one_minus_alphas_cumprod_N, numpy.sqrt(1 - powers), rtol=1e-7)
    numpy.testing.assert_allclose(schedule.sqrt_alphas_cumprod_N, numpy.sqrt(powers), rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_zero_terminal_snr_is_the_published_rescaling(name: str) -> None:
    plain = numpy.sqrt(build_noise_schedule(name, num_timesteps=100, zero_terminal_snr=False).alphas_cumprod)
    rescaled = build_noise_schedule(name, num_timesteps=100, zero_terminal_snr=True)
    expected = ((plain - plain[-1]) * plain[0] / (plain[0] - plain[-1])) ** 2
    numpy.testing.assert_allclose(rescaled.alphas_cumprod, expected, rtol=1e-10)
    assert rescaled.alphas_cumprod[-1] == 0
    assert rescaled.alphas_cumprod_N[-1] == 0
    assert rescaled.sqrt_one_minus_alphas_cumprod_N[-1] == 1
    assert rescaled.betas_N[-1] == 1


@pytest.mark.parametrize("zero_terminal_snr", [True, False])
@pytest.mark.parametrize("shift", [0.5, 3.0])
def test_a_shift_divides_every_signal_to_noise_ratio_by_its_square(shift: float, zero_terminal_snr: bool) -> None:
    arguments = {"num_timesteps": 100, "zero_terminal_snr": zero_terminal_snr}
    plain = numpy.array(build_noise_schedule("cosine", **arguments).alphas_cumprod)
    shifted = numpy.array(build_noise_schedule("cosine", **arguments, shift=shift).alphas_cumprod)
    numpy.testing.assert_allclose(shifted / (1 - shifted), plain / (1 - plain) / shift**2, rtol=1e-9)
    assert (shifted[-1] == 0) == zero_terminal_snr


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_shift_that_cannot_be_is_refused(shift: float) -> None:
    with pytest.raises(ValueError, match="shift must be a finite number above 0"):
        build_noise_schedule("cosine", num_timesteps=10, zero_terminal_snr=True, shift=shift)


def test_square_roots_keep_their_digits_at_the_first_timestep() -> None:
    schedule = build_noise_schedule("cosine", num_timesteps=10_000, zero_terminal_snr=False)
    exact = math.sqrt(1 - schedule.alphas_cumprod[0])
    in_float32 = (1 - schedule.alphas_cumprod_N[0]).sqrt().item()
    assert schedule.sqrt_one_minus_alphas_cumprod_N[0].item() == pytest.approx(exact, rel=1e-7)
    assert in_float32 != pytest.approx(exact, rel=1e-4)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="num_timesteps must be at least 2, not 1"):
        build_noise_schedule("cosine", num_timesteps=1, zero_terminal_snr=True)
    with pytest.raises(ValueError, match=r"unknown noise schedule 'cubic'; choose from linear"):
        build_noise_schedule("cubic", num_timesteps=10, zero_terminal_snr=True)  # type: ignore[arg-type]


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_one_draw_falls_into_each_stratum() -> None:
    for seed in range(50):
        timestep = stratified_timesteps(8, 1000, _generator(seed))
        assert timestep.dtype == torch.int64
        assert sorted((timestep // 125).tolist()) == list(range(8))


def test_the_order_is_random_so_that_micro_batches_are_mixed() -> None:
    first_strata = {int(stratified_timesteps(8, 1000, _generator(seed))[0]) // 125 for seed in range(100)}
    assert first_strata == set(range(8))


@pytest.mark.parametrize("count", [3, 7])  # neither divides 10: strata cut through timesteps
def test_every_timestep_is_equally_likely(count: int) -> None:
    generator, rounds = _generator(0), 6000
    drawn = torch.cat([stratified_timesteps(count, 10, generator) for _ in range(rounds)])
    share = torch.bincount(drawn, minlength=10) / len(drawn)
    assert len(share) == 10
    torch.testing.assert_close(share, torch.full((10,), 0.1), atol=0.006, rtol=0)


def test_more_draws_than_timesteps_cover_all_of_them_evenly() -> None:
    drawn = stratified_timesteps(100, 10, _generator(3))
    assert torch.bincount(drawn).tolist() == [10] * 10


def test_draws_depend_on_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    assert torch.equal(stratified_timesteps(16, 500, _generator(5)), stratified_timesteps(16, 500, _generator(5)))
    assert not torch.equal(stratified_timesteps(16, 500, _generator(5)), stratified_timesteps(16, 500, _generator(6)))
    assert torch.equal(before, torch.random.get_rng_state())


def test_evenly_spaced_timesteps_are_the_centres_of_bins() -> None:
    expected = [62, 187, 312, 437, 562, 687, 812, 937]
    assert evenly_spaced_timesteps(8, 1000).tolist() == expected
    assert evenly_spaced_timesteps(1, 10).tolist() == [5]
    assert evenly_spaced_timesteps(10, 10).tolist() == list(range(10))
    assert evenly_spaced_timesteps(4, 2).tolist() == [0, 0, 1, 1]


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"count \(0\)"):
        stratified_timesteps(0, 10, _generator(0))
    with pytest.raises(ValueError, match=r"num_timesteps \(0\)"):
        evenly_spaced_timesteps(1, 0)
