"""Power laws through measurements: how fast a quantity grows with a size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PowerLaw:
    """y = factor * x ** exponent; exponent 1 is proportional."""

    factor: float
    exponent: float


def fit_power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw:
    """Fit by least squares between the logarithms, so that every point counts by its relative error.

    Raises:
        ValueError: fewer than two different sizes, numbers of both that differ, or one that is not above 0.
    """
    if len(sizes) != len(values) or len(set(sizes)) < 2 or min(*sizes, *values) <= 0:
        raise ValueError(f"no power law through sizes {list(sizes)} and values {list(values)}")
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    variance = math.fsum((each - mean_x) ** 2 for each in x)
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    exponent = covariance / variance
    return PowerLaw(math.exp(mean_y - exponent * mean_x), exponent)


def largest_two_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the exponent between the two largest sizes alone, where constant costs weigh least.

    Raises:
        ValueError: as for :func:`fit_power_law`.
    """
    points = sorted(zip(sizes, values, strict=True))[-2:]
    return fit_power_law([size for size, _ in points], [value for _, value in points]).exponent
