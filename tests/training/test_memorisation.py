"""Comparing generated clips with a training set whose clips are known."""

import numpy
import pytest
import torch

from common.errors import UserError
from data.records import ClipRow, FixedClips
from training.showcase import COMPARED_CLIPS, TrainingComparison


class FlatClips:
    """Clip i is flat at grey level i, of 4, 8 or 12 frames; those in `gone` can no longer be loaded."""

    def __init__(self, count: int, gone: frozenset[int] = frozenset()) -> None:
        self.count, self.gone, self.loaded = count, gone, 0

    def __len__(self) -> int:
        return self.count

    def row(self, epoch: int, index: int) -> ClipRow:
        frames = 4 + 4 * (index % 3)
        return ClipRow(str(index), f"word {index % 7}", frames, frames / 12)

    def groups(self) -> None:
        return None

    def load(self, row: ClipRow) -> numpy.ndarray:
        self.loaded += 1
        if int(row.id) in self.gone:
            raise UserError(f"{row.id} has gone")
        return numpy.full((row.frames, 8, 8, 3), int(row.id) % 256, dtype=numpy.uint8)


def flat(*levels: float) -> list[torch.Tensor]:
    return [torch.full((3, 8 + 4 * place, 8, 8), level / 127.5 - 1) for place, level in enumerate(levels)]


def real(level: int, name: str = "validation") -> FixedClips:
    clip = torch.full((20, 8, 8, 3), level, dtype=torch.uint8)
    return FixedClips((ClipRow(name, "word", 20, 1.7),), (clip,), torch.zeros(1, 1, dtype=torch.int64))


def test_distances_of_generated_and_of_real_clips() -> None:
    comparison = TrainingComparison(FlatClips(11), ["word 1"], [False], real(60))
    measures = comparison.measures(flat(25))
    assert measures["Nearest_Training_Distance"] == pytest.approx(15 / 127.5, abs=1e-5)  # to level 10
    assert measures["Nearest_Training_Distance_Real"] == pytest.approx(50 / 127.5, abs=1e-5)


def test_clips_are_loaded_once_and_only_so_many() -> None:
    clips = FlatClips(2000)
    comparison = TrainingComparison(clips, ["word 1"], [False], real(0))
    assert clips.loaded == 0  # nothing before it is needed: a run without videos does not pay
    comparison.measures(flat(0))
    comparison.measures(flat(0))
    assert clips.loaded == COMPARED_CLIPS


def test_clips_that_have_gone_are_left_out_and_without_any_there_is_no_measure() -> None:
    some = TrainingComparison(FlatClips(11, gone=frozenset({10})), ["word 1"], [False], real(0))
    assert some.measures(flat(10))["Nearest_Training_Distance"] == pytest.approx(1 / 127.5, abs=1e-5)
    none = TrainingComparison(FlatClips(3, gone=frozenset({0, 1, 2})), ["word 1"], [False], real(0))
    assert none.measures(flat(0)) == {}


def test_only_held_out_prompts_are_compared_where_there_are_any() -> None:
    comparison = TrainingComparison(FlatClips(11), ["word 1", "new", "word 2"], [False, True, False], real(60))
    measures = comparison.measures(flat(0, 40, 1))  # the first and the last are copies, as words in training may be
    assert measures["Nearest_Training_Distance"] == pytest.approx(30 / 127.5, abs=1e-5)


def test_real_clips_that_are_trained_on_are_not_compared_with_themselves() -> None:
    comparison = TrainingComparison(FlatClips(11), ["word 1"], [False], real(10, name="10"))
    measures = comparison.measures(flat(10))
    assert measures["Nearest_Training_Distance_Real"] == pytest.approx(1 / 127.5, abs=1e-5)
