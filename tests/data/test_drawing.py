import numpy
import pytest
from PIL import ImageDraw

from data.fingerspelling.drawing import NEUTRAL_STYLE, Style, compose_word, random_style, render_word
from data.fingerspelling.source import load_letters
from data.fingerspelling.timing import SpelledTime, shown_frames, time_letters


@pytest.fixture(scope="module")
def letters():
    return load_letters("ase")[1]


def evenly(letters, word, frames):
    """Spell a word with equal letters."""
    time = SpelledTime((1.0,) * len(word), (0.0,) * len(word))
    return compose_word([letters[symbol] for symbol in word], time_letters(time, frames))


def right_hand(letters, word, frames=16):
    return evenly(letters, word, frames).hands[:, 0, :, :2]


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
    assert centres[13] - centres[2] == pytest.approx(-0.2, abs=0.02)  # outwards is to the left of the picture
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


def test_longer_letters_have_more_frames(letters):
    pair = [letters["L"], letters["O"]]
    early = compose_word(pair, time_letters(SpelledTime((1.0, 3.0), (0.0, 0.0)), 16)).hands[:, 0, :, :2]
    assert steps(early).argmax() in (3, 4)
    assert steps(right_hand(letters, "LO")).argmax() in (7, 8)


def test_a_letter_is_held_in_the_pause_after_it(letters):
    timing = time_letters(SpelledTime((1.0, 1.0), (2.0, 0.0)), 32)  # 8 frames, 16 of pause, 8
    assert timing.edges.tolist() == [0, 24, 32]
    hand = compose_word([letters["J"], letters["O"]], timing).hands[:, 0, :, :2]
    movement = steps(hand)
    assert movement[:6].min() > 0.02
    assert movement[8:20].max() < 1e-6  # J is over
    assert 20 + movement[20:].argmax() in (22, 23, 24)


def test_jitter_moves_changes_by_a_tenth_of_the_shorter_letter_at_most(letters):
    time = SpelledTime((1.0, 2.0, 1.0), (0.0, 0.5, 0.0))
    even = time_letters(time, 45).edges
    moved = numpy.array([time_letters(time, 45, numpy.random.default_rng(seed)).edges for seed in range(200)])
    assert even.tolist() == pytest.approx([0, 10, 35, 45])
    assert numpy.abs(moved - even).max(0).tolist() == pytest.approx([0, 1, 1, 0], abs=0.1)


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([0, 4], [(0, 4)]),
        ([0, 2.5, 5], [(0, 2), (2, 5)]),  # the middle frame's centre is on the border: it belongs to what follows
        ([0, 5.3, 10.6, 16], [(0, 5), (5, 11), (11, 16)]),
    ],
)
def test_a_letter_has_the_frames_whose_centres_are_between_its_edges(edges, expected):
    assert [shown_frames(edges, letter) for letter in range(len(edges) - 1)] == expected


def test_a_letter_a_frame_still_works(letters):
    assert evenly(letters, "ABCD", 4).hands.shape == (4, 2, 21, 3)


def draw(letters, word, size=32, frames=16, style=NEUTRAL_STYLE):
    return render_word(evenly(letters, word, frames), (size, size), style)


def where(image, red, green, blue):
    """Return rows and columns of pixels near a colour's hue."""
    pixels = image.astype(float)
    distance = numpy.abs(pixels / pixels.max(-1, keepdims=True) - numpy.array([red, green, blue])).max(-1)
    return numpy.nonzero((distance < 0.25) & (pixels.max(-1) > 110))


@pytest.mark.parametrize(("size", "frames"), [(16, 4), (32, 16), (50, 7)])
def test_shape_and_type(letters, size, frames):
    video = draw(letters, "CAB", size, frames)
    assert video.shape == (frames, size, size, 3)
    assert video.dtype == numpy.uint8


