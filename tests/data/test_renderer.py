import numpy
import pytest
from PIL import ImageDraw

from data.fingerspelling.composition import compose_word
from data.fingerspelling.renderer import NEUTRAL_STYLE, Style, random_style, render_word
from data.fingerspelling.source import load_letters


@pytest.fixture(scope="module")
def letters():
    return load_letters("ase")[1]


def draw(letters, word, size=32, frames=16, style=NEUTRAL_STYLE):
    return render_word(compose_word([letters[symbol] for symbol in word], frames), size, style)


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
