import numpy
import pytest

from data.fingerspelling.composition import compose_word
from data.fingerspelling.source import load_letters


@pytest.fixture(scope="module")
def letters():
    return load_letters("ase")[1]


def right_hand(letters, word, num_frames=16):
    return compose_word([letters[symbol] for symbol in word], num_frames).hands[:, 0, :, :2]


def steps(hand):
    """Mean movement of the points from frame to frame."""
    return numpy.linalg.norm(numpy.diff(hand, axis=0), axis=-1).mean(1)


@pytest.mark.parametrize("word", ["CAB", "HEY", "LOW"])
def test_each_letter_is_held_in_its_own_frames(letters, word):
    hand = right_hand(letters, word, 18)
    for place, symbol in enumerate(word):
        alone = letters[symbol].hands[:, 0, :, :2].mean(0)
        for frame in range(6 * place + 1, 6 * place + 5):
            assert numpy.abs(hand[frame] - alone).mean() < 0.02


def test_nothing_moves_in_a_hold_but_much_between_letters(letters):
    movement = steps(right_hand(letters, "LOW", 18))
    holds = [*range(1, 4), *range(7, 10), *range(13, 16)]
    assert movement[holds].max() < 0.03  # a pixel at 32 pixels
    assert movement[5] > 0.05
    assert movement[11] > 0.05


def test_only_j_and_z_move_in_the_american_alphabet(letters):
    assert {symbol for symbol, letter in letters.items() if letter.is_moving} == {"J", "Z"}
    assert steps(right_hand(letters, "J")).sum() > 10 * steps(right_hand(letters, "I")).sum()


def test_a_moving_letter_is_shown_from_beginning_to_end(letters):
    alone = letters["J"].hands[:, 0, :, :2]
    hand = right_hand(letters, "AJA", 24)[8:16]
    assert numpy.abs(hand[0] - alone[0]).mean() < 0.1
    assert numpy.abs(hand[-1] - alone[-1]).mean() < 0.1


def test_doubled_letters_slide_outwards(letters):
    hand = right_hand(letters, "AA")
    centres = hand[..., 0].mean(1)
    assert centres[13] - centres[2] == pytest.approx(-0.16, abs=0.02)  # outwards is to the left of the picture
    assert right_hand(letters, "AB")[2, :, 0].mean() == pytest.approx(letters["A"].hands[..., 0].mean(), abs=1)


def test_orientation_is_kept(letters):
    def fingers(symbol):
        """Where the index finger points, from its knuckle to its tip: right and down are positive."""
        hand = letters[symbol].hands[:, 0, :, :2].mean(0)
        return hand[8] - hand[5]

    assert fingers("P")[1] > 0  # downwards
    assert fingers("Q")[1] > 0
    assert abs(fingers("G")[0]) > abs(fingers("G")[1])  # sideways
    assert abs(fingers("H")[0]) > abs(fingers("H")[1])
    assert fingers("D")[1] < 0  # upwards


def test_given_boundaries_move_the_change_of_letters(letters):
    pair = [letters["L"], letters["O"]]
    early = compose_word(pair, 16, numpy.array([4.0])).hands[:, 0, :, :2]
    assert steps(early).argmax() in (3, 4)
    assert steps(compose_word(pair, 16).hands[:, 0, :, :2]).argmax() in (7, 8)


def test_a_letter_a_frame_still_works(letters):
    assert compose_word([letters[symbol] for symbol in "ABCD"], 4).hands.shape == (4, 2, 21, 3)
