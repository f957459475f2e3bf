"""Seeds are pure functions of their arguments, the same on every machine and in every version."""

import hashlib
import itertools

import numpy
import torch

from common.randomness import derive_seed, numpy_generator, torch_generator


def test_seed_is_the_first_63_bits_of_the_hash() -> None:
    digest = hashlib.blake2b(b"7/training_noise/1207/3", digest_size=8).digest()
    expected = sum(byte << (8 * place) for place, byte in enumerate(reversed(digest))) // 2
    assert derive_seed(7, "training_noise", 1207, 3) == expected


def test_frozen_values() -> None:
    """A change here would change every run and every split: old checkpoints could not be resumed exactly."""
    assert derive_seed(0, "training_noise") == 6_978_527_850_595_288_688
    assert derive_seed(0, "training_noise", 1) == 4_611_424_585_582_521_713
    assert derive_seed(2**63 - 1, "split", 0, 5) == 6_146_374_922_080_788_974
    assert torch_generator(0, "training_noise", 1).initial_seed() == 4_611_424_585_582_521_713
    assert torch.rand(2, generator=torch_generator(0, "training_noise", 1)).tolist() == [
        0.48305290937423706,
        0.6335526704788208,
    ]
    assert numpy_generator(0, "training_noise", 1).integers(0, 1000, 4).tolist() == [532, 321, 150, 886]


def test_every_argument_matters() -> None:
    seeds = [
        derive_seed(seed, purpose, *indices)
        for seed, purpose, indices in itertools.product(
            range(5), ("noise", "timesteps", "nois"), ((), (0,), (1,), (11,), (1, 1), (0, 0), (1, 0), (0, 1))
        )
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_neighbouring_steps_look_independent() -> None:
    seeds = [derive_seed(0, "noise", step) for step in range(4000)]
    share_of_ones = [sum(seed >> bit & 1 for seed in seeds) / len(seeds) for bit in range(63)]
    assert max(abs(share - 0.5) for share in share_of_ones) < 0.05  # six standard deviations


def test_generators_repeat_and_leave_the_global_state_alone() -> None:
    torch_before, numpy_before = torch.get_rng_state(), numpy.random.get_state()[1].copy()
    first, again = (torch.randn(8, generator=torch_generator(3, "noise", 5)) for _ in range(2))
    other = torch.randn(8, generator=torch_generator(3, "noise", 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    a, b = (numpy_generator(3, "noise", 5).normal(size=8) for _ in range(2))
    assert numpy.array_equal(a, b)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert numpy.array_equal(numpy.random.get_state()[1], numpy_before)
    assert torch_generator(3, "noise").device.type == "cpu"
