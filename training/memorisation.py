"""Compares generated clips with the training clips they may have been copied from."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from common.errors import UserError
from data.records import ClipSource
from evaluation.memorisation import nearest_distance, pick_for_comparison, small_copies
from evaluation.motion import to_unit_range

COMPARED_CLIPS = 256
SCANNED_CAPTIONS = 4096  # of a larger data set, only the first so many clips may be picked


class TrainingComparison:
    """Holds small copies of some training clips; they are loaded when they are first needed."""

    def __init__(self, training: ClipSource, prompts: Sequence[str], held_out_video_NCTHW: Tensor) -> None:
        """`held_out_video_NCTHW`: real clips that are not trained on, in [-1, 1]: how far real clips are from these."""
        self._training = training
        self._prompts = prompts
        self._held_out_video = held_out_video_NCTHW

    def measures(self, generated_NCTHW: Tensor) -> Mapping[str, float]:
        """Return the distances by the names of their tags; empty where no training clip can be loaded."""
        if not self._copies.shape[0]:
            return {}
        distance = nearest_distance(small_copies(generated_NCTHW), self._copies)
        return {"Nearest_Training_Distance": distance, "Nearest_Training_Distance_Real": self._real_distance}

    @cached_property
    def _copies(self) -> Tensor:
        scanned = range(min(len(self._training), SCANNED_CAPTIONS))
        captions = [self._training.row(0, index).caption for index in scanned]
        copies = [self._copy(index) for index in pick_for_comparison(captions, self._prompts, COMPARED_CLIPS)]
        found = [copy for copy in copies if copy is not None]
        return torch.cat(found) if found else torch.empty(0, 0)

    def _copy(self, index: int) -> Tensor | None:
        try:
            clip = self._training.load(self._training.row(0, index))
        except (
            UserError
        ):  # its file has gone: one clip less to compare with, which the training loop reports in its turn
            return None
        return small_copies(to_unit_range(torch.from_numpy(clip))[None])

    @cached_property
    def _real_distance(self) -> float:
        return nearest_distance(small_copies(self._held_out_video), self._copies)
