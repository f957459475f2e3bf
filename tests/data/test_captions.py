import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.errors import UserError
from config import Config
from data.captions import (
    MOST_CAPTION_BYTES,
    caption_notices,
    check_captions,
    checked_caption,
    decode_caption,
    normalise_caption,
    read_caption,
)
from data.rows import UnusableClip
from models.build import build_tokenizer
from models.tokens import unread


def is_clean(caption):
    """One line, composed, without control characters, leading, trailing or repeated spaces."""
    return (
        caption == unicodedata.normalize("NFC", caption)
        and caption == " ".join(caption.split())
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in caption)
    )


@given(st.text(st.characters(), max_size=60))
@example("a\u0000b\u0085c\u2028d")
@example("e\u0301 \ud800 x")
def test_a_normalised_caption_is_clean_and_stays_as_it_is(text):
    caption = normalise_caption(text)
    assert is_clean(caption)
    assert normalise_caption(caption) == caption
    caption.encode()  # no lone surrogates: it goes into files


@given(st.binary(max_size=80))
@example("größer".encode("latin-1"))
@example("thanks".encode("utf-16"))
def test_any_bytes_are_a_caption_or_are_refused_with_the_files_name(content):
    try:
        caption = decode_caption(content, "a.txt")
    except UnusableClip as error:
        said = str(error)
    else:
        assert is_clean(caption)
        assert caption
        return
    assert "a.txt is not UTF-8" in said or "a.txt is empty" in said


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=40))
def test_what_is_written_as_utf_8_is_read_back_with_and_without_a_mark(tmp_path_factory, text):
    folder = tmp_path_factory.mktemp("captions")
    for encoding in ("utf-8", "utf-8-sig"):
        (folder / "a.txt").write_bytes(text.encode(encoding))
        expected = normalise_caption(text.removeprefix("\ufeff") if encoding == "utf-8" else text)
        if expected:
            assert read_caption(folder, "a.txt") == expected
        else:
            with pytest.raises(UnusableClip, match=r"a\.txt is empty"):
                read_caption(folder, "a.txt")


def test_marks_that_turn_the_direction_are_taken_out_and_those_that_scripts_need_stay():
    assert normalise_caption("a\u202egnp.exe\u2066b") == "agnp.exeb"
    assert normalise_caption("می\u200cخواهم") == "می\u200cخواهم"


def test_length_has_a_limit():
    assert decode_caption(b"a" * MOST_CAPTION_BYTES, "a.txt") == "a" * MOST_CAPTION_BYTES
    with pytest.raises(UnusableClip, match="larger than 16384 bytes"):
        decode_caption(b"a" * (MOST_CAPTION_BYTES + 1), "a.txt")
    with pytest.raises(UnusableClip, match="more than 16384 characters"):
        checked_caption("a" * (MOST_CAPTION_BYTES + 1))


@pytest.mark.parametrize("text", ["", " \n\t", "\u0000\u0007"], ids=["empty", "spaces", "control characters"])
def test_what_says_nothing_is_refused(text):
    with pytest.raises(UnusableClip, match="empty"):
        checked_caption(text)


def notices_of(captions, **constants):
    config = Config.model_construct(**constants)
    tokenizer = build_tokenizer(config, None)
    return [notice.text for notice in caption_notices(config, unread(tokenizer, captions), tokenizer, captions)]


def test_captions_in_letters_that_are_known_are_not_mentioned():
    latin = ["Good morning, everyone!", "Grüße aus Łódź", "İstanbul", "Chào buổi sáng"]
    assert notices_of([*latin, "Καλημέρα", "Доброе утро", "Добрий день, Їжаче"]) == []


def test_captions_that_are_cut_off_and_become_alike_are_counted_with_the_length_that_would_do():
    long = ["the weather tomorrow: rain", "the weather tomorrow: snow and wind", "the weather tomorrow: snow", "sun"]
    assert notices_of(long, MAX_CAPTION_LENGTH=22) == [
        "3 of 4 are longer than 22 characters and are cut off; MAX_CAPTION_LENGTH=35 would read all",
        "3 differ from another one only in what is not read, such as 'the weather tomorrow: rain', and count as the "
        "same caption",
    ]
    assert notices_of(long, MAX_CAPTION_LENGTH=35) == []
    (cut,) = notices_of(["a" * 5000, "b"], MAX_CAPTION_LENGTH=512)
    assert cut == "1 of 2 is longer than 512 characters and is cut off; MAX_CAPTION_LENGTH=4096 would read more"
    (cut,) = notices_of(["a" * 5000, "b"], MAX_CAPTION_LENGTH=4096)
    assert cut.endswith("cut off; TEXT_ENCODER=characters reads no more")


def test_captions_of_which_little_is_left_are_counted():
    texts = notices_of(["你好", "再见 ok", "hello", "bye", "再见 okay", "你 ok"])
    assert texts == [
        "left out, because TEXT_ENCODER=characters does not know them: '你' (2), '再' (2), '见' (2), '好' (1)",
        "nothing is left of 1 of 6, which then look all the same, such as '你好': choose another TEXT_ENCODER",
        "2 differ from another one only in what is not read, such as '你 ok', and count as the same caption",
    ]


def test_captions_that_the_encoder_hardly_knows_are_refused_with_a_remedy():
    config = Config.model_construct()
    tokenizer = build_tokenizer(config, None)
    for captions, refused in ((["你好", "再见", "a", "b"], True), (["你好", "c", "a", "b"], False), (["a"], False)):
        lost = unread(tokenizer, captions)
        if not refused:
            check_captions(config, lost, len(captions))
            continue
        with pytest.raises(UserError) as caught:
            check_captions(config, lost, len(captions))
        said = str(caught.value)
        assert "TEXT_ENCODER='characters' knows no character of 2 of 4 captions, such as '你好'" in said
        assert "--text-encoder intfloat/multilingual-e5-small" in said
