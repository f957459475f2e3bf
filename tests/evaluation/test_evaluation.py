"""python -m evaluation on the checkpoint of a real run."""

import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

import evaluation.__main__ as program
import generate
from common.errors import UserError
from config import Config
from data.batches import BatchOrder, training_batches
from data.build import build_data
from data.fingerspelling import FingerspellingSplits
from data.sentences import Signs
from evaluation import clips, spelled
from evaluation.spelled import language_figures, read_clips
from measures.clips import at_equal_moments
from measures.recogniser import LetterRecogniser
from models.build import build_tokenizer
from models.tokens import CharacterTokenizer
from sampling.trained_run import SamplingRequest, as_captions, check_text, open_trained_run
from tests.sources import ROOT

FIGURES = {"letter_error_rate", "exact_match", "real_ceiling", "shuffled_floor", "text_sensitivity", "memorisation"}
FIGURES |= {"motion_energy_ratio", "hold_ratio", "sharpness_ratio", "chroma_ratio"}


def edits(asked: list[str], read: list[str]) -> int:
    """Count insertions, deletions and substitutions, by the definition."""

    @functools.cache
    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        replaced = distance(i - 1, j - 1) + (asked[i - 1] != read[j - 1])
        return min(replaced, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(asked), len(read))


@pytest.fixture(scope="module")
def words_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words") / "words.txt"
    path.write_text("A\ncab\nZQ\nGO ON\nLETTER\nCAB\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def evaluated(finished_run: Path, words_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("evaluation") / "new" / "report.json"
    options = [f"--run={finished_run}", f"--words={words_file}", "--samples-per-word=3", f"--output={output}"]
    assert program.main(options) == 0
    return output, json.loads(output.read_text(encoding="utf-8"))


def test_the_report_has_the_figures_with_their_intervals(evaluated: tuple[Path, dict]) -> None:
    _, report = evaluated
    assert report.keys() >= FIGURES
    assert report["intervals"].keys() >= FIGURES
    for name in FIGURES:
        low, high = report["intervals"][name]
        assert low <= report[name] <= high
    assert report["sampler"] == {
        "name": "dpm_solver++",
        "steps": 4,
        "guidance_scale": 2.0,
        "guidance_rescale": 0.0,
        "guidance_interval": [0.3, 1.0],
        "weights": "ema",
        "number_format": "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32",
    }
    assert report["seeds"] == {"run": 0, "evaluation": 0, "recogniser": 0}
    assert report["step"] == 3


def test_clips_are_read_one_by_one_as_they_are_all_together() -> None:
    torch.manual_seed(0)
    recogniser = LetterRecogniser("ABC")
    pixels = [torch.randint(256, (frames, 16, 16, 3), dtype=torch.uint8).numpy() for frames in (4, 8, 8, 12)]
    word = spelled.AskedWord("A", in_training=True, symbols=("A",), is_longer=False, bigrams_in_training=())
    readings = read_clips(
        recogniser, clips.EvaluationClips((word,) * 2, tuple(pixels[:2]), tuple(pixels[2:])), [("A",)] * 2
    )
    videos = [torch.from_numpy(clip).permute(3, 0, 1, 2) / 127.5 - 1 for clip in pixels]
    assert readings.generated == recogniser.read(videos[:2])
    assert readings.real == recogniser.read(videos[2:])
    assert readings.still == recogniser.read([video[:, [video.shape[1] // 2] * video.shape[1]] for video in videos[2:]])
    assert readings.mean == recogniser.read([at_equal_moments(videos[2:]).mean(dim=0)]) * 2


def test_words_come_once_in_their_order_each_with_all_its_clips(evaluated: tuple[Path, dict]) -> None:
    _, report = evaluated
    assert [record["word"] for record in report["words"]] == ["A", "CAB", "ZQ", "GO ON", "LETTER"]
    assert all(len(record["read"]) == len(record["real_read"]) == 3 for record in report["words"])


def test_the_rates_are_those_of_all_readings(evaluated: tuple[Path, dict]) -> None:
    """A space between words is no letter: nothing can read it."""
    _, report = evaluated
    records = report["words"]
    letters_of = {record["word"]: list(record["word"].replace(" ", "")) for record in records}

    def rate(field: str, of: list[dict]) -> float:
        errors = sum(edits(letters_of[record["word"]], read.split()) for record in of for read in record[field])
        return errors / sum(len(letters_of[record["word"]]) * len(record[field]) for record in of)

    assert report["letter_error_rate"] == pytest.approx(rate("read", records))
    assert report["real_ceiling"] == pytest.approx(rate("real_read", records))
    for record in records:
        assert record["letter_error_rate"] == pytest.approx(rate("read", [record]))
    exact = [read == " ".join(letters_of[record["word"]]) for record in records for read in record["read"]]
    assert report["exact_match"] == pytest.approx(sum(exact) / len(exact))
    others = [(one, other) for one in records for other in records if one is not other]
    errors = sum(edits(letters_of[other["word"]], read.split()) for one, other in others for read in one["read"])
    letters = sum(len(letters_of[other["word"]]) * len(one["read"]) for one, other in others)
    assert report["shuffled_floor"] == pytest.approx(errors / letters)
    groups = {record["word"]: record["group"] for record in records}
    assert groups["LETTER"] == "longer than in training"
    assert groups["GO ON"] != "longer than in training"
    for group, figures in report["groups"].items():
        members = [record for record in records if record["group"] == group]
        assert figures["words"] == len(members)
        assert figures["letter_error_rate"] == pytest.approx(rate("read", members))


def test_what_was_in_training_is_what_the_trainer_was_given(evaluated: tuple[Path, dict], finished_run: Path) -> None:
    _, report = evaluated
    run = open_trained_run(SamplingRequest(run=finished_run, device="cpu"))
    splits = build_data(run.config)
    order = BatchOrder(splits.training, run.config.frames_per_step, 0, 0)
    batches = training_batches(splits.training, order, num_workers=0, tokenize=build_tokenizer(run.config, None))
    shown = {caption for _ in range(3) for caption in next(batches).captions}
    held_out = json.loads((finished_run / "split.json").read_text())["held_out_words"]
    for record in report["words"]:
        word = record["word"]
        assert record["in_training"] == (word in shown)
        assert word not in held_out.get(str(len(word)), []) or not record["in_training"]
        pairs = [word[place : place + 2] for place in range(len(word) - 1)]
        assert record["bigrams_in_training"] == {pair: any(pair in other for other in shown) for pair in pairs}


def test_the_contact_sheet_has_two_rows_a_word(evaluated: tuple[Path, dict]) -> None:
    output, _ = evaluated
    sheet = Image.open(output.with_suffix(".png"))
    assert sheet.height == 2 * 5 * (96 + 6) - 6


@pytest.mark.slow
def test_the_same_seed_gives_the_same_report_and_another_one_another(
    evaluated: tuple[Path, dict], finished_run: Path, words_file: Path, tmp_path: Path
) -> None:
    _, report = evaluated
    options = [f"--run={finished_run}", f"--words={words_file}", "--samples-per-word=3"]
    assert program.main([*options, f"--output={tmp_path / 'again.json'}"]) == 0
    assert json.loads((tmp_path / "again.json").read_text()) == report
    assert program.main([*options, f"--output={tmp_path / 'other.json'}", "--seed=1"]) == 0
    assert json.loads((tmp_path / "other.json").read_text())["text_sensitivity"] != report["text_sensitivity"]


@pytest.mark.slow
def test_without_words_letters_and_held_out_words_are_asked_for(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(spelled, "WORDS_A_LENGTH", 4)
    output = tmp_path / "report.json"
    options = [f"--run={finished_run}", "--samples-per-word=1", "--steps=1", "--guidance-scale=1"]
    assert program.main([*options, f"--output={output}", f"--contact-sheet={tmp_path / 'sheet.png'}"]) == 0
    report = json.loads(output.read_text())
    words = [record["word"] for record in report["words"]]
    assert words[:26] == list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert [len(word) for word in words[26:]] == [2] * 4 + [3] * 4 + [4] * 4 + [5] * 4
    assert all(build_data(Config()).is_held_out(word) for word in words[26:])
    assert report["groups"].keys() == {"letters", "words not in training"}
    printed = capsys.readouterr().out
    assert "letter error rate" in printed
    assert "one recording of each letter" in printed
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("A\nC4B\n", "line 2: 'C4B': the run knows no '4'"),
        ("A\n\nB4\n", "line 3: 'B4': the run knows no '4'"),
        ("\n \n", "the file has no captions"),
        ("A\nABCDEFGHIJKL M\n", "line 2: 'ABCDEFGHIJKL M': 13 letters are too many; it can have 12"),
        ("", "the file has no captions"),
        (None, "cannot be read"),
        pytest.param("\n".join(map("".join, itertools.product("ABCDEFGHIJKLM", repeat=3))), "2197 captions", id="many"),
        pytest.param(b"\xff\xfe\x00", "is not UTF-8: save it again as UTF-8", id="not UTF-8"),
        pytest.param("A\nC4B".encode("utf-16"), "line 2: 'C4B': the run knows no '4'", id="UTF-16"),
    ],
)
def test_words_that_the_run_cannot_take_are_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert program.main([f"--run={finished_run}", f"--words={path}", f"--output={tmp_path / 'report.json'}"]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps=0"], "--steps 0: must be between"),
        (["--guidance-scale=nan"], "--guidance-scale nan"),
        (["--guidance-scale=101"], "--guidance-scale 101: must be between 0 and 100"),
        (["--sampler=magic"], "--sampler magic: choose from"),
        (["--contact-sheet=sheet.jpg"], "name a file that ends in .png"),
        (["--trained"], "--trained: the run spells words"),
        (["--metric=math:floor"] * 2, "--metric math:floor: named twice"),
        (["--output=report.png"], "--output report.png: the contact sheet goes there"),
        (["--output=/dev/null", "--contact-sheet=no.png"], "--output /dev/null: that is no file; name one"),
    ],
)
def test_bad_options_are_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert program.main([f"--run={finished_run}", f"--output={tmp_path / 'report.json'}", *options]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_the_captions_is_not_written_to(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "words.png"
    path.write_text("A\n")
    for options in ([f"--output={path}"], [f"--output={tmp_path / 'words.json'}"]):
        assert program.main([f"--run={finished_run}", f"--captions={path}", *options]) == 1
        assert "that is the file of the captions; name another one" in capsys.readouterr().err
    assert path.read_text() == "A\n"


def test_a_single_word_has_no_figures_that_compare_words(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("\ufeffcab\nCAB", encoding="utf-8")
    output = tmp_path / "report.json"
    assert program.main([f"--run={finished_run}", f"--words={tmp_path / 'words.txt'}", f"--output={output}"]) == 0
    report = json.loads(output.read_text())
    assert [record["word"] for record in report["words"]] == ["CAB"]
    assert report["shuffled_floor"] is report["text_sensitivity"] is report["mean_clip"] is None
    assert report["intervals"]["letter_error_rate"] is None
    assert report["letter_error_rate"] >= 0


def test_places_that_cannot_be_written_are_named(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([f"--run={finished_run}", f"--output={tmp_path}"]) == 1
    assert "that is a folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert program.main([f"--run={finished_run}", f"--output={tmp_path / 'file' / 'report.json'}"]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert program.main([f"--run={tmp_path / 'none'}", f"--output={tmp_path / 'report.json'}"]) == 1
    assert "there is no such folder" in capsys.readouterr().err


def test_a_language_is_for_finger_spelling(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--language gsg: it is for finger-spelling"):
        as_captions(["A"], "gsg", Config(DATA_ROOT=tmp_path), CharacterTokenizer(("A",), 8))


def test_a_language_is_named_once() -> None:
    tokenizer = CharacterTokenizer(("ase:A", "gsg:A", "gsg:S", " "), 8)
    assert as_captions(["A", "gsg"], "gsg", Config(), tokenizer) == ["gsg A", "gsg gsg"]
    with pytest.raises(UserError, match=r"--language gsg: 'gsg A' names a language itself; leave out one"):
        as_captions(["gsg A"], "gsg", Config(), tokenizer)
    with pytest.raises(UserError, match=r"SAMPLE_PROMPTS: 'GAS': .*begin with the code of one: ase, gsg"):
        check_text("SAMPLE_PROMPTS:", "GAS", Config(), tokenizer, None)
    with pytest.raises(UserError, match=r"'ase S': the run knows no 'S'; it knows: A$"):
        check_text("--text", "ase S", Config(), tokenizer, None)


def test_signs_that_the_run_does_not_know_are_named(tmp_path: Path) -> None:
    tokenizer, signs = CharacterTokenizer(tuple("adghlop "), 99), Signs({"go": "Go", "hop": "hop"})
    config = Config(DATA_ROOT=tmp_path / "clips", COMPOSE_SIGNS=2)
    check_text("--text", "go HOP go", config, tokenizer, signs)
    with pytest.raises(UserError, match=r"^--text 'go had' has words .* no known sign: 'had'\. Known: Go, hop\.$"):
        check_text("--text", "go had", config, tokenizer, signs)
    check_text("--text", "go " * 7 + "go", config, tokenizer, signs)
    with pytest.raises(UserError, match=r"^--text '(go ){8}go': 9 signs are too many; it can have 8$"):
        check_text("--text", "go " * 8 + "go", config, tokenizer, signs)


def test_languages_are_compared_where_both_can_show_the_word(tmp_path: Path) -> None:
    """The Italian bb is one letter, and two in American spelling, where seven are too many; fsl points to ase."""
    config = Config(SIGNED_LANGUAGE=("ase", "fsl", "ise"), CACHE_DIR=tmp_path, VALIDATION_CLIPS=2, EPOCH_SIZE=2)
    splits = build_data(config)
    assert isinstance(splits, FingerspellingSplits)
    renderer = splits.renderer

    def figures(*captions: str) -> dict:
        words = [renderer.alphabets.segment(caption) for caption in captions]
        asked = [spelled.AskedWord(text, True, word, False, ()) for text, word in zip(captions, words, strict=True)]
        real = tuple(renderer.render_look(word, 5) for word in words)
        return dict(language_figures(clips.EvaluationClips(tuple(asked), real, real), renderer, seed=0))

    assert figures("ise bbbbbbbbbbbbbb") == {"language_obeyed": None, "language_obeyed_real": None}
    assert figures("ise C")["language_obeyed_real"].value == 1


@pytest.mark.slow
def test_a_run_on_several_languages_is_asked_for_one_and_judged_in_each(
    small_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    arguments = small_arguments("--signed-language", "ase", "gsg", "--max-steps=2", "--recogniser-steps=2")
    subprocess.run([sys.executable, "main.py", *arguments], check=True, capture_output=True, cwd=ROOT)
    output = tmp_path / "report.json"
    words = tmp_path / "words.txt"
    words.write_text("A\nHU\n")
    asked = [f"--run={tmp_path / 'logs'}", f"--words={words}", f"--output={output}"]
    assert program.main([*asked, "--language=gsg"]) == 0
    report = json.loads(output.read_text(encoding="utf-8"))
    assert [record["word"] for record in report["words"]] == ["gsg A", "gsg HU"]
    assert report["words"][1]["symbols"] == ["gsg:H", "gsg:U"]
    assert all(letter.startswith("gsg:") for record in report["words"] for letter in " ".join(record["read"]).split())
    assert report["languages"].keys() == {"gsg"}
    assert report["languages"]["gsg"]["letter_error_rate"] == report["letter_error_rate"]
    assert 0 <= report["language_obeyed"] <= 1 == report["language_obeyed_real"]
    words.write_text("ase A\ngsg A\n")
    assert program.main(asked) == 0
    assert json.loads(output.read_text(encoding="utf-8"))["languages"].keys() == {"ase", "gsg"}
    video = tmp_path / "a.mp4"
    asked = [f"--run={tmp_path / 'logs'}", "--text=hallo", f"--output={video}"]
    assert generate.main([*asked, "--language=gsg"]) == 0
    assert video.exists()
    assert generate.main(asked) == 1
