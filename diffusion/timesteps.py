"""Which timesteps a batch is noised to."""

import torch
from torch import Tensor


def stratified_timesteps(count: int, num_timesteps: int, generator: torch.Generator) -> Tensor:
    """Draw training timesteps: int64 [count] on the CPU, in 0 to num_timesteps - 1.

    The range is cut into `count` equal strata and each gives one draw, in random order (Kingma et al. 2021,
    appendix I.1, describe such low-discrepancy draws). Every timestep has the same probability, and the loss varies
    less from step to step than with independent draws. Draw once for a whole accumulated batch: the random order
    gives each micro-batch a mixture.

    Args:
        generator: a CPU generator.

    Raises:
        ValueError: `count` or `num_timesteps` is below 1.
    """
    _check(count, num_timesteps)
    stratum = torch.randperm(count, generator=generator)
    offset = torch.rand(count, generator=generator, dtype=torch.float64)
    timestep = ((stratum + offset) / count * num_timesteps).long()
    return timestep.clamp(max=num_timesteps - 1)  # the product may round up to num_timesteps


def evenly_spaced_timesteps(count: int, num_timesteps: int) -> Tensor:
    """Return the centres of `count` equal bins, ascending: int64 [count] on the CPU, the same at every call.

    With more bins than timesteps, neighbouring bins share a centre.

    Raises:
        ValueError: `count` or `num_timesteps` is below 1.
    """
    _check(count, num_timesteps)
    return torch.tensor([(2 * index + 1) * num_timesteps // (2 * count) for index in range(count)], dtype=torch.int64)


def _check(count: int, num_timesteps: int) -> None:
    if count < 1 or num_timesteps < 1:
        raise ValueError(f"count ({count}) and num_timesteps ({num_timesteps}) must both be at least 1")
