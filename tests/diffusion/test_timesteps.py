import pytest
import torch

from diffusion.schedule import evenly_spaced_timesteps, stratified_timesteps


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