@pytest.mark.parametrize("size", [(64, 32), (32, 48)])
def test_in_pictures_that_are_not_square_the_middle_is_the_square_and_forearms_go_on(letters, size):
    video = render_word(evenly(letters, "CAB", 6), size)
    assert video.shape == (6, *size, 3)
    top, left = ((side - 32) // 2 for side in size)
    change = video[:, top : top + 32, left : left + 32].astype(int) - draw(letters, "CAB", frames=6)
    assert numpy.abs(change).mean() < 0.02  # where the edges of a longer forearm are rounded
    background = video[0, 0, 0]
    video[:, top : top + 32, left : left + 32] = background
    outside = (video != background).any((0, -1))
    assert outside[-1].any() == (size[0] > size[1])  # an American letter has its forearm below
    assert not outside[:top].any()


def test_letters_look_as_they_should(letters):
    rows_i, _ = where(draw(letters, "I")[8], 0.9, 0.4, 1.0)  # the little finger (violet) points up
    rows_d, _ = where(draw(letters, "D")[8], 1.0, 0.85, 0.2)  # the index finger (yellow) points up
    assert rows_i.min() < 8
    assert rows_d.min() < 8
    _, columns_h = where(draw(letters, "H")[8], 1.0, 0.85, 0.2)
    assert numpy.ptp(columns_h) > 12  # sideways


def test_the_right_hand_is_not_mirrored(letters):
    _, thumb = where(draw(letters, "Y")[8], 1.0, 0.2, 0.2)
    _, little_finger = where(draw(letters, "Y")[8], 0.9, 0.4, 1.0)
    assert little_finger.mean() < thumb.mean() - 8  # the palm of a right hand faces the viewer


def test_the_style_is_constant_within_a_clip(letters):
    style = random_style(numpy.random.default_rng(5))
    corners = draw(letters, "CAB", style=style)[:, :2, :2]
    assert (corners == corners[0, 0, 0]).all()


def test_styles_change_the_picture_and_seeds_repeat_it(letters):
    styles = [random_style(numpy.random.default_rng(seed)) for seed in (1, 1, 2)]
    first, same, other = (draw(letters, "A", style=style) for style in styles)
    assert (first == same).all()
    assert (first != other).any()


def test_each_option_of_the_style_has_its_effect(letters):
    neutral = draw(letters, "A")[8].astype(int)
    assert draw(letters, "A", style=Style(background=1.5))[8][0, 0].sum() > neutral[0, 0].sum()
    assert draw(letters, "A", style=Style(brightness=0.7))[8].sum() < neutral.sum()
    assert (draw(letters, "A", style=Style(line_width=1.5))[8].max(-1) > 110).sum() > (neutral.max(-1) > 110).sum()
    moved = draw(letters, "A", style=Style(shift_x=4 / 32))[8].astype(int)
    assert numpy.abs(moved[:, 4:] - neutral[:, :-4]).mean() < 2
    assert numpy.abs(moved - neutral).mean() > 4


def test_all_letters_are_told_apart_in_other_styles(letters):
    templates = {symbol: draw(letters, symbol)[[4, 8, 12]].astype(float) for symbol in letters}
    wrong = []
    for number, symbol in enumerate(letters):
        for seed in (1, 2, 3):
            style = random_style(numpy.random.default_rng([number, seed]))
            image = draw(letters, symbol, style=style)[[4, 8, 12]].astype(float)
            nearest = min(templates, key=lambda other: float(numpy.square(templates[other] - image).mean()))
            if nearest != symbol:
                wrong.append((symbol, nearest))
    assert len(wrong) <= 2, wrong  # of 78


def test_a_clip_takes_a_few_shapes_in_small_pictures(letters, monkeypatch):
    """So that it takes a few milliseconds."""
    shapes, sizes = [], []

    def counted(name):
        original = getattr(ImageDraw.ImageDraw, name)

        def count(self, *arguments, **options):
            shapes.append(name)
            sizes.append(self.im.size)
            return original(self, *arguments, **options)

        return count

    for name in [name for name, value in vars(ImageDraw.ImageDraw).items() if callable(value) and name[0] != "_"]:
        monkeypatch.setattr(ImageDraw.ImageDraw, name, counted(name))
    frames = len(draw(letters, "CAB"))
    bones = 15 + 1  # of the fingers, and the forearm
    assert 0 < len(shapes) <= frames * (bones * 4 + 1)  # two lines and two round ends, and the palm
    assert set(sizes) == {(96, 96)}
