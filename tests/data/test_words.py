import itertools
from collections import Counter

import numpy
import pytest

from common.errors import UserError
from data.fingerspelling.words import Alphabet, Alphabets, WordSplit, letters_of

LETTERS = [chr(code) for code in range(ord("A"), ord("Z") + 1)]
GOLDEN_BIGRAMS = ("AC", "AE", "AI", "AV")
GOLDEN_WORDS = ["AC", "AE", "AG", "AI", "AN", "AV"]


def make_split(seed=0, letters=LETTERS, max_letters=3, words=0.2, bigrams=0.1):
    return WordSplit(Alphabets((Alphabet(letters, "en", "ase"),)), max_letters, words, bigrams, seed)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_shares_are_at_least_what_was_asked_for(seed):
    split = make_split(seed)
    pairs = list(itertools.product(LETTERS, repeat=2))
    assert len(split.held_out_bigrams) == 68  # ceil(0.1 * 676)
    assert sum(map(split.is_held_out, pairs)) >= 0.2 * len(pairs)
    triples = list(itertools.product(LETTERS, repeat=3))
    assert sum(map(split.is_held_out, triples)) >= 0.2 * len(triples)


def test_word_share_is_exact_when_no_bigrams_are_held_out():
    split = make_split(letters=list("ABCDEFG"), words=0.25, bigrams=0.0)
    assert sum(map(split.is_held_out, itertools.product("ABCDEFG", repeat=2))) == 13  # ceil(49 / 4)
    assert sum(map(split.is_held_out, itertools.product("ABCDEFG", repeat=3))) == 86  # ceil(343 / 4)


def test_a_word_with_a_held_out_bigram_is_held_out():
    split = make_split(words=0.0)
    first, second = split.held_out_bigrams[0]
    assert split.is_held_out((first, second))
    assert split.is_held_out(("A", first, second))
    assert split.is_held_out((first, second, "A"))


def test_letters_are_never_held_out_and_longer_words_always():
    split = make_split()
    assert not any(split.is_held_out((letter,)) for letter in LETTERS)
    assert split.is_held_out(("A", "B", "C", "D"))


