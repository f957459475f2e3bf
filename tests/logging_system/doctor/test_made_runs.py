"""Right, text-blind, copied, frozen, noisy and dissolved clips, measured as during training, get different findings."""

from collections.abc import Callable, Mapping, Sequence

import numpy
import pytest
import torch
from torch import Tensor, nn

from data.records import ClipRow, FixedClips, as_video
from logging_system.doctor.diagnosis import diagnose
from logging_system.files.scalar_history import ScalarHistory
from tests.evaluation.test_verdicts import CAPTIONS, FRAMES, RUNS, signed
from training.showcase import CaptionTest, RetrievalJudge, Showcase

Build = Callable[[Mapping[str, Mapping[int, float] | None]], ScalarHistory]
TRAINED, VALIDATED = 1, 2  # takes of each sign

RULES = {
    "right": set(),
    "text-blind": {"Text ignored", "Misread"},
    "copies": {"Memorisation"},
    "noise": {"Noisy samples", "Text ignored", "Misread"},
    "frozen": {"Frozen samples", "Text ignored", "Misread"},
    "dissolved": {"Hands dissolve"},
}


class Recorded:
    """A sampler whose clips are known."""

    def __init__(self, clips: Sequence[numpy.ndarray]) -> None:
        self._clips = {caption: as_video(torch.from_numpy(clip)) for caption, clip in zip(CAPTIONS, clips, strict=True)}

    def seconds(self, model: nn.Module, captions: Sequence[str]) -> list[float]:
        return [1.0] * len(captions)

    def frames(self, model: nn.Module, captions: Sequence[str]) -> list[int]:
        return [FRAMES] * len(captions)

    def initial_noise(self, frames: int, seed: int, *indices: int) -> Tensor:
        return torch.zeros(frames)

    def sample(self, model: nn.Module, captions: Sequence[str], noises: Sequence[Tensor], seed: int) -> list[Tensor]:
        return [self._clips[caption] for caption in captions]


class Signs:
    """A data set of ten signs, of which other takes are trained on than validated."""

    def __init__(self) -> None:
        self.training = self

    def __len__(self) -> int:
        return len(CAPTIONS)

    def row(self, epoch: int, index: int) -> ClipRow:
        return ClipRow(f"trained {index}", CAPTIONS[index], FRAMES, 1.0)

    def load(self, row: ClipRow) -> numpy.ndarray:
        return signed(row.caption, TRAINED)

    def real_clip(self, caption: str) -> numpy.ndarray:
        return signed(caption, VALIDATED)

    def is_held_out(self, caption: str) -> bool:
        return False


@pytest.mark.parametrize("name", RUNS)
def test_each_fault_has_its_own_finding(name: str, history_with: Build, config: dict[str, object]) -> None:
    splits, sampler = Signs(), Recorded(RUNS[name][0])
    validation = FixedClips(
        tuple(ClipRow(f"validated {caption}", caption, FRAMES, 1.0) for caption in CAPTIONS),
        tuple(torch.from_numpy(signed(caption, VALIDATED)) for caption in CAPTIONS),
        torch.zeros(len(CAPTIONS), 1, dtype=torch.int64),
    )
    showcase = Showcase(
        sampler=sampler,
        splits=splits,
        prompts=CAPTIONS,
        validation=validation,
        compute=None,
        caption_test=CaptionTest([RetrievalJudge(splits, validation, 0)], sampler, CAPTIONS, 0),
        frames_per_second=12.0,
        seed=0,
    )
    measures = showcase.generate(nn.Identity(), nn.Identity()).measures
    points = {
        f"12_Generated_Samples/{tag}": {900: value, 1200: value}
        for tag, value in measures.items()
        if tag != "Text_Sensitivity"  # the recorded clips know no noise
    }
    diagnosis = diagnose(history_with(points), config)
    assert {finding.rule for finding in (*diagnosis.problems, *diagnosis.warnings)} == RULES[name], measures
