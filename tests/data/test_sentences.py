"""Which sentences of signs are held out, computed again from the hash, and how texts are read as signs."""

import hashlib
import itertools

import numpy
import pytest

from common.errors import UserError
from data.sentences import SentenceSplit, signs_of_captions

NAMES = ("thank", "thank you", "you", "go", "Home", *map(str, range(15)))
SIGNS = signs_of_captions((*NAMES, "HOME", "you"), tuple)


def make_split(seed=3, signs=SIGNS, most=3, sentences=0.2, pairs=0.1):
    return SentenceSplit(signs, most, sentences, pairs, seed)


def share(kind, sentence, seed=3):
    text = f"{seed}/held_out_{kind}/" + "\0".join(sign.lower() for sign in sentence)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def test_a_hash_of_the_seed_and_the_signs_decides():
    split = make_split()
    numbers = {}
    for length in (2, 3):
        sentences = list(itertools.product(SIGNS.names, repeat=length))
        expected = [
            any(share("pair", pair) < 0.1 for pair in itertools.pairwise(each)) or share("sentence", each) < 0.2
            for each in sentences
        ]
        assert [*map(split.is_held_out, sentences)] == expected
        numbers[length] = sum(expected) / len(expected)
    assert numbers == {2: pytest.approx(1 - 0.8 * 0.9, abs=0.05), 3: pytest.approx(1 - 0.8 * 0.9**2, abs=0.05)}
    assert not any(split.is_held_out((sign,)) for sign in SIGNS.names)
    assert split.is_held_out(("go",) * 4)  # longer than any training sentence


def test_another_sign_moves_no_sentence():
    more = signs_of_captions((*NAMES, "new"), tuple)
    pairs = list(itertools.product(SIGNS.names, repeat=2))
    assert [*map(make_split().is_held_out, pairs)] == [*map(make_split(signs=more).is_held_out, pairs)]
    assert [*map(make_split().is_held_out, pairs)] != [*map(make_split(seed=4).is_held_out, pairs)]


def test_the_longest_sign_that_fits_is_read():
    assert len(SIGNS.names) == 20  # what differs in capitals alone is one sign
    assert SIGNS.segment("  THANK you go home") == ("thank you", "go", "HOME")
    assert SIGNS.segment("thank go you") == ("thank", "go", "you")
    assert SIGNS.is_unambiguous(("you", "thank"))
    assert not SIGNS.is_unambiguous(("thank", "you"))


def test_captions_that_the_model_cannot_tell_apart_are_one_sign():
    signs = signs_of_captions(("wave!", "wave", "nod"), lambda key: key.strip("!"))
    assert signs.names == ("nod", "wave")
    assert signs.segment("wave! nod") == ("wave", "nod")


def test_what_is_no_sign_is_named():
    with pytest.raises(UserError, match=r"^'go away Bob' has words that are no known sign: 'away', 'bob'\. Known: 0,"):
        SIGNS.segment("go away Bob")
    with pytest.raises(UserError, match=r"^' ' names no sign\.$"):
        SIGNS.segment(" ")


@pytest.mark.parametrize("held_out", [True, False])
def test_drawn_sentences_are_on_the_side_that_is_asked_for_and_read_back(held_out):
    split, generator = make_split(), numpy.random.default_rng(0)
    drawn = [split.draw(2, SIGNS.names, generator, held_out=held_out) for _ in range(300)]
    assert {split.is_held_out(each) for each in drawn} == {held_out}
    assert all(SIGNS.segment(" ".join(each)) == each for each in drawn)


def test_what_leaves_nothing_to_train_on_is_refused():
    only = signs_of_captions(("go",), tuple)
    seed = next(seed for seed in range(100) if share("sentence", ("go", "go"), seed) < 0.9)
    with pytest.raises(UserError, match=r"HELD_OUT_WORD_FRACTION=0\.9 .* no training sentences of 2 signs from 1 sign"):
        make_split(seed, only, sentences=0.9, pairs=0.0).check()


def test_captions_that_are_sentences_are_refused():
    spoken = signs_of_captions(("I am going home", "it will rain tomorrow", "thank you", "yes"), tuple)
    with pytest.raises(UserError, match=r"more than 3 words, such as 'I am going home'.* Set COMPOSE_SIGNS to 1"):
        make_split(signs=spoken).check()
    make_split(signs=signs_of_captions(("a b c d", "thank you", "yes"), tuple)).check()
