import json

import pytest

from common.errors import UserError
from training.resumed_data import data_differences


def entry(clip, caption="hello", sha256="0"):
    return {"clip": clip, "caption": caption, "sha256": sha256}


def report(training, validation=(), held_out=(), is_shared=False):
    return {
        "training": training,
        "validation": list(validation),
        "held_out_captions": list(held_out),
        "validation_shares_training_clips": is_shared,
    }


@pytest.fixture
def written(tmp_path):
    """The last launch trained on a and b, and validated on c."""
    content = report([entry("a", "hello"), entry("b", "bye")], [entry("c", "thanks")], ["thanks"])
    (tmp_path / "split.json").write_text(json.dumps(content))
    return tmp_path / "split.json"


def test_the_same_clips_make_no_difference(written):
    same = report([entry("b", "bye"), entry("a", "hello")], [entry("c", "thanks")], ["thanks"])
    assert data_differences(written, same) == ()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            [entry("a", "hello"), entry("b", "bye"), entry("d", "yes")],
            "1 of the training clips are new or have changed, 0",
        ),
        ([entry("a", "hello")], "0 of the training clips are new or have changed, 1"),
        ([entry("a", "hello"), entry("b", "bye", sha256="1")], "1 of the training clips are new or have changed, 1"),
    ],
)
def test_other_training_clips_are_said(written, training, message):
    (said,) = data_differences(written, report(training, [entry("c", "thanks")], ["thanks"]))
    assert message in said


def test_a_clip_that_was_trained_on_may_not_count_as_held_out(written):
    with pytest.raises(UserError, match="a would count as held out, but was trained on"):
        data_differences(written, report([entry("b", "bye")], [entry("a", "hello")]))


def test_nor_may_a_caption(written):
    with pytest.raises(UserError, match="'hello' would count as held out"):
        data_differences(written, report([entry("b", "bye")], [entry("c", "thanks")], ["hello", "thanks"]))


def test_a_caption_that_the_data_set_itself_has_on_both_sides_is_no_change(tmp_path):
    both = report([entry("a", "hello")], [entry("b", "hello")])
    (tmp_path / "split.json").write_text(json.dumps(both))
    assert data_differences(tmp_path / "split.json", both) == ()


def test_data_that_are_made_are_not_compared(tmp_path, written):
    assert data_differences(written, {"data": "fingerspelling"}) == ()
    (tmp_path / "made.json").write_text('{"data": "fingerspelling"}')
    assert data_differences(tmp_path / "made.json", report([entry("a")])) == ()
    assert data_differences(tmp_path / "absent.json", report([entry("a")])) == ()


def test_what_an_earlier_version_wrote_is_not_compared(tmp_path):
    (tmp_path / "split.json").write_text(json.dumps({"training": [{"file": "a.mp4", "caption": "hello"}]}))
    (said,) = data_differences(tmp_path / "split.json", report([entry("a.mp4")]))
    assert "cannot be compared" in said


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "split.json").write_text(content)
    with pytest.raises(UserError, match=r"split\.json"):
        data_differences(tmp_path / "split.json", report([entry("a")]))
