from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from data.clip_splits import asks_for_unknown_words, content_key, split_clips, split_notices, units_of
from data.inspection import InspectedClip
from data.media.resample import MediaFacts
from data.rows import ManifestRow, Media, TimeSpan


def clip(number, caption="hello", signer=None, split=None, digest=None, span=None):
    media = Media("video", f"clip{number}.mp4", span or TimeSpan())
    row = ManifestRow(f"clip{number:03}", media, caption, signer, split)
    return InspectedClip(row, digest or str(number), "", MediaFacts(10, 10, 10, 1.0))


def ids(clips):
    return [clip.row.id for clip in clips]


def words(count):
    return [clip(number, f"word{number}") for number in range(count)]


def test_the_data_sets_own_split_comes_first():
    clips = [clip(number, split=split) for number, split in enumerate(["training", "validation", "test", None])]
    split = split_clips(clips, "auto", 0.5, 0)
    assert ids(split.training) == ["clip000", "clip003"]
    assert ids(split.held_out) == ["clip001"]
    assert ids(split.test) == ["clip002"]
    assert split.rule == "as the data set gives them"


@pytest.mark.parametrize("split_by", ["auto", "signer", "caption"])
def test_test_clips_are_never_trained_on(split_by):
    clips = [clip(number, f"word{number}", f"signer {number % 3}", "training") for number in range(9)]
    clips += [clip(number, f"word{number}", f"signer {number % 3}", "test") for number in range(9, 12)]
    split = split_clips(clips, split_by, 0.3, 0)
    assert ids(split.test) == ["clip009", "clip010", "clip011"]
    assert Counter(ids((*split.training, *split.held_out))) == Counter(ids(clips[:9]))


def test_a_data_set_without_validation_clips_is_divided_by_signers_where_they_are_named():
    named = [clip(number, f"word{number}", f"signer {number % 3}", "training") for number in range(9)]
    assert split_clips(named, "auto", 0.3, 0).rule.startswith("by signer")
    nameless = [clip(number, f"word{number}", None, "training") for number in range(9)]
    assert split_clips(nameless, "auto", 0.3, 0).rule.startswith("by caption")


def test_another_division_than_the_given_one_can_be_asked_for():
    clips = [clip(number, f"word{number}", split="training" if number else "validation") for number in range(40)]
    split = split_clips(clips, "caption", 0.3, 0)
    assert len(split.held_out) > 1
    assert split.rule.startswith("by caption")


def test_a_data_set_without_training_clips_is_an_error():
    with pytest.raises(UserError, match="none to training"):
        split_clips([clip(0, split="test"), clip(1, split="validation")], "auto", 0.5, 0)


def test_named_signers_are_held_out_unless_captions_are_asked_for():
    clips = [clip(number, f"word {number % 4}", signer=f"signer {number % 5}") for number in range(20)]
    split = split_clips(clips, "auto", 0.2, 0)
    assert len({clip.row.signer for clip in split.held_out}) == 1
    assert split.rule.startswith("by signer: signer ")
    assert split_clips(clips, "caption", 0.25, 0).rule.startswith("by caption: ")


def test_clips_without_a_signer_that_keep_others_from_being_held_out_are_said():
    clips = [
        clip(number, f"I see word{number}", signer=f"signer {number % 3}" if number else None) for number in range(9)
    ]
    split = split_clips(clips, "auto", 0.3, 0)
    assert split.rule.startswith("by caption")
    [said] = split_notices(split)
    assert said.text.startswith("clip000 names no signer, so captions are held out and not signers: name all of them")
    assert split_notices(split_clips(clips, "caption", 0.3, 0)) == ()
    one_signer = [clip(number, f"I see word{number}", signer="a" if number else None) for number in range(9)]
    assert split_notices(split_clips(one_signer, "auto", 0.3, 0)) == ()


@pytest.mark.parametrize("signers", [["a", None], ["a", "a"], [None, None]])
def test_signers_that_are_not_known_are_an_error_where_they_are_asked_for(signers):
    clips = [clip(number, f"word {number}", signer) for number, signer in enumerate(signers)]
    with pytest.raises(UserError, match="SPLIT_BY=signer needs a signer for every clip"):
        split_clips(clips, "signer", 0.5, 0)
    assert split_clips(clips, "auto", 0.5, 0).rule.startswith("by caption")


@pytest.mark.parametrize("seed", range(10))
def test_a_signer_of_most_clips_is_not_held_out(seed):
    clips = [clip(number, signer="a" if number < 90 else f"rare {number % 3}") for number in range(100)]
    assert "a" not in {clip.row.signer for clip in split_clips(clips, "auto", 0.1, seed).held_out}


