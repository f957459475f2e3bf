import numpy
import pytest

from common.filmstrip import cut_to_width, filmstrips


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
