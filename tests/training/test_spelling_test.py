"""The live letter error rate, with a generator whose spelling is known."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import main
from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit
from data.lengths import ClipLengths
from data.records import ClipRow, FixedClips
from measures.clips import to_unit_range
from training.showcase import SpellingTest

WORDS = ("A", "BC", "CAB")


class LookingUp:
    """Reads a clip by comparing it with those of the words that exist."""

    def __init__(self, clips: dict[str, Tensor]) -> None:
        self._clips = clips

    def read(self, clips: Sequence[Tensor], marks: Sequence[str]) -> list[tuple[str, ...]]:
        assert set(marks) <= {""}
        return [tuple(next(word for word, known in self._clips.items() if torch.equal(clip, known))) for clip in clips]


class Spelling:
    """A generator that spells another word where it was told to, and expects of each as many frames as it has."""

    def __init__(self, clips: dict[str, Tensor], mistakes: dict[str, str]) -> None:
        self._clips, self._mistakes = clips, mistakes
        self.noises: list[Tensor] = []

    def frames(self, model: nn.Module, prompts: Sequence[str]) -> list[int]:
        return [self._clips[prompt].shape[1] for prompt in prompts]

    def initial_noise(self, frames: int, seed: int, *indices: int) -> Tensor:
        return torch.tensor([frames, seed, *indices])

    def sample(self, model: nn.Module, prompts: Sequence[str], noises: Sequence[Tensor], seed: int) -> list[Tensor]:
        self.noises += noises
        return [self._clips[self._mistakes.get(prompt, prompt)] for prompt in prompts]


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, Tensor]:
    _, letters = load_letters("ase")
    lengths = ClipLengths(12.0, 4, 32, is_natural=True)
    alphabets = Alphabets((Alphabet(tuple("ABC"), "en", "ase"),))
    renderer = WordRenderer(alphabets, letters, lengths, (16, 16), ClipCache(tmp_path, 10**6))
    return {word: to_unit_range(torch.from_numpy(renderer.clip(word, None))) for word in (*WORDS, "AB")}


def spelling_test(clips: dict[str, Tensor], sampler: Spelling) -> SpellingTest:
    split = WordSplit(Alphabets((Alphabet(tuple("ABC"), "en", "ase"),)), 3, 0.2, 0.1, seed=0)
    rows = tuple(ClipRow(word, word, clips[word].shape[1], len(word) / 3) for word in WORDS)
    pixels = tuple(((clips[word] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1) for word in WORDS)
    fixed = FixedClips(rows, pixels, torch.zeros(3, 1, dtype=torch.int64))
    return SpellingTest(recogniser=LookingUp(clips), sampler=sampler, split=split, validation=fixed, seed=7)


def test_a_generator_that_spells_right_is_at_the_ceiling(clips: dict[str, Tensor]) -> None:
    sampler = Spelling(clips, {})
    measures = spelling_test(clips, sampler).measures(nn.Identity())
    assert measures == {"Letter_Error_Rate": 0.0, "Real_Ceiling": 0.0, "Shuffled_Floor": pytest.approx(14 / 12)}
    # Three letters a second, twelve frames a second.
    assert [noise.tolist() for noise in sampler.noises] == [[4, 7, 2, 0], [8, 7, 2, 1], [12, 7, 2, 2]]


def test_mistakes_are_counted_by_letter(clips: dict[str, Tensor]) -> None:
    measures = spelling_test(clips, Spelling(clips, {"CAB": "AB", "BC": "A"})).measures(nn.Identity())
    assert measures["Letter_Error_Rate"] == pytest.approx((0 + 2 + 1) / 6)
    assert measures["Real_Ceiling"] == 0.0


@pytest.mark.slow
def test_a_run_has_the_rate_only_with_a_recogniser(
    small_arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--max-steps=1", "--log-every-steps=1"]
    assert main.main(small_arguments(*common, "--experiment-name=with", "--recogniser-steps=3")) == 0
    assert "Training the recogniser" in capsys.readouterr().out
    assert main.main(small_arguments(*common, "--experiment-name=without")) == 0
    assert (
        main.main(
            small_arguments(*common, "--experiment-name=no_videos", "--recogniser-steps=3", "--no-enable-video-logging")
        )
        == 0
    )
    assert "Training the recogniser" not in capsys.readouterr().out
    tags = {
        name: {
            json.loads(line)["tag"] for line in (tmp_path / "logs" / name / "metrics.jsonl").read_text().splitlines()
        }
        for name in ("with", "without", "no_videos")
    }
    wanted = {f"12_Generated_Samples/{name}" for name in ("Letter_Error_Rate", "Real_Ceiling", "Shuffled_Floor")}
    assert wanted <= tags["with"]
    assert wanted.isdisjoint(tags["without"] | tags["no_videos"])
