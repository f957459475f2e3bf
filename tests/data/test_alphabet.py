import pytest

from common.errors import UserError
from data.fingerspelling.words import Alphabet


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


@pytest.mark.parametrize("word", ["", "  "])
def test_an_empty_word_is_refused(latin, word):
    with pytest.raises(UserError, match="empty word"):
        latin.segment(word)


def test_a_sequence_that_reads_back_differently_is_ambiguous():
    german = Alphabet(["C", "H", "CH"], "de", "sgg")
    assert not german.is_unambiguous(["C", "H"])
    assert german.is_unambiguous(["CH", "H"])
