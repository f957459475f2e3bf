"""What is live of spelling and retrieval, with a generator whose clips are known."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor, nn

import main
from common.errors import UserError
from data.cache import ClipCache
from data.fingerspelling.source import WordRenderer, load_letters
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit
from data.lengths import ClipLengths
from data.records import ClipRow, FixedClips, as_video
from measures.retrieval import frame_pictures, moving_and_held
from training import showcase
from training.showcase import CaptionTest, RetrievalJudge, SpellingJudge

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
    return {word: as_video(torch.from_numpy(renderer.clip(word, None))) for word in (*WORDS, "AB")}


def fixed_clips(clips: dict[str, Tensor], words: Sequence[str]) -> FixedClips:
    rows = tuple(ClipRow(word, word, clips[word].shape[1], len(word) / 3) for word in words)
    pixels = tuple(((clips[word] + 1) * 127.5).round().to(torch.uint8).movedim(0, -1) for word in words)
    return FixedClips(rows, pixels, torch.zeros(len(words), 1, dtype=torch.int64))


def spelling_test(clips: dict[str, Tensor], sampler: Spelling) -> CaptionTest:
    split = WordSplit(Alphabets((Alphabet(tuple("ABC"), "en", "ase"),)), 3, 0.2, 0.1, seed=0)
    judge = SpellingJudge(LookingUp(clips), split, fixed_clips(clips, WORDS))
    return CaptionTest([judge], sampler, WORDS, seed=7)


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


class Splits:
    """A data set of the clips, whose first words are trained on; a file of one more has gone."""

    def __init__(self, clips: dict[str, Tensor], trained: Sequence[str]) -> None:
        self._clips = clips
        self._trained = (*trained, "gone")
        self.training = self

    def __len__(self) -> int:
        return len(self._trained)

    def row(self, epoch: int, index: int) -> ClipRow:
        return ClipRow(f"training {index}", self._trained[index], 4, 1.0)

    def load(self, row: ClipRow) -> numpy.ndarray:
        if row.caption == "gone":
            raise UserError("the file has gone")
        return self.real_clip(row.caption)

    def real_clip(self, caption: str) -> numpy.ndarray:
        return fixed_clips(self._clips, [caption]).pixels[0].numpy()


def retrieval_test(clips: dict[str, Tensor], mistakes: dict[str, str], trained: Sequence[str] = ("AB",)) -> CaptionTest:
    judge = RetrievalJudge(Splits(clips, trained), fixed_clips(clips, WORDS), seed=7)
    return CaptionTest([judge], Spelling(clips, mistakes), WORDS, seed=7)


def test_the_nearest_real_clip_says_what_a_generated_one_shows(clips: dict[str, Tensor]) -> None:
    measures = retrieval_test(clips, {}).measures(nn.Identity())
    assert measures["Retrieval_Top1"] == 1
    assert measures["Retrieval_Real_Ceiling"] > 0.6  # other looks of three clips, 16 pixels a side
    assert measures["Retrieval_Shuffled_Floor"] == pytest.approx(1 / 3)
    assert measures["Motion_Map_Agreement"] == pytest.approx(1)
    assert measures["Motion_Map_Agreement_Others"] < 0.95
    assert measures["Moving_Sharpness_Ratio"] == pytest.approx(1)


def test_frames_are_compared_with_those_of_real_clips_of_the_caption(clips: dict[str, Tensor]) -> None:
    measures = retrieval_test(clips, {}).measures(nn.Identity())
    assert measures["Moving_Frame_Distance"] == measures["Held_Frame_Distance"] == 0  # the very clips
    assert measures["Moving_Frame_Distance_Real"] > 0.01  # in another look
    mistaken = [clips["A"], clips["CAB"], clips["BC"]]
    found = RetrievalJudge(Splits(clips, ("AB",)), fixed_clips(clips, WORDS), seed=7).measures(mistaken)
    pairs = [moving_and_held(clip, frame_pictures(clips[word])) for clip, word in zip(mistaken, WORDS, strict=True)]
    moving, held = zip(*(pair for pair in pairs if pair is not None), strict=True)  # A alone does not move
    assert len(moving) == 2
    assert min(*moving, *held) > 0.1
    assert found["Moving_Frame_Distance"] == pytest.approx(numpy.mean(moving))
    assert found["Held_Frame_Distance"] == pytest.approx(numpy.mean(held))


def test_a_real_clip_from_the_recording_of_a_reference_is_shown_in_another_look(
    clips: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentences that are joined from signs have some in common, and are otherwise different."""

    class Joined(Splits):
        def real_clip(self, caption: str) -> numpy.ndarray:
            clip = super().real_clip(caption).copy()
            if caption == "A":
                return 255 - clip
            clip[1:] = 255 - clip[1:]  # the first frame is that of the clip that is asked for
            return clip

    shown: list[int] = []
    monkeypatch.setattr(showcase, "another_look", lambda clip, seed: shown.append(clip.shape[1]) or clip)
    judge = RetrievalJudge(Joined(clips, ["AB"]), fixed_clips(clips, WORDS), seed=7)
    assert "Retrieval_Real_Ceiling" in judge.measures([clips[word] for word in WORDS])
    assert shown == [clips[word].shape[1] for word in WORDS if word != "A"]


def test_clips_of_other_captions_are_told_from_those_asked_for(clips: dict[str, Tensor]) -> None:
    # AB is nobody's caption, but a training clip shows it: it is neither right, nor right when captions are shuffled.
    measures = retrieval_test(clips, {"CAB": "AB", "BC": "A"}).measures(nn.Identity())
    assert measures["Retrieval_Top1"] == pytest.approx(1 / 3)
    assert measures["Retrieval_Shuffled_Floor"] == pytest.approx(2 / 9)
    of_one = retrieval_test(clips, {"CAB": "A", "BC": "A"}).measures(nn.Identity())
    assert of_one["Retrieval_Top1"] == pytest.approx(1 / 3)
    assert of_one["Retrieval_Shuffled_Floor"] == pytest.approx(1 / 3)


def test_what_cannot_be_measured_has_no_figure(clips: dict[str, Tensor]) -> None:
    still = {word: clip[:, :1].expand_as(clip) for word, clip in clips.items()}
    judge = RetrievalJudge(Splits(still, ["A"]), fixed_clips(still, ["A"]), seed=7)
    assert judge.measures([still["A"]]) == {}


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
