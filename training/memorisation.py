"""Compares generated clips with the training clips they may have been copied from."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from common.errors import UserError
from data.records import Batch, ClipSource
from evaluation.memorisation import nearest_distances, pick_for_comparison, small_copies
from evaluation.motion import to_unit_range

COMPARED_CLIPS = 256
SCANNED_CLIPS = 4096  # of a larger data set, only the first so many clips may be picked


class TrainingComparison:
    """Holds small copies of some training clips; they are loaded when they are first needed.

    Only clips of held-out prompts are compared, where there are any: a clip of a word that was trained on is rightly
    near that word's training clips, and real validation clips, whose captions are held out, have no such neighbours.
    """

    def __init__(
        self, training: ClipSource, prompts: Sequence[str], held_out: Sequence[bool], validation: Batch
    ) -> None:
        """`held_out` says of each prompt whether no training clip shows it; `validation` holds the real clips."""
        self._training = training
        self._compared = [index for index, is_held_out in enumerate(held_out) if is_held_out] or list(
            range(len(prompts))
        )
        self._prompts = [prompts[index] for index in self._compared]
        self._validation = validation

    def measures(self, generated_NCTHW: Tensor) -> Mapping[str, float]:
        """Return the distances by the names of their tags, for a clip a prompt; empty without clips to compare with."""
        if not self._copies.shape[0]:
            return {}
        distance = nearest_distances(small_copies(generated_NCTHW[self._compared]), self._copies).mean().item()
        return {"Nearest_Training_Distance": distance, "Nearest_Training_Distance_Real": self._real_distance}

    @cached_property
    def _copies(self) -> Tensor:
        rows = [self._training.row(0, index) for index in range(min(len(self._training), SCANNED_CLIPS))]
        # A small data set may validate on training clips. They would be at 0 from themselves.
        rows = [row for row in rows if row.id not in self._validation.ids]
        picked = pick_for_comparison([row.caption for row in rows], self._prompts, COMPARED_CLIPS)
        found = []
        for index in picked:
            try:
                clip = self._training.load(rows[index])
            except UserError:  # its file has gone, which the training loop reports in its turn
                continue
            found.append(small_copies(to_unit_range(torch.from_numpy(clip))[None]))
        return torch.cat(found) if found else torch.empty(0, 0)

    @cached_property
    def _real_distance(self) -> float:
        return nearest_distances(small_copies(self._validation.video_BCTHW), self._copies).mean().item()
