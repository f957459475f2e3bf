import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw

from common import filmstrip
from common.filmstrip import cut_to_width, draw_text, drawable, filmstrips, text_width


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("hello", 50, "hello"),
        ("hello there", 50, "he..."),
        ("hello", 30, "..."),
        ("", 50, ""),
        ("x" * 16_384, 100, "xxxxxxx..."),
    ],
)
def test_a_text_is_cut_to_its_width(text, width, expected):
    measured = []

    def length_of(part):
        measured.append(part)
        return 10 * len(part)

    assert cut_to_width(text, length_of, width) == expected
    assert len(measured) < 12  # not once for each character
    assert all(len(part) <= 103 for part in measured)


def test_clips_are_drawn_below_each_other_with_frames_from_all_of_each():
    clips = [
        numpy.full((16, 32, 32, 3), shade, numpy.uint8) + numpy.arange(16, dtype=numpy.uint8)[:, None, None, None]
        for shade in (10, 100)
    ]
    sheet = filmstrips([("one", clips[0]), ("a label that is much too long for its place", clips[1])], label_width=120)
    assert sheet.shape == (2 * 96 + 6, 120 + 8 * 96, 3)
    for row, shade in enumerate((10, 100)):
        middles = [int(sheet[row * 102 + 48, 120 + 48 + 96 * frame, 0]) for frame in range(8)]
        assert middles == [shade + 1 + 2 * frame for frame in range(8)]
    assert (sheet[102:198, 115:120] == 255).all()  # the label ends before the clip
    assert (sheet[102:198, :110] < 128).any()


