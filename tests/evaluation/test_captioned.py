"""python -m evaluation on people's own clips, of every format: what it asks for, and what it compares."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy
import pytest

import evaluation.__main__ as program
from common.errors import UserError
from config import Config
from data.build import build_data
from data.clip_set import ClipSetSplits
from data.composing import ComposedSplits
from evaluation import captioned
from evaluation.captioned import (
    asked_captions,
    can_be_asked,
    default_captions,
    other_captions,
    real_clips,
    unseen_clips,
)
from evaluation.clips import Asked, TrainingHistory
from evaluation.evaluate import check_unchanged
from evaluation.metrics import MetricClips
from evaluation.spelled import Readings, sign_records
from measures.retrieval import shares_a_frame
from models.build import build_tokenizer
from sampling.trained_run import TrainedRun
from tests.data.formats import replicas
from tests.sources import ROOT


def opened(root: Path, **changes: object) -> ClipSetSplits | ComposedSplits:
    splits = build_data(
        Config(
            DATA_ROOT=root,
            CACHE_DIR=root.parent / "cache",
            IMAGE_SIZE=16,
            PATCH_SIZE=2,
            MAX_FRAMES=8,
            NUM_WORKERS=0,
            **changes,
        )
    )
    assert isinstance(splits, ClipSetSplits | ComposedSplits)
    return splits


def test_a_caption_with_several_clips_gives_its_first_as_the_query_and_its_only_clip_is_seen_again(
    tmp_path: Path,
) -> None:
    splits = opened(replicas.words_replica(tmp_path / "set", clips=7))
    counts = {caption: len(splits.real_clips(caption, 9)) for caption in ("hello", "see you", "good morning")}
    assert counts == {"hello": 2, "see you": 1, "good morning": 1}  # one "see you" is for testing
    more = ["nothing shows this", "good morning"]
    real = real_clips(splits, ["hello", "see you"], more, seed=0)
    assert [each.caption for each in real.references] == list(counts)
    assert [each.caption for each in real.queries] == ["hello", "see you"]  # the others only make it harder
    assert real.in_another_look == 1
    hello = splits.real_clips("hello", 2)
    assert numpy.array_equal(real.references[0].clip, hello[1])
    assert numpy.array_equal(real.queries[0].clip, hello[0])
    assert (
        real.queries[1].clip.shape != real.references[1].clip.shape
        or (real.queries[1].clip != real.references[1].clip).any()
    )


def test_trained_captions_are_asked_for_where_no_model_can_know_the_held_out_ones(tmp_path: Path) -> None:
    splits = opened(replicas.folder_replica(tmp_path / "set"), SPLIT_BY="caption")
    assert isinstance(splits, ClipSetSplits)
    held_out = [clip.row.caption for clip in splits.split.held_out]
    captions, reason = default_captions(splits, None, seed=0)
    assert captions == sorted(set(replicas.WORDS) - set(held_out))
    assert "no model can know" in reason
    assert default_captions(splits, "held_out", seed=0) == (sorted(held_out), "")
    assert default_captions(splits, "trained", seed=0) == (captions, "")
    assert other_captions(splits, captions, 9, seed=0) == held_out
    assert len(unseen_clips(splits, 9, seed=0)) == len(held_out)


def test_what_judges_see_of_a_caption_is_a_clip_that_they_did_not_learn_from_where_there_is_one(
    tmp_path: Path,
) -> None:
    for number, signer in enumerate(("ann", "bob", "eve", "joe")):
        for place, word in enumerate(("hello", "book")):
            replicas.write_clip(tmp_path / "set" / f"{signer}_{word}.mp4", 2 * number + place)
            (tmp_path / "set" / f"{signer}_{word}.txt").write_text(word)
    splits = opened(tmp_path / "set", SIGNER_FROM_FILE_NAME=True, VALIDATION_FRACTION=0.25)
    assert isinstance(splits, ClipSetSplits)
    (unseen,) = (clip for clip in splits.split.held_out if clip.row.caption == "book")
    real = real_clips(splits, ["book"], ["hello"], seed=0)
    assert numpy.array_equal(real.queries[0].clip, splits.reader.clip(unseen))
    assert splits.has_unseen_clip("Book")
    assert not splits.has_unseen_clip("walk")
    assert [each.caption for each in real.references] == ["book"] * 3 + ["hello"] * 3
    assert not any(numpy.array_equal(each.clip, real.queries[0].clip) for each in real.references)


def test_where_nothing_could_be_held_out_every_clip_is_a_trained_one(tmp_path: Path) -> None:
    for number in range(2):
        replicas.write_clip(tmp_path / "set" / f"{number}.mp4", number)
        (tmp_path / "set" / f"{number}.txt").write_text("hello")
    splits = opened(tmp_path / "set")
    assert isinstance(splits, ClipSetSplits)
    assert splits.split.is_shared
    assert len(splits.real_clips("hello", 9)) == 2  # each once, though it is validated on too
    assert not splits.has_unseen_clip("hello")
    assert default_captions(splits, None, seed=0) == (
        ["hello"],
        "Trained captions are asked for, because no clip could be held out.",
    )
    with pytest.raises(UserError, match=r"^--held-out: the data set was too small to hold any clip out; leave it out$"):
        default_captions(splits, "held_out", seed=0)


def test_sentences_that_share_a_recording_are_seen_in_another_look(tmp_path: Path) -> None:
    """Two takes of "hello" and one of "book": two clips of "hello book" differ, and both show the same book."""
    for number, word in enumerate(("hello", "hello", "book")):
        replicas.write_clip(tmp_path / "set" / f"{number}.mp4", number)
        (tmp_path / "set" / f"{number}.txt").write_text(word)
    splits = opened(tmp_path / "set", COMPOSE_SIGNS=2, EPOCH_SIZE=4, HELD_OUT_WORD_FRACTION=0.0)
    clips = splits.real_clips("hello book", 9)
    assert len(clips) == 2
    assert shares_a_frame(clips[0], clips[1:])
    assert not shares_a_frame(*(lambda first, *others: (first, others))(*splits.real_clips("hello", 9)))
    assert not splits.has_unseen_clip("hello book")
    real = real_clips(splits, ["hello book", "hello"], [], seed=0)
    assert real.in_another_look == 1
    assert len(real.queries) == 2
    assert not shares_a_frame(real.queries[0].clip, [each.clip for each in real.references])


def test_signs_are_drawn_from_the_whole_alphabet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioned, "SENTENCES_A_LENGTH", 3)
    splits = opened(replicas.folder_replica(tmp_path / "set"), COMPOSE_SIGNS=2, EPOCH_SIZE=4, MIN_FRAMES=4)
    drawn = {sign for seed in range(9) for sign in default_captions(splits, None, seed)[0][:3]}
    assert drawn == set(replicas.WORDS)


def test_sentences_are_asked_for_in_vain_where_none_is_held_out(tmp_path: Path) -> None:
    nothing = {"HELD_OUT_WORD_FRACTION": 0.0, "HELD_OUT_BIGRAM_FRACTION": 0.0}
    splits = opened(replicas.folder_replica(tmp_path / "set"), COMPOSE_SIGNS=2, EPOCH_SIZE=4, MIN_FRAMES=4, **nothing)
    captions, reason = default_captions(splits, None, seed=0)
    assert reason == "Trained sentences are asked for, because none is held out."
    assert captions[: len(replicas.WORDS)] == sorted(replicas.WORDS)
    assert len(captions) > len(replicas.WORDS)
    with pytest.raises(UserError, match=r"^--held-out: HELD_OUT_WORD_FRACTION=0.0 and .* hold out no sentence"):
        default_captions(splits, "held_out", seed=0)


def test_a_hundred_captions_are_drawn_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioned, "CAPTIONS_ASKED", 3)
    splits = opened(replicas.folder_replica(tmp_path / "set"), SPLIT_BY="caption")
    drawn = {seed: tuple(default_captions(splits, "trained", seed)[0]) for seed in range(6)}
    assert {len(captions) for captions in drawn.values()} == {3}
    assert len(set(drawn.values())) > 1
    assert all(list(captions) == sorted(captions) for captions in drawn.values())


def test_composed_sets_are_asked_for_their_signs_and_held_out_sentences(tmp_path: Path) -> None:
    splits = opened(replicas.folder_replica(tmp_path / "set"), COMPOSE_SIGNS=2, EPOCH_SIZE=4, MIN_FRAMES=4)
    captions, _ = default_captions(splits, None, seed=0)
    signs = [caption for caption in captions if not splits.is_held_out(caption)]
    assert sorted(signs) == sorted(replicas.WORDS)
    assert captions[: len(signs)] == signs
    assert len(captions) > len(signs)
    assert all(splits.is_held_out(caption) for caption in captions[len(signs) :])
    assert not set(default_captions(splits, "held_out", seed=0)[0]) & set(signs)
    trained = default_captions(splits, "trained", seed=0)[0]
    assert not any(splits.is_held_out(caption) for caption in trained)
    real = real_clips(splits, captions, [], seed=0)
    assert {each.caption for each in real.queries} == set(captions)


def test_a_set_that_has_changed_since_the_training_is_not_evaluated(tmp_path: Path) -> None:
    root = replicas.folder_replica(tmp_path / "set")
    (tmp_path / "run").mkdir()
    run = cast(TrainedRun, SimpleNamespace(folder=tmp_path / "run", config=SimpleNamespace(DATA_ROOT=root)))
    check_unchanged(run, opened(root))  # an early version wrote down nothing
    (tmp_path / "run" / "split.json").write_text(json.dumps(opened(root).summary.report))
    check_unchanged(run, opened(root))
    trained = opened(root).summary.report["training"]
    assert isinstance(trained, list)
    (root / trained[0]["clip"]).with_suffix(".txt").write_text("honey")
    with pytest.raises(
        UserError, match=r"1 training clip is new, gone or changed since .*split.json was written"
    ) as said:
        check_unchanged(run, opened(root))
    assert trained[0]["clip"] in str(said.value)


def test_a_caption_of_which_the_model_reads_nothing_is_not_asked_for(tmp_path: Path) -> None:
    config = Config(DATA_ROOT=tmp_path)
    run = cast(TrainedRun, SimpleNamespace(config=config, tokenizer=build_tokenizer(config, None), signs=None))
    assert [
        text for text in ("hello", "\N{WAVING HAND SIGN}", "hi \N{WAVING HAND SIGN}") if can_be_asked(run, text)
    ] == [
        "hello",
        "hi \N{WAVING HAND SIGN}",
    ]


def test_captions_that_differ_in_case_are_one_and_are_in_training_if_one_was() -> None:
    history = TrainingHistory(frozenset({"Hello", "book"}), (), 2)
    asked = asked_captions(["hello", "HELLO", "walk"], history)
    assert [(each.text, each.in_training, each.group) for each in asked] == [
        ("HELLO", True, "captions in training"),
        ("walk", False, "captions not in training"),
    ]


FORMATS = {
    "folder": replicas.folder_replica,
    "words": replicas.words_replica,
    "manifest": replicas.manifest_replica,
    "how2sign": replicas.how2sign_replica,
    "phoenix": replicas.phoenix_replica,
    "wlasl": replicas.wlasl_replica,
    "msasl": replicas.msasl_replica,
    "pose_lexicon": replicas.pose_lexicon_replica,
    "webdataset": replicas.webdataset_replica,
}


def evaluated(arguments: Callable[..., list[str]], root: Path, folder: Path, *more: str) -> dict:
    command = [sys.executable, "main.py", *arguments(f"--data-root={root}", "--max-steps=2", "--recogniser-steps=2")]
    command += [each for each in more if each.startswith("--compose")]
    finished = subprocess.run(command, capture_output=True, cwd=ROOT, text=True)
    assert finished.returncode == 0, finished.stderr
    output = folder / "report.json"
    options = [each for each in more if not each.startswith("--compose")]
    assert program.main([f"--run={folder / 'logs'}", f"--output={output}", "--samples-per-caption=1", *options]) == 0
    assert output.with_suffix(".png").exists()
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_evaluated(name: str, small_arguments: Callable[..., list[str]], tmp_path: Path) -> None:
    report = evaluated(small_arguments, FORMATS[name](tmp_path / "set"), tmp_path, "--trained")
    assert 0 <= report["retrieval_top1"] <= 1
    assert 0 < report["retrieval_real_ceiling"] <= 1
    assert 0 < report["retrieval_shuffled_floor"] < 1
    assert set(report["groups"]) <= {"captions in training", "captions not in training"}  # few steps show few clips
    assert [record["caption"] for record in report["captions"]]
    assert report["verdict"]


def difference(clips: MetricClips) -> dict[str, float]:
    """A metric of a user: mean difference of a clip's mean picture from that of the real clip of its caption."""
    means = [[video.mean(axis=0) for video in videos] for videos in (clips.clips, clips.real)]
    return {"difference": numpy.mean([abs(clip - real).mean() for clip, real in zip(*means, strict=True)])}