def test_where_clips_that_show_the_same_join_all_signers_captions_are_held_out():
    clips = [clip(number, f"I see word{number}", "ab"[number % 2], digest=f"{max(2, number)}") for number in range(9)]
    split = split_clips(clips, "auto", 0.2, 0)
    assert split.rule.startswith("by caption: ")
    assert split.held_out
    assert not split.is_shared
    (said,) = split_notices(split)
    assert said.text.startswith(
        "clips that show the same join all signers, such as clip002 of a and clip001 of b, so captions are held out"
    )
    assert split_clips(clips, "signer", 0.2, 0).is_shared
    parts = [TimeSpan(0, 2), TimeSpan(1, 3)]
    overlapping = [
        clip(number, f"I see word{number}", "ab"[number], digest="x", span=parts[number]) for number in (0, 1)
    ]
    overlapping += [clip(number, f"I see word{number}", "ab"[number % 2]) for number in range(2, 9)]
    (said,) = split_notices(split_clips(overlapping, "auto", 0.2, 0))
    assert "such as clip000 of a and clip001 of b, so captions" in said.text
    third = [*clips, clip(9, "I see word9", "c")]
    assert split_clips(third, "auto", 0.2, 0).rule.startswith("by signer: ")
    one_caption = [clip(number, signer="ab"[number % 2], digest="x") for number in range(4)]
    split = split_clips(one_caption, "auto", 0.2, 0)
    assert split.is_shared
    assert split_notices(split) == ()


def test_signers_whose_spellings_differ_in_capitals_or_accents_alone_are_one():
    both = "J\u00fcrgen", "Ju\u0308RGEN"
    clips = [clip(number, f"I see word{number}", both[number % 2]) for number in range(9)]
    split = split_clips(clips, "auto", 0.2, 0)
    assert split.rule.startswith("by caption: ")
    assert [said.text for said in split_notices(split)] == [
        "Ju\u0308RGEN and J\u00fcrgen count as one signer: write a name in one way"
    ]
    clips += [clip(number, f"I see word{number}", ("Bo", "bo", "BO")[number % 3]) for number in range(9, 15)]
    split = split_clips(clips, "auto", 0.2, 0)
    sides = [{clip.row.signer.casefold()[0] for clip in part} for part in (split.training, split.held_out)]
    assert sorted(sides) == [{"b"}, {"j"}] or sorted(sides) == [{"j"}, {"b"}]
    (said,) = split_notices(split)
    assert said.text == "BO, Bo and bo count as one signer, and 1 more likewise: write a name in one way"
    assert split_notices(split_clips(clips, "caption", 0.2, 0)) == ()


def test_all_clips_of_one_caption_are_shared_and_said_so():
    split = split_clips([clip(0), clip(1)], "auto", 0.5, 0)
    assert split.is_shared
    assert split.training == split.held_out
    assert split.rule == "validation on training clips: all clips have the same caption"
    assert split_clips([clip(0)], "auto", 0.5, 0).rule == "validation on training clips: there is one clip"
    linked = split_clips([clip(0, "a", digest="x"), clip(1, "b", digest="x")], "auto", 0.5, 0)
    assert linked.rule == "validation on training clips: shared captions or pictures link all clips"


def test_about_the_wanted_share_of_the_captions_is_held_out():
    split = split_clips(words(2000), "caption", 0.1, 0)
    assert 150 < len(split.held_out) < 250
    assert split.rule == f"by caption: {len(split.held_out)} of 2000 captions held out"


@pytest.mark.parametrize(("captions", "least"), [(2, 1), (4, 1), (8, 2), (12, 3), (40, 3)])
def test_a_few_captions_are_held_out_in_any_case(captions, least):
    assert len(split_clips(words(captions), "caption", 0.001, 0).held_out) == least


def test_a_clip_more_or_less_moves_no_other_caption():
    clips = words(100)
    whole = set(ids(split_clips(clips, "caption", 0.2, 0).held_out))
    for missing in range(100):
        rest = clips[:missing] + clips[missing + 1 :]
        assert set(ids(split_clips(rest, "caption", 0.2, 0).held_out)) == whole - {clips[missing].row.id}


