"""Captions that are no captions, and what is left of others."""

import pytest

from tests.data.media.hostile_folder import add, inspect, reasons

NOT_UTF_8 = "has no usable caption: clip.txt is not UTF-8: save it again as UTF-8"


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        (None, "has no caption: clip.txt is missing"),
        (b"", "has no caption: clip.txt is empty"),
        (b" \t\r\n\x0b\x0c ", "has no caption: clip.txt is empty"),
        (bytes(range(32)) + b"\x7f\xc2\x85", "has no caption: clip.txt is empty"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}".encode(), "has no caption: clip.txt is empty"),
        (
            "\N{ZERO WIDTH SPACE}\N{RIGHT-TO-LEFT OVERRIDE} \N{SOFT HYPHEN}".encode(),
            "has no caption: clip.txt is empty",
        ),
        (b"x" * 1_000_000, "has no usable caption: clip.txt is larger than 16384 bytes"),
        (b"gr\xfc\xdfen", NOT_UTF_8),
        ("hello".encode("utf-16")[:-1], NOT_UTF_8),
        (b"\xff\xfe\x00\xd8", NOT_UTF_8),  # half of a pair
        ("hello".encode("utf-32"), NOT_UTF_8),
        (b"\xed\xa0\x80", NOT_UTF_8),  # half of a pair
        (b"\xc0\xafetc", NOT_UTF_8),  # a slash, too long
    ],
    ids=[
        "missing",
        "empty",
        "spaces",
        "control characters",
        "byte order mark",
        "invisible",
        "large",
        "Latin-1",
        "UTF-16 cut off",
        "half a pair in UTF-16",
        "UTF-32",
        "surrogate",
        "overlong",
    ],
)
def test_captions_that_cannot_be_used(root, caption, reason):
    add(root, "clip.gif", caption)
    assert reasons(root) == {"clip.gif": reason}


@pytest.mark.parametrize(
    ("caption", "read"),
    [
        (b"\xef\xbb\xbfhello\r\n", "hello"),
        (b"\xff\xfe" + "größer 👋\r\n".encode("utf-16-le"), "größer 👋"),
        (b"\xfe\xff" + "größer".encode("utf-16-be"), "größer"),
        (b"\x1b[31mred\x1b[0m\x00\x07", "[31mred [0m"),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}".encode(), "été"),
        (b"a\nb\n\n\nc", "a b c"),
        ("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{SCHOOL}".encode(), "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{SCHOOL}"),
        (b"x" * 16_384, "x" * 16_384),
    ],
    ids=[
        "byte order mark",
        "UTF-16, little",
        "UTF-16, big",
        "escape sequences",
        "combining accents",
        "lines",
        "joined emoji",
        "longest",
    ],
)
def test_captions_are_cleaned(root, caption, read):
    add(root, "clip.gif", caption)
    inspection, _ = inspect(root)
    assert {clip.row.id: clip.row.caption for clip in inspection.usable}["clip.gif"] == read
