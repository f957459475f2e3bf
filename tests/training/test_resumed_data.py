import json

import pytest

from common.errors import UserError
from training.resume import compare_data


def entry(clip, caption="hello", sha256=None, span=(0.0, None)):
    return {"clip": clip, "caption": caption, "sha256": sha256 or f"sha of {clip}", "span": list(span)}


def report(training, held_out=(), captions=(), test=(), is_shared=False):
    return {
        "training": training,
        "validation": list(held_out),
        "held_out": list(held_out),
        "test": list(test),
        "held_out_captions": list(captions),
        "validation_shares_training_clips": is_shared,
    }


A, B, C = entry("a", "hello"), entry("b", "bye"), entry("c", "thanks")


@pytest.fixture
def written(tmp_path):
    """The last launch trained on a and b, and validated on c."""
    (tmp_path / "split.json").write_text(json.dumps(report([A, B], [C], ["thanks"])))
    return tmp_path / "split.json"


def test_the_same_clips_make_no_difference(written):
    comparison = compare_data(written, report([A, B], [C], ["thanks"]))
    assert comparison.differences == ()
    assert comparison.formerly_trained == ()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ([A, B, entry("d", "yes")], "1 training clip is new or changed, 0"),
        ([A], "0 training clips are new or changed, 1"),
        ([A, entry("b", "bye", sha256="1")], "1 training clip is new or changed, 1"),
        ([A, entry("b", "bye", span=(0.0, 1.0))], "1 training clip is new or changed, 1"),
        ([A, entry("b", "goodbye")], "1 training clip is new or changed, 1"),
    ],
)
def test_other_training_clips_are_said(written, training, message):
    (said,) = compare_data(written, report(training, [C], ["thanks"])).differences
    assert message in said


def test_held_out_clips_that_are_trained_on_from_now_on_are_said(written):
    said = compare_data(written, report([A, B, C], [entry("d", "yes")], ["yes"])).differences
    assert any("1 clip that was held out is trained on from here on: c" in sentence for sentence in said)
    assert any("validation is on other clips" in sentence for sentence in said)


@pytest.mark.parametrize(
    ("held_out", "test"),
    [([A], []), ([C], [A]), ([entry("renamed", "thanks", sha256="sha of a")], [])],
    ids=["validation", "test", "under another name"],
)
def test_a_clip_that_was_trained_on_may_not_count_as_held_out(written, held_out, test):
    with pytest.raises(UserError, match="would count as held out, but was trained on"):
        compare_data(written, report([B], held_out, ["thanks"], test))


@pytest.mark.parametrize("caption", ["hello", "Hello"])
def test_nor_may_a_caption(written, caption):
    with pytest.raises(UserError, match=f"'{caption}' would count as held out"):
        compare_data(written, report([B], [C, entry("d", caption)], [caption, "thanks"]))


def test_what_an_earlier_launch_trained_on_is_not_forgotten_by_one_without_it(written):
    second = report([B], [C], ["thanks"])
    second["formerly_trained"] = compare_data(written, second).formerly_trained
    assert [each["clip"] for each in second["formerly_trained"]] == ["a"]
    written.write_text(json.dumps(second))
    with pytest.raises(UserError, match="a, 'hello' would count as held out"):
        compare_data(written, report([B], [A, C], ["hello", "thanks"]))
    assert compare_data(written, report([A, B], [C], ["thanks"])).formerly_trained == ()


def test_a_caption_that_the_data_set_itself_has_on_both_sides_is_no_change(tmp_path):
    both = report([entry("a", "hello")], [entry("b", "hello")])
    (tmp_path / "split.json").write_text(json.dumps(both))
    assert compare_data(tmp_path / "split.json", both).differences == ()


def test_data_that_are_made_are_not_compared(tmp_path, written):
    assert compare_data(written, {"data": "fingerspelling"}).differences == ()
    (tmp_path / "made.json").write_text('{"data": "fingerspelling"}')
    assert compare_data(tmp_path / "made.json", report([A])).differences == ()
    assert compare_data(tmp_path / "absent.json", report([A])).differences == ()


def test_what_an_earlier_version_wrote_is_not_compared(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"training": [{"file": "a.mp4", "caption": "hello"}]}))
    (said,) = compare_data(tmp_path / "split.json", report([A])).differences
    assert "cannot be compared" in said


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=r"split\.json"):
        compare_data(tmp_path / "split.json", report([A]))
