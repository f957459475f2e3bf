"""A measurement with how far it varied."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of repeated measurements."""

    median: float
    smallest: float
    largest: float
    repeats: int

    def text(self, digits: int, unit: str = "", factor: float = 1.0) -> str:
        """Return it for a table, every number times `factor`, such as 1000 to turn seconds into milliseconds.

        Without a unit where the head of the column names it.
        """
        median, smallest, largest = (
            f"{value * factor:.{digits}f}" for value in (self.median, self.smallest, self.largest)
        )
        return f"{median}{unit and ' '}{unit} ({smallest} to {largest})"


def spread_of(values: Sequence[float]) -> Spread:
    """Summarise at least one measurement."""
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio_of(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Summarise the ratios of two rows of measurements, pair by pair: those of one alternation belong together."""
    return spread_of([one / other for one, other in zip(above, below, strict=True)])
