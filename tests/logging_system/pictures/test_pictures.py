"""Charts and grids of clips: pixels where they should be, and no crash on odd data."""

import numpy
import pytest

from logging_system.pictures.charts import (
    ACCENT,
    COLOURS,
    LINE,
    NO_DATA,
    SHADE,
    NameGroup,
    bar_chart,
    comparison_chart,
    group_names,
    heat_map,
    line_chart,
    log_ticks,
    nice_ticks,
    short_number,
)
from logging_system.pictures.frames import caption_size, captioned, captioned_grid, enlarged, scale_to_be_seen

WIDTH, HEIGHT = 700, 430  # twice what TensorBoard shows
LEFT, TOP, RIGHT, BOTTOM = 92, 76, 676, 360  # the axes of a chart
BARS_BOTTOM, MAP_RIGHT = 334, 572


def _where(picture: numpy.ndarray, colour: tuple[int, int, int]) -> tuple[numpy.ndarray, numpy.ndarray]:
    return (picture == numpy.array(colour)).all(axis=-1).nonzero()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
        (0, 0.00108, [0, 0.0005, 0.001]),
        (3, 7, [3, 4, 5, 6, 7]),
        (1, 1, [1]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 5) == pytest.approx(expected)


def test_numbers_are_short() -> None:
    numbers = (0, 0.25, 1200.0, 3e-5, 2.5e9)
    assert [short_number(value) for value in numbers] == ["0", "0.25", "1200", "3e-05", "2.5e+09"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-2, 0, [0.01, 0.03, 0.1, 0.3, 1]),
        (-1.8, -0.6, [0.02, 0.05, 0.1, 0.2]),
        (-9, 3, [1e-9, 1e-6, 1e-3, 1, 1e3]),
        (0.32, 0.36, [10**0.32, 10**0.36]),
    ],
)
def test_logarithmic_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(expected)


def test_line_runs_through_its_values() -> None:
    x = numpy.linspace(0, 100, 101)
    picture = line_chart(x, x / 100, title="t", x_label="x", y_label="y", marker=(50.0, 0.5))
    rows, columns = _where(picture, LINE)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    slope = numpy.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx(-((BOTTOM - TOP) / 1.08) / (RIGHT - LEFT), rel=0.02)
    marker_rows, marker_columns = _where(picture, ACCENT)
    assert numpy.median(marker_columns) == pytest.approx((LEFT + RIGHT) / 2, abs=2)
    assert marker_rows.min() <= TOP + 3


def test_flat_line_at_zero_is_drawn() -> None:
    picture = line_chart(numpy.array([1.0, 2.0]), numpy.zeros(2), title="t", x_label="x", y_label="y", marker=(1, 0))
    assert _where(picture, LINE)[0].size


def test_what_is_as_it_should_be_lies_on_the_line() -> None:
    right = numpy.array([1.0, 2.0])
    picture = comparison_chart(right, numpy.array([1.0, 0.5]), title="t", x_label="x", y_label="y")
    rows, columns = _where(picture, LINE)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / 2.16 * (RIGHT - LEFT), BOTTOM - y / 2.16 * (BOTTOM - TOP)

    for x, y in ((1.0, 1.0), (2.0, 0.5)):
        column, row = place(x, y)
        here = (abs(columns - column) < 8) & (abs(rows - row) < 8)
        assert (columns[here].mean(), rows[here].mean()) == (pytest.approx(column, abs=1), pytest.approx(row, abs=1))
    assert ((abs(columns - place(1, 1)[0]) < 9) | (abs(columns - place(2, 1)[0]) < 9)).all()  # two points, no more
    reddish = picture[..., 0].astype(int) - picture[..., 2] > 60  # the line is thin, and blurred
    line_rows, line_columns = reddish.nonzero()
    along = (line_columns - LEFT) / (RIGHT - LEFT) - (BOTTOM - line_rows) / (BOTTOM - TOP)
    assert abs(along).max() < 0.02  # from corner to corner
    assert line_columns.max() - line_columns.min() > 0.95 * (RIGHT - LEFT)


def test_what_a_diverged_network_expects_is_drawn_too() -> None:
    expected = numpy.array([0.0, 3.4e38])
    assert comparison_chart(numpy.ones(2), expected, title="t", x_label="x", y_label="y").shape == (HEIGHT, WIDTH, 3)


