"""The loss by timestep since the launch began, in bounded memory."""

import numpy

from logging_system.binned import BinSums

MAXIMUM_COLUMNS = 120
CLIPS_A_BIN = 4  # in a finished column, on average: fewer would leave holes where by chance no clip was drawn


class LossHistory:
    """Columns of sums and counts, each of as many log points as it takes to fill it.

    When the columns are too many, neighbours are joined in pairs, and later columns are to hold twice as much.
    """

    def __init__(self, first_step: int) -> None:
        self._clips_a_bin = CLIPS_A_BIN
        self._edges = [float(first_step)]  # column i covers the steps after edges[i], up to edges[i + 1]
        self._columns: list[BinSums] = []

    @property
    def has_columns(self) -> bool:
        return bool(self._columns)

    def append(self, step: int, sums: BinSums) -> None:
        """Add what was accumulated up to and including `step`. Nothing is added when no step has passed."""
        if step <= self._edges[-1]:
            return
        if self._columns and self._columns[-1].counts.sum() < self._clips_a_bin * len(sums.counts):
            self._edges[-1] = float(step)
            self._columns[-1] = _join(self._columns[-1], sums)
            return
        self._edges.append(float(step))
        self._columns.append(sums)
        if len(self._columns) > MAXIMUM_COLUMNS:
            self._join_pairs()

    def _join_pairs(self) -> None:
        pairs = range(0, len(self._columns) - 1, 2)
        joined = [_join(self._columns[index], self._columns[index + 1]) for index in pairs]
        odd = self._columns[2 * len(joined) :]
        self._edges = [
            self._edges[0],
            *(self._edges[index + 2] for index in pairs),
            *([self._edges[-1]] if odd else []),
        ]
        self._columns = joined + odd
        self._clips_a_bin *= 2

    def step_edges(self) -> numpy.ndarray:
        """[columns + 1] float64, strictly increasing."""
        return numpy.array(self._edges)

    def means(self) -> numpy.ndarray:
        """[bins, columns] float64, from little noise to much and from old to new; NaN where there was no clip."""
        return numpy.stack([column.means for column in self._columns], axis=1)


def _join(first: BinSums, second: BinSums) -> BinSums:
    return BinSums(first.sums + second.sums, first.counts + second.counts)
