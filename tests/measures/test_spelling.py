"""Letter error rates and confusions, counted by hand."""

import pytest

from measures.spelling import (
    error_counts,
    errors_against_others,
    exact_match_interval,
    letter_error_interval,
    letter_error_rate,
    letters_read,
    shuffled_letter_error_rate,
    top_confusions,
)

CAT, DOG, HI = tuple("CAT"), tuple("DOG"), tuple("HI")


@pytest.mark.parametrize(
    ("asked", "read", "errors"),
    [
        (CAT, CAT, 0),
        (CAT, tuple("CUT"), 1),  # substituted
        (CAT, tuple("CT"), 1),  # deleted
        (CAT, tuple("CAAT"), 1),  # inserted
        (CAT, (), 3),
        (HI, tuple("ABCDE"), 5),  # two substituted, three inserted
        (("SCH", "A"), ("SCH", "A"), 0),
        (("SCH", "A"), ("S", "C", "H", "A"), 3),  # one symbol of three characters is one letter
    ],
)
def test_errors_are_edits_of_symbols(asked: tuple[str, ...], read: tuple[str, ...], errors: int) -> None:
    assert error_counts([asked], [read]).tolist() == [errors]
    assert letter_error_rate([asked], [read]) == pytest.approx(errors / len(asked))


def test_spaces_are_no_letters() -> None:
    phrases, read = [tuple("HI CAT"), tuple("A B")], [tuple("HICUT"), tuple("AB")]
    assert error_counts(phrases, read).tolist() == [1, 0]
    assert letter_error_rate(phrases, read) == pytest.approx(1 / 7)
    assert letters_read(phrases, read)["A"] == (1, 2)
    assert " " not in letters_read(phrases, read)
    assert [(mistake.asked, mistake.read) for mistake in top_confusions(phrases, read, 9)] == [("A", "U")]
    assert errors_against_others(phrases, read)[2].tolist() == [[2, 5], [2, 5]]
    assert letter_error_interval(phrases, read, 0).value == pytest.approx(1 / 7)
    assert exact_match_interval(phrases, read, 0).value == pytest.approx(1 / 2)


def test_the_rate_counts_letters_not_clips() -> None:
    assert letter_error_rate([CAT, HI], [CAT, ()]) == pytest.approx(2 / 5)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError):
        error_counts([CAT], [])


def test_nothing_asked_for_is_refused() -> None:
    with pytest.raises(ValueError):
        letter_error_rate([], [])


def test_the_floor_compares_with_every_other_word() -> None:
    words, errors, letters = errors_against_others([CAT, DOG, HI], [CAT, tuple("DO"), HI])
    assert words == [CAT, DOG, HI]
    assert errors.tolist() == [[0, 3, 3], [3, 1, 2], [3, 3, 0]]
    assert letters.tolist() == [[3, 3, 2]] * 3
    # Off the diagonal: 3 + 3 + 3 + 2 + 3 + 3 errors of 3 + 2 + 3 + 2 + 3 + 3 letters.
    assert shuffled_letter_error_rate([CAT, DOG, HI], [CAT, tuple("DO"), HI]) == pytest.approx(17 / 16)


def test_the_floor_counts_every_clip_of_a_word_and_needs_another_word() -> None:
    assert shuffled_letter_error_rate([CAT, CAT, HI], [CAT, HI, HI]) == pytest.approx((3 + 0 + 3) / (2 + 2 + 3))
    assert shuffled_letter_error_rate([CAT, CAT], [CAT, HI]) is None


def test_the_commonest_confusions_come_first() -> None:
    confusions = top_confusions([CAT, CAT, HI, DOG], [tuple("CUT"), tuple("CUT"), tuple("H"), tuple("DOGS")], 3)
    assert (confusions[0].asked, confusions[0].read, confusions[0].count) == ("A", "U", 2)
    assert {(item.asked, item.read, item.count) for item in confusions[1:]} == {("I", None, 1), (None, "S", 1)}


def test_errors_side_by_side_are_errors_of_single_letters() -> None:
    confusions = top_confusions([CAT, ("SCH", "A")], [(), ("C", "H")], 9)
    found = {(item.asked, item.read): item.count for item in confusions}
    assert found == {("C", None): 1, ("A", None): 1, ("T", None): 1, ("SCH", "C"): 1, ("A", "H"): 1}


def test_letters_are_counted_one_by_one() -> None:
    counts = letters_read([CAT, CAT, HI, ("A", "A")], [CAT, tuple("CUT"), tuple("AHI"), ("A",)])
    assert counts == {"A": (2, 4), "C": (2, 2), "H": (1, 1), "I": (1, 1), "T": (2, 2)}


def test_a_sign_of_two_words_is_one_symbol() -> None:
    asked = [("thank you", "cat")]
    assert letter_error_rate(asked, [("thank you",)]) == 0.5
    assert letter_error_rate(asked, [("thank", "you", "cat")]) == 1.0
    assert letters_read(asked, [("thank you", "dog")]) == {"cat": (0, 1), "thank you": (1, 1)}