def test_bars_are_logarithmic() -> None:
    values = numpy.array([1e-3, 1e-1, 0.0, numpy.nan])
    picture = bar_chart(["a", "b", "c", "d"], values, title="t", y_label="y")
    rows, columns = _where(picture, LINE)
    middles = [LEFT + (RIGHT - LEFT) * (index + 0.5) / 4 for index in range(4)]
    tops = [rows[abs(columns - middle) < 5].min(initial=999) for middle in middles]
    assert tops[1] == pytest.approx(TOP, abs=3)  # the largest power of ten
    assert tops[0] >= BARS_BOTTOM - 3  # the smallest one, no height
    assert tops[2:] == [999, 999]


@pytest.mark.parametrize("values", [[numpy.nan], [0.0], [numpy.inf, 1.0], [5.0] * 300])
def test_bars_of_odd_values(values: list[float]) -> None:
    names = [f"down.{index}.convolution.of.a.long.name" for index in range(len(values))]
    assert bar_chart(names, numpy.array(values), title="t", y_label="y").shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("fill", [numpy.nan, 0.0, 2.0, -1.0])
def test_heat_map_of_odd_values(fill: float) -> None:
    picture = heat_map(
        numpy.full((20, 3), fill),
        column_edges=numpy.array([0.0, 1.0, 5.0, 6.0]),
        y_range=(0, 1000),
        title="t",
        x_label="x",
        y_label="y",
        value_label="v",
    )
    assert picture.shape == (HEIGHT, WIDTH, 3)


def test_columns_of_the_heat_map_are_as_wide_as_their_steps() -> None:
    picture = heat_map(
        numpy.array([[0.01, 1.0]]),
        column_edges=numpy.array([0.0, 30.0, 40.0]),
        y_range=(0, 1),
        title="t",
        x_label="x",
        y_label="y",
        value_label="v",
    )
    row = picture[200, LEFT + 2 : MAP_RIGHT - 1].tolist()
    assert row.count([68, 1, 84]) / len(row) == pytest.approx(0.75, abs=0.01)


def test_heat_map_rows_go_up_from_little_noise_and_gaps_are_grey() -> None:
    picture = heat_map(
        numpy.array([[0.01], [numpy.nan], [0.1], [1.0]]),
        column_edges=numpy.array([0.0, 10.0]),
        y_range=(0, 1000),
        title="t",
        x_label="x",
        y_label="y",
        value_label="v",
    )
    middles = [BOTTOM - (BOTTOM - TOP) * (index + 0.5) / 4 for index in range(4)]
    seen = [tuple(picture[round(row), 300].tolist()) for row in middles]
    halfway = tuple(((COLOURS[4] + COLOURS[5]) / 2).round().astype(int).tolist())  # the same factor from both ends
    assert seen == [(68, 1, 84), NO_DATA, halfway, (253, 231, 37)]


def test_charts_survive_being_shown_at_half_their_size() -> None:
    """TensorBoard leaves out every second pixel; which one must not matter, or print falls apart."""
    x = numpy.linspace(0, 100, 101)
    picture = line_chart(x, x / 100, title="t", x_label="x", y_label="y", marker=(50.0, 0.5)).astype(float)
    labels = picture[TOP:BOTTOM, 10 : LEFT - 10].mean(axis=-1)
    left_out = numpy.abs(labels[::2, ::2] - labels[1::2, 1::2])  # a thin stroke is in one of them alone
    has_ink = labels[::2, ::2] + labels[1::2, 1::2] < 2 * 250
    assert left_out[has_ink].mean() < 75  # of 255; without softening it is above 100


def test_layers_are_grouped_by_what_their_names_share() -> None:
    names = ["text.a", "text.b", *(f"unet.down.{index}" for index in range(4)), "unet.out"]
    assert group_names(names) == [NameGroup("text", 0, 2), NameGroup("down", 2, 6), NameGroup("out", 6, 7)]
    assert group_names(["same", "same"]) == [NameGroup("same", 0, 2)]
    assert group_names([]) == []


def test_bars_of_different_groups_stand_on_different_ground() -> None:
    picture = bar_chart(["a.0", "a.1", "b.0", "b.1"], numpy.array([1e-3, 1e-3, 1e-3, 1e-1]), title="t", y_label="y")
    columns = [round(LEFT + (RIGHT - LEFT) * (index + 0.5) / 4) for index in (0, 2)]
    assert [tuple(picture[TOP + 10, column].tolist()) for column in columns] == [(255, 255, 255), SHADE]