@pytest.mark.parametrize(
    ("order", "step"),
    [((4, 48, 12), 4), ((64, 12, 4), 4), ((1, 48), 4), ((4, 20), 2), ((4, 28), 3), ((4, 12), 1), ((4, 8), 1)],
)
def test_longer_clips_are_longer_rows(order: tuple[int, ...], step: int) -> None:
    """Twelve frames of the longest clip are shown, or every fourth one, and as many a second of all others."""
    longest = max(order)
    cells = len(range(step // 2, longest, step))
    clips = {
        frames: numpy.arange(frames, dtype=numpy.uint8)[:, None, None, None].repeat(32, 1).repeat(32, 2).repeat(3, 3)
        for frames in order
    }
    sheet = filmstrips([(str(frames), clip) for frames, clip in clips.items()], label_width=120)
    assert sheet.shape == (len(order) * 102 - 6, 120 + cells * 96, 3)
    for row, frames in enumerate(order):
        middles = sheet[row * 102 + 48, 120 + 48 :: 96, 0].tolist()
        shown = list(range(min(step // 2, frames - 1), frames, step))
        assert middles == shown + [255] * (cells - len(shown))


def font_file(characters: str) -> bytes:
    """Return a TrueType font of 1000 units: a black square for each of the characters, a flat box for all others."""

    def box(height: int) -> bytes:
        corners = [(100, 0), (0, height), (800, 0), (0, -height)]
        flags, xs, ys = b"\x01" * 4, [x for x, _ in corners], [y for _, y in corners]
        return struct.pack(">5h2H", 1, 100, 0, 900, height, 3, 0) + flags + struct.pack(">8h", *xs, *ys) + b"\0" * 2

    glyphs = [box(100), box(800)]
    groups = b"".join(struct.pack(">3I", code, code, 1) for code in sorted(map(ord, characters)))
    cmap = struct.pack(">2H2HI", 0, 1, 3, 10, 12) + struct.pack(">2H3I", 12, 0, 16 + len(groups), 0, len(groups) // 12)
    sizes = [0, len(glyphs[0]), len(glyphs[0]) + len(glyphs[1])]
    tables = {
        b"cmap": cmap + groups,
        b"glyf": b"".join(glyphs),
        b"head": struct.pack(
            *(">4I2H2Q4h2H3h", 0x10000, 0x10000, 0, 0x5F0F3CF5, 3, 1000, 0, 0, 0, 0, 900, 800, 0, 8, 2, 1, 0)
        ),
        b"hhea": struct.pack(">I3hH11hH", 0x10000, 900, -100, 0, 1000, *(0,) * 11, 2),
        b"hmtx": struct.pack(">HhHh", 1000, 100, 1000, 100),
        b"loca": struct.pack(">3I", *sizes),
        b"maxp": struct.pack(">I14H", 0x10000, 2, 4, 1, 0, 0, 1, *(0,) * 8),
    }
    head, content, start = struct.pack(">I4H", 0x10000, len(tables), 64, 2, 48), b"", 12 + 16 * len(tables)
    for name, table in tables.items():
        head += name + struct.pack(">3I", 0, start + len(content), len(table))
        content += table + b"\0" * (-len(table) % 4)
    return head + content


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Return a function that installs a font of its own with some characters; no other one is installed."""

    def forget() -> None:
        for cached in ("_advise_fonts", "_best_font_file", "_font_files", "_first_font_file", "_font", "_has"):
            getattr(filmstrip, cached).cache_clear()

    def write(name: str, characters: str) -> Path:
        (tmp_path / "fonts").mkdir(exist_ok=True)
        (tmp_path / "fonts" / name).write_bytes(font_file(characters))
        forget()
        return tmp_path / "fonts" / name

    monkeypatch.setattr(filmstrip, "FONT_FOLDERS", (str(tmp_path),))
    forget()
    yield write
    forget()


CLIP = numpy.full((8, 32, 32, 3), 255, numpy.uint8)


def squares(label: str) -> int:
    """Return how many squares of about 0.8 * 15 pixels stand beside each other in a label."""
    black = (filmstrips([(label, CLIP)])[:, :130] < 128).all(axis=2)
    inside = numpy.lib.stride_tricks.sliding_window_view(black, (9, 9)).all(axis=(2, 3)).any(axis=0)
    return int((inside[1:] & ~inside[:-1]).sum())


def test_a_caption_takes_an_installed_font_that_has_its_script(
    install: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert squares("\ngenerated") == 0
    install("A Sans.ttf", "कि")
    install("Z Serif.otf", "你好")
    for text, number in (("你好", 2), ("你好你好", 4), ("कि", 2), ("你कि", 3)):
        assert drawable(text) == text
        assert squares(text) == squares(f"{text}\ngenerated") == number
    assert text_width("你好", 20) == 40
    assert text_width("a你好b", 20) == 40 + text_width("a", 20) + text_width("b", 20)  # which these fonts do not have
    assert capsys.readouterr().err == ""


def test_what_no_font_has_is_written_as_escapes_and_the_remedy_said_once(
    install: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert drawable("你好, José") == r"\u4f60\u597d, Jos\xe9"
    assert (filmstrips([("你好", CLIP)]) == filmstrips([(r"\u4f60\u597d", CLIP)])).all()
    assert drawable("नमस्ते 👋") == r"\u0928\u092e\u0938\u094d\u0924\u0947 \U0001f44b"
    install("a.ttf", "क你")
    assert drawable("कि 你\u200d\ufe0f\u3000好") == "क\\u093f 你\u200d\ufe0f\u3000\\u597d"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2  # one for each state of the machine
    assert all("apt-get install fonts-noto-core fonts-noto-cjk" in line for line in said)


@pytest.mark.parametrize(("anchor", "left"), [("lm", 100), ("mm", 80), ("rm", 60)])
def test_a_line_in_two_fonts_keeps_to_its_anchor(install: Callable[..., Path], anchor: str, left: int) -> None:
    install("a.ttf", "你")
    install("b.ttf", "क")
    picture = Image.new("L", (200, 40), 255)
    draw_text(ImageDraw.Draw(picture), (100, 20), "你क", 20, "black", anchor)
    columns = numpy.flatnonzero((numpy.asarray(picture) < 128).any(axis=0))
    assert (columns[0], columns[-1]) == (left + 2, left + 37)  # each from 0.1 to 0.9 of 20 pixels


def test_a_font_that_cannot_be_read_or_is_bold_is_passed_over(install: Callable[..., Path]) -> None:
    install("a.ttf", "").write_bytes(b"no font")
    install("b Bold.ttf", "你")
    assert drawable("你") == r"\u4f60"
    install("c.ttf", "你")
    assert drawable("你") == "你"
