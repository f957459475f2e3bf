import numpy
import pytest

from common.errors import UserError
from data.fingerspelling.drawing import compose_word, render_word
from data.fingerspelling.lexicon import available_languages, language_entries, read_recording
from data.fingerspelling.source import load_letters
from data.fingerspelling.timing import spelled_time, time_letters


def test_twenty_languages_are_recorded():
    assert len(available_languages()) == 20
    assert {"ase", "gss", "ise", "tsm"} <= set(available_languages())


def test_american_letters_are_the_alphabet():
    assert "".join(entry.symbol for entry in language_entries("ase")) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def test_an_unknown_language_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"SIGNED_LANGUAGE='xx'.*ase, asq, bzs"):
        language_entries("xx")


@pytest.mark.parametrize("language", available_languages())
def test_every_letter_of_every_language_composes_and_draws(language):
    alphabet, letters = load_letters(language)
    assert set(letters) == set(alphabet.symbols)
    for symbol, letter in letters.items():
        assert alphabet.segment(symbol) == (symbol,)
        assert not letter.is_moving or 0.25 < letter.recorded_seconds < 1.2
        motion = compose_word([letter, letter], time_letters(spelled_time((symbol, symbol), letters), 4))
        assert numpy.isfinite(motion.hands).all()
        assert motion.visible.any(1).all()
        used = motion.hands[:, motion.visible[0]][..., :2]
        assert numpy.abs(used).max() < 0.58  # the window ends at 0.5, and doubled letters slide
        assert render_word(motion, (16, 16)).std() > 4  # something is to be seen


def test_depth_is_relative_to_the_wrist_and_in_canvas_units():
    (entry,) = (entry for entry in language_entries("ase") if entry.symbol == "I")
    hand = read_recording(entry).hands[10, 0]
    assert hand[0, 2] == 0
    bones = numpy.linalg.norm(numpy.diff(hand[[0, 5, 9, 13, 17]], axis=0), axis=-1)
    assert bones.max() < 80  # with depth in other units, bones would be far longer than in the picture
    assert 5 < numpy.ptp(hand[:, 2]) < 120


def test_two_handed_alphabets_use_both_hands_and_left_handed_signers_the_left():
    assert load_letters("tsm")[1]["A"].visible.tolist() == [True, True]
    assert load_letters("ise")[1]["A"].visible.tolist() == [False, True]
    assert load_letters("ase")[1]["A"].visible.tolist() == [True, False]