def test_scale_brings_small_clips_to_a_visible_size() -> None:
    assert [scale_to_be_seen(side) for side in (8, 32, 100, 128, 300)] == [16, 4, 2, 1, 1]
    clip = numpy.arange(12, dtype=numpy.uint8).reshape(1, 2, 2, 3)
    assert (enlarged(clip, 3)[:, ::3, ::3] == clip).all()
    assert (enlarged(clip, 3)[:, 2::3, 2::3] == clip).all()


@pytest.mark.parametrize("number", [1, 2, 5])
def test_grid_places_every_clip_at_every_frame(number: int) -> None:
    random = numpy.random.default_rng(0)
    clips = [random.integers(0, 256, (3, 128, 128, 3), dtype=numpy.uint8) for _ in range(number)]
    grid = captioned_grid(clips, [f"clip {index}" for index in range(number)], columns=3)
    columns = min(3, number)
    strip = {1: 20, 2: 20, 5: 21}[number]  # captions grow with the picture, which is shown the smaller
    tile = 128 + strip + 4
    assert grid.shape == (3, -(-number // columns) * tile + 4, columns * 132 + 4, 3)
    assert grid.dtype == numpy.uint8
    for index, clip in enumerate(clips):
        top, left = index // columns * tile + strip + 4, index % columns * 132 + 4
        assert (grid[:, top : top + 128, left : left + 128] == clip).all()
        caption = grid[0, top - strip : top, left : left + 128]
        assert caption.min() < 100  # ink
        assert (caption[:, -2:] == 255).all()


def test_a_clip_that_ends_before_the_longest_fades_and_its_last_frame_stays() -> None:
    random = numpy.random.default_rng(0)
    short, long = (random.integers(0, 256, (frames, 128, 128, 3), dtype=numpy.uint8) for frames in (3, 7))
    grid = captioned_grid([short, long], ["short", "long"], columns=2)
    assert grid.shape == (7, 128 + 20 + 8, 2 * 132 + 4, 3)
    shown = grid[:, 24:152, 4:132]
    assert (shown[:3] == short).all()
    assert (grid[:, 24:152, 136:264] == long).all()
    faded = 0.35 * short[2] + 0.65 * 255
    assert (numpy.abs(shown[3:] - faded) <= 1).all()
    assert (grid[:, 4:24] == grid[:1, 4:24]).all()  # captions stay as they are


def test_long_rows_are_folded_and_filled_up() -> None:
    clips = [numpy.full((1, 128, 128, 3), value, numpy.uint8) for value in range(10, 110, 10)]
    grid = captioned_grid(clips, [""] * 10, columns=5)  # two rows of five become four of three
    tile = 128 + 21 + 4
    assert grid.shape == (1, 4 * tile + 4, 3 * 132 + 4, 3)
    middles = [[grid[0, row * tile + 80, column * 132 + 60, 0] for column in range(3)] for row in range(4)]
    assert middles == [[10, 20, 30], [40, 50, 255], [60, 70, 80], [90, 100, 255]]
    assert captioned_grid(clips[:4], [""] * 4, columns=4).shape[2] == 4 * 132 + 4


def test_captions_can_be_read_on_a_card() -> None:
    sizes = {width: caption_size(width) for width in (136, 400, 532, 2000)}
    assert sizes == {136: 13, 400: 14, 532: 18, 2000: 20}
    clip = numpy.zeros((1, 8, 128, 3), numpy.uint8)
    heights = []
    for text in ("H", "H and much more text"):  # the longer one is written smaller instead of being cut off
        strip = captioned(clip, text, size=20)[0, :27]
        inked_rows = (strip[:, 3:12] < 128).all(axis=-1).any(axis=1).nonzero()[0]
        heights.append(inked_rows.max() - inked_rows.min() + 1)
    assert heights[1] < heights[0]


def test_long_captions_stay_in_their_tile_and_grids_need_clips() -> None:
    clips = [numpy.zeros((1, 128, 128, 3), numpy.uint8)] * 2
    grid = captioned_grid(clips, ["a very long caption that does not fit at all", ""], columns=2)
    assert (grid[0, 4:24, 128:] == 255).all()
    with pytest.raises(ValueError, match="at least one clip"):
        captioned_grid([], [], columns=2)