def test_captions_are_listed_by_how_much_of_them_is_misread() -> None:
    right, wrong = Asked("Hello", in_training=True), Asked("Thank You Bye", in_training=False)
    hello, sentence = ("hello",), ("thank you", "bye")
    read = [hello, hello, sentence, ("bye",)]
    real = [hello, hello, sentence, sentence]
    records = sign_records([right, right, wrong, wrong], real, Readings(read, real, [], []))
    assert records == [
        {
            "caption": "Thank You Bye",
            "signs": ["thank you", "bye"],
            "in_training": False,
            "word_error_rate": 0.25,  # one of four signs is missing
            "read": [["thank you", "bye"], ["bye"]],
            "real_read": [["thank you", "bye"]] * 2,
        },
        {
            "caption": "Hello",
            "signs": ["hello"],
            "in_training": True,
            "word_error_rate": 0.0,
            "read": [["hello"], ["hello"]],
            "real_read": [["hello"], ["hello"]],
        },
    ]


@pytest.mark.slow
def test_a_set_of_composed_sentences_has_a_word_error_rate(
    small_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    root = replicas.folder_replica(tmp_path / "set")
    metric = "--metric=tests.evaluation.test_captioned:difference"
    report = evaluated(small_arguments, root, tmp_path, "--compose-signs=2", metric)
    ((name, figures),) = report["metrics"].items()
    assert f"--metric={name}" == metric
    assert figures["difference"]["value"] > figures["difference"]["real_ceiling"] > 0
    assert report["word_error_rate"] >= 0
    assert report["real_ceiling"] >= 0
    assert report["real_ceiling"] <= 0.1 or "misreads" in report["about_word_error_rate"]
    assert "captions not in training" in report["groups"]
    listed = [{record["caption"] for record in report[name]} for name in ("signs_read", "captions")]
    assert listed[0] == listed[1]
    rates = [record["word_error_rate"] for record in report["signs_read"]]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("captions", "verdict"),
    [
        pytest.param(["same"] * 6, "Too few captions", id="one caption"),
        pytest.param([f"{number} " + "long " * 40 for number in range(6)], "", id="200 characters"),
        pytest.param(["one", "two"], "", id="two clips"),
    ],
)
def test_small_and_odd_sets_have_an_answer(
    captions: list[str], verdict: str, small_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    for number, caption in enumerate(captions):
        replicas.write_clip(tmp_path / "set" / f"{number}.mp4", number)
        (tmp_path / "set" / f"{number}.txt").write_text(caption, encoding="utf-8")
    report = evaluated(small_arguments, tmp_path / "set", tmp_path)
    assert verdict in " ".join(report["verdict"])


@pytest.mark.slow
def test_a_caption_that_no_clip_shows_is_named(
    small_arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = replicas.folder_replica(tmp_path / "set")
    evaluated(small_arguments, root, tmp_path, "--trained")
    (tmp_path / "captions.txt").write_text("hello\nhello book\n")
    asked = [f"--captions={tmp_path / 'captions.txt'}", f"--output={tmp_path / 'other.json'}"]
    assert program.main([f"--run={tmp_path / 'logs'}", *asked]) == 1
    assert "'hello book': no clip of the data set shows it" in capsys.readouterr().err
    (tmp_path / "captions.txt").write_text("Hello\nhello\n\nthank  you\nHELLO\n")
    assert program.main([f"--run={tmp_path / 'logs'}", *asked]) == 0
    report = json.loads((tmp_path / "other.json").read_text())
    assert [record["caption"] for record in report["captions"]] == ["Hello", "thank you"]
    assert program.main([f"--run={tmp_path / 'logs'}", *asked, "--trained"]) == 1
    assert "--trained: --captions says what is asked; leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_of_ten_thousand_captions_a_hundred_are_asked_for(
    small_arguments: Callable[..., list[str]], tmp_path: Path
) -> None:
    for number in range(8):
        replicas.write_clip(tmp_path / "set" / f"{number}.mp4", number)
    rows = [f"{number % 8}.mp4,sentence {number}" for number in range(10_000)]
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(["path,text", *rows]))
    report = evaluated(small_arguments, tmp_path / "set" / "manifest.csv", tmp_path)
    assert len(report["captions"]) == captioned.CAPTIONS_ASKED
    # Each clip has 1,250 captions, so that nothing tells them apart but chance.
    assert any(verdict.startswith("This data set cannot tell") for verdict in report["verdict"]), report["verdict"]
