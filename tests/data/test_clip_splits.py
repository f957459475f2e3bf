from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from data.clip_reader import InspectedClip
from data.clip_splits import split_clips, unseen_words_notice
from data.manifest import ManifestRow, Media
from data.media.clips import MediaFacts


def clip(number, caption="hello", signer=None, split=None):
    row = ManifestRow(f"clip{number}", Media("video", f"clip{number}.mp4"), caption, signer, split)
    return InspectedClip(row, str(number), "", MediaFacts(10, 10, 10, 1.0))


def ids(clips):
    return [clip.row.id for clip in clips]


def test_the_data_sets_own_split_comes_first():
    clips = [clip(number, split=split) for number, split in enumerate(["training", "validation", "test", None])]
    split = split_clips(clips, "auto", 0.5, 0)
    assert ids(split.training) == ["clip0", "clip3"]
    assert ids(split.validation) == ["clip1"]
    assert ids(split.test) == ["clip2"]
    assert split.rule == "as the data set gives them"


def test_without_validation_clips_captions_are_held_out_of_the_training_clips_and_the_test_stays_apart():
    clips = [clip(number, caption=f"word {number}", split="training") for number in range(10)]
    split = split_clips([*clips, clip(10, split="test")], "auto", 0.2, 0)
    assert len(split.training) == 8
    assert len(split.validation) == 2
    assert ids(split.test) == ["clip10"]


def test_a_data_set_without_training_clips_is_an_error():
    with pytest.raises(UserError, match="none to training"):
        split_clips([clip(0, split="test"), clip(1, split="validation")], "auto", 0.5, 0)


def test_named_signers_are_held_out_unless_captions_are_asked_for():
    clips = [clip(number, f"word {number % 4}", signer=f"signer {number % 5}") for number in range(20)]
    split = split_clips(clips, "auto", 0.2, 0)
    assert len({clip.row.signer for clip in split.validation}) == 1
    assert split.rule.startswith("by signer: signer ")
    assert split_clips(clips, "caption", 0.25, 0).rule == "by caption: 1 of 4 captions held out"


@pytest.mark.parametrize("signers", [["a", None], ["a", "a"], [None, None]])
def test_signers_that_are_not_known_are_an_error_where_they_are_asked_for(signers):
    clips = [clip(number, f"word {number}", signer) for number, signer in enumerate(signers)]
    with pytest.raises(UserError, match="SPLIT_BY=signer needs a signer for every clip"):
        split_clips(clips, "signer", 0.5, 0)
    assert split_clips(clips, "auto", 0.5, 0).rule.startswith("by caption")


@pytest.mark.parametrize("seed", range(10))
def test_a_signer_of_most_clips_is_not_held_out(seed):
    clips = [clip(number, signer="a" if number < 90 else f"rare {number % 3}") for number in range(100)]
    assert "a" not in {clip.row.signer for clip in split_clips(clips, "auto", 0.1, seed).validation}


def test_all_clips_of_one_caption_are_shared_and_said_so():
    split = split_clips([clip(0), clip(1)], "auto", 0.5, 0)
    assert split.is_shared
    assert split.training == split.validation


def test_validation_on_words_that_training_does_not_have_is_said():
    apart = split_clips([clip(number, f"word{number}") for number in range(10)], "auto", 0.2, 0)
    assert "no word of the validation captions occurs" in unseen_words_notice(apart)[0]
    related = split_clips([clip(number, f"see word{number}") for number in range(10)], "auto", 0.2, 0)
    assert unseen_words_notice(related) == ()
    other_case = split_clips([clip(0, "Word", split="training"), clip(1, "word", split="validation")], "auto", 0.2, 0)
    assert unseen_words_notice(other_case) == ()


clip_lists = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.sampled_from([None, "x", "y", "z"]), st.sampled_from([None, "training"])),
    min_size=1,
    max_size=40,
)


@given(clip_lists, st.sampled_from(["auto", "caption", "signer"]), st.floats(0.01, 0.9), st.integers(0, 3))
def test_sides_are_disjoint_and_whole(facts, split_by, fraction, seed):
    clips = [clip(number, *fact) for number, fact in enumerate(facts)]
    try:
        split = split_clips(clips, split_by, fraction, seed)
    except UserError:
        assert split_by == "signer"
        return
    assert split.training
    assert split.validation
    if split.is_shared:
        assert len({clip.row.caption for clip in clips}) == 1
        return
    assert Counter(ids((*split.training, *split.validation, *split.test))) == Counter(ids(clips))
    side = (lambda clip: clip.row.signer) if split.rule.startswith("by signer") else (lambda clip: clip.row.caption)
    assert not {side(clip) for clip in split.training} & {side(clip) for clip in split.validation}
    shuffled = split_clips(clips[::-1], split_by, fraction, seed)
    assert set(ids(shuffled.validation)) == set(ids(split.validation))  # the order of the files means nothing