def test_the_split_depends_on_the_seed_alone():
    words = list(itertools.product(LETTERS, repeat=2))
    first, again, other = ([*map(make_split(seed).is_held_out, words)] for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_split_never_changes_between_versions():
    assert make_split(0).held_out_bigrams[:4] == GOLDEN_BIGRAMS
    assert make_split(0).held_out_words(2)[:6] == GOLDEN_WORDS


def test_training_words_are_uniform_over_lengths_and_never_held_out():
    split = make_split()
    generator = numpy.random.default_rng(0)
    words = [split.draw_training_word(generator) for _ in range(3000)]
    assert not any(split.is_held_out(word) for word in words)
    lengths = Counter(len(letters_of(word)) for word in words)
    assert all(abs(lengths[length] - 1000) < 120 for length in (1, 2, 3))
    letters = Counter(word[0] for word in words if len(word) == 1)
    assert set(letters) == set(LETTERS)


def test_a_tenth_of_the_longer_training_words_is_two_words():
    split = make_split(words=0.0, bigrams=0.0)
    generator = numpy.random.default_rng(0)
    words = [split.draw_training_word_of(3, generator) for _ in range(2000)]
    spaced = [word for word in words if " " in word]
    assert len(spaced) == pytest.approx(200, abs=50)
    assert {word.index(" ") for word in spaced} == {1, 2}
    assert all(len(word) == 4 for word in spaced)
    assert not any(" " in split.draw_training_word_of(1, generator) for _ in range(100))


def test_a_quarter_of_the_training_words_has_a_letter_doubled():
    split = WordSplit(Alphabets((Alphabet("ABCDEFGH", "en", "ase"),)), 2, 0.2, 0.2, 0)
    generator = numpy.random.default_rng(0)
    drawn = Counter(letters_of(split.draw_training_word_of(2, generator)) for _ in range(4000))
    trained = [word for word in itertools.product("ABCDEFGH", repeat=2) if not split.is_held_out(word)]
    # Of each word, a quarter gives way to its first letter twice, where training may show that.
    expected = Counter(dict.fromkeys(trained, 1.0))
    for word in trained:
        if (word[0], word[0]) in trained:
            expected[word] -= 0.25
            expected[word[0], word[0]] += 0.25
    assert drawn.keys() == set(trained)
    share = {word: count / 4000 * len(trained) for word, count in drawn.items()}
    assert all(abs(share[word] - expected[word]) < 0.4 for word in trained)
    doubled = [word for word in trained if word[0] == word[1]]
    assert sum(map(share.get, doubled)) == pytest.approx(sum(map(expected.get, doubled)), rel=0.1)


def test_of_several_languages_each_has_its_own_words_and_captions_name_it():
    def alphabets(*marks):
        ase = Alphabet("ABC", "en", "ase", marks[0])
        return Alphabets((ase, *(Alphabet(["A", "SCH", "ä"], "de", "gsg", mark) for mark in marks[1:])))

    both, alone = (WordSplit(alphabets(*marks), 3, 0.2, 0.1, 0) for marks in (("ase:", "gsg:"), ("",)))
    assert both.alphabets.segment("gsg schäa a") == ("gsg:SCH", "gsg:ä", "gsg:A", " ", "gsg:A")
    assert both.alphabets.caption(("gsg:SCH", "gsg:ä", " ", "gsg:A")) == "gsg SCHä A"
    assert both.alphabets.caption(("ase:C",)) == "ase C"
    assert both.alphabets.can_spell("ase CAB")
    assert not any(map(both.alphabets.can_spell, ("CAB", "ase SCHÄ", "fsl A", "ase", "")))
    # What is held out of a language does not depend on which others there are.
    words = [word for length in (1, 2, 3) for word in itertools.product("ABC", repeat=length)]
    marked = [tuple(f"ase:{symbol}" for symbol in word) for word in words]
    assert list(map(both.is_held_out, marked)) == list(map(alone.is_held_out, words))
    assert len(both.held_out_bigrams) == 1 + 1  # ceil(0.1 * 9) of each
    assert {caption[:4] for caption in both.held_out_words(2)} == {"ase ", "gsg "}
    generator = numpy.random.default_rng(0)
    drawn = [both.draw_training_word(generator) for _ in range(600)]
    languages = Counter(both.alphabets.of(word).signed_language for word in drawn)
    assert languages["ase"] == pytest.approx(300, abs=60)
    assert all(len({symbol[:4] for symbol in letters_of(word)}) == 1 for word in drawn)
    assert not any(map(both.is_held_out, drawn))
    assert all(both.alphabets.segment(both.alphabets.caption(word)) == word for word in drawn)


def test_held_out_words_are_held_out():
    split = make_split()
    generator = numpy.random.default_rng(0)
    words = [split.draw_held_out_word(generator) for _ in range(200)]
    assert all(split.is_held_out(word) and 2 <= len(word) <= 3 for word in words)


def test_words_that_read_back_differently_are_not_drawn():
    split = make_split(letters=["C", "H", "CH"], words=0.0, bigrams=0.0)
    generator = numpy.random.default_rng(0)
    drawn = {split.draw_training_word(generator) for _ in range(500)}
    assert ("CH", "C") in drawn
    assert ("C", "H") not in drawn


def test_fractions_that_leave_nothing_to_train_on_are_refused():
    with pytest.raises(UserError, match=r"HELD_OUT_WORD_FRACTION=1.0.*no training words of 2 letters"):
        make_split(words=1.0).check()


def test_longer_lengths_reach_their_share_too():
    split = make_split(max_letters=6, bigrams=0.0)
    generator = numpy.random.default_rng(1)
    words = [tuple(generator.choice(LETTERS, 6)) for _ in range(4000)]
    assert abs(sum(map(split.is_held_out, words)) / 4000 - 0.2) < 0.03


@pytest.fixture
def latin() -> Alphabet:
    return Alphabet([chr(code) for code in range(ord("A"), ord("Z") + 1)], "en", "ase")


def test_lower_case_is_read_as_the_lexicons_upper_case(latin):
    assert latin.segment("cab") == ("C", "A", "B")


def test_the_longest_symbol_wins():
    german = Alphabet(["S", "C", "H", "SCH", "A"], "de", "asq")
    assert german.segment("SCHAS") == ("SCH", "A", "S")
    assert german.segment("scha") == ("SCH", "A")


def test_upper_case_is_read_as_the_lexicons_lower_case():
    swiss = Alphabet(["A", "ä", "ß"], "de", "gsg")
    assert swiss.segment("ÄA") == ("ä", "A")


def test_a_case_that_could_mean_two_symbols_must_be_typed_exactly():
    both = Alphabet(["a", "A"], "en", "xxx")
    assert both.segment("aA") == ("a", "A")


def test_turkish_dotted_and_dotless_i_stay_apart():
    turkish = Alphabet(["I", "İ"], "tr", "tsm")
    assert turkish.segment("iı") == ("İ", "I")


def test_decomposed_letters_are_composed():
    assert Alphabet(["Ä"], "de", "asq").segment("A\u0308") == ("Ä",)


def test_a_missing_symbol_is_named_and_the_others_listed(latin):
    with pytest.raises(UserError, match=r"no symbol '4'.*It has: A B C"):
        latin.segment("C4B")


def test_words_are_separated_by_one_space(latin):
    assert latin.segment(" ab  c ") == ("A", "B", " ", "C")
    assert letters_of(latin.segment("ab c")) == ("A", "B", "C")


@pytest.mark.parametrize("word", ["", "  "])
def test_an_empty_word_is_refused(latin, word):
    with pytest.raises(UserError, match="empty word"):
        latin.segment(word)


def test_a_sequence_that_reads_back_differently_is_ambiguous():
    german = Alphabet(["C", "H", "CH"], "de", "sgg")
    assert not german.is_unambiguous(["C", "H"])
    assert german.is_unambiguous(["CH", "H"])