@pytest.mark.parametrize("seed", range(5))
def test_captions_that_differ_in_capitals_alone_stay_together(seed):
    clips = [clip(number, ("Good Morning", "good morning")[number % 2] + str(number // 2)) for number in range(40)]
    split = split_clips(clips, "caption", 0.3, seed)
    folded = [{each.row.caption.casefold() for each in part} for part in (split.training, split.held_out)]
    assert not folded[0] & folded[1]


def test_given_clips_that_show_the_same_as_a_training_clip_are_left_out_and_said():
    clips = [clip(0, split="training", digest="x"), clip(1, split="validation", digest="x")]
    with pytest.raises(UserError, match="1 validation clip, and each shows the same as a training clip"):
        split_clips(clips, "auto", 0.5, 0)
    split = split_clips([*clips, clip(2, split="validation"), clip(3, split="test", digest="x")], "auto", 0.5, 0)
    assert ids(split.held_out) == ["clip002"]
    assert ids(split.test) == []
    assert ids(split.left_out) == ["clip001", "clip003"]
    assert split_notices(split)[0].text == (
        "2 validation or test clips show the same as a training clip and are left out, such as clip001 (as clip000)"
    )


def test_parts_of_a_file_that_overlap_stay_together():
    spans = [TimeSpan(0, 2), TimeSpan(1, 3), TimeSpan(3, 4), TimeSpan(2.5, 2.8), TimeSpan(5)]
    clips = [clip(number, f"word{number}", digest="x", span=span) for number, span in enumerate(spans)]
    units = units_of(clips, lambda clip: clip.row.caption)
    assert [unit.names for unit in units] == [("word0", "word1", "word3"), ("word2",), ("word4",)]


def test_validation_on_words_that_training_does_not_have_is_said():
    apart = split_clips(words(10), "auto", 0.2, 0)
    count = len(apart.held_out)
    assert f"in {count} of {count} held-out captions occur in no training caption" in split_notices(apart)[0].text
    assert asks_for_unknown_words(apart)
    related = split_clips([clip(number, f"I see word{number}") for number in range(10)], "auto", 0.2, 0)
    assert split_notices(related) == ()
    assert not asks_for_unknown_words(related)
    other_case = split_clips([clip(0, "Word", split="training"), clip(1, "word", split="validation")], "auto", 0.2, 0)
    assert split_notices(other_case) == ()


def test_no_caption_of_signs_is_held_out():
    """Where the data set gives clips, or signers are held out, those of signs that training has are."""
    split = split_clips(words(10), "auto", 0.2, 0, are_signs=True)
    assert (len(split.training), split.held_out, split_notices(split)) == (10, (), ())
    assert "COMPOSE_SIGNS=3 trains on all signs" in split_notices(split_clips(words(10), "auto", 0.2, 0))[0].text
    trained = [clip(0, "Go", split="training"), clip(1, "home", split="training")]
    asked = [clip(2, "go", split="validation"), clip(3, "rain", split="validation")]
    given = split_clips([*trained, *asked], "auto", 0.2, 0, are_signs=True)
    assert [each.row.caption for each in given.held_out] == ["go"]
    signers = [clip(number, f"word{number % 2}", signer="ab"[number // 2]) for number in range(4)]
    by_signer = split_clips(signers, "auto", 0.2, 0, are_signs=True)
    assert {each.row.signer for each in by_signer.training} != {each.row.signer for each in by_signer.held_out}
    assert (len(by_signer.training), len(by_signer.held_out)) == (2, 2)


@pytest.mark.parametrize(
    ("trained", "held_out", "unknown"),
    [
        (["I like dogs.", "Hello!"], ["dogs", "hello"], False),  # punctuation and capitals are no words
        (["ice cream", "sun"], ["ice", "moon"], False),  # half of them can be known
        (["ice cream", "sun"], ["ice", "moon", "tea"], True),
        (["ice cream", "sun"], ["ice", "ice", "ice", "moon", "tea"], True),  # captions count, not clips
        (["the cat", "the dog"], ["the cow"], True),  # a word that all have makes no other one known
        (["I like the cat", "a dog"], ["I like the cow"], False),
        (["\u6211\u559c\u6b22\u732b"], ["\u732b"], False),  # "I like cats" and "cat" in Chinese, which has no spaces
        (["\u6211\u559c\u6b22\u732b"], ["\u72d7"], True),  # "dog"
    ],
)
def test_words_are_unknown_where_most_held_out_captions_share_none(trained, held_out, unknown):
    clips = [clip(number, caption, split="training") for number, caption in enumerate(trained)]
    clips += [clip(10 + number, caption, split="validation") for number, caption in enumerate(held_out)]
    split = split_clips(clips, "auto", 0.2, 0)
    assert len(split.held_out) == len(held_out)
    assert asks_for_unknown_words(split) == unknown
    assert bool(split_notices(split)) == unknown


clip_lists = st.lists(
    st.tuples(
        st.sampled_from("abcdefgABC"),
        st.sampled_from([None, "x", "y", "z"]),
        st.sampled_from([None, None, "training", "validation", "test"]),
        st.sampled_from([None, None, None, "p", "q"]),
        st.sampled_from([TimeSpan(), TimeSpan(0, 1), TimeSpan(1, 2), TimeSpan(0.5, 1.5)]),
    ),
    min_size=1,
    max_size=40,
)


@given(clip_lists, st.sampled_from(["auto", "caption", "signer"]), st.floats(0.01, 0.9), st.integers(0, 3))
def test_sides_are_disjoint_and_whole(facts, split_by, fraction, seed):
    clips = [clip(number, *fact) for number, fact in enumerate(facts)]
    try:
        split = split_clips(clips, split_by, fraction, seed)
    except UserError:
        return
    assert split.training
    assert split.held_out
    assert all(clip.row.split != "test" for clip in (*split.training, *split.held_out))
    trained = set(map(content_key, split.training))
    if not split.is_shared:
        parts = (*split.training, *split.held_out, *split.test, *split.left_out)
        assert Counter(ids(parts)) == Counter(ids(clips))
        assert not any(content_key(clip) in trained for clip in (*split.held_out, *split.test))
    if split.rule.startswith("by "):
        by_signer = split.rule.startswith("by signer")
        sides = [
            {clip.row.signer if by_signer else clip.row.caption.casefold() for clip in part}
            for part in (split.training, split.held_out)
        ]
        assert not sides[0] & sides[1]
    again = split_clips(clips[::-1], split_by, fraction, seed)
    assert again == split  # the order of files and lines means nothing
