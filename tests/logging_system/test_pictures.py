"""Charts and grids of clips: pixels where they should be, and no crash on odd data."""

import numpy
import pytest

from logging_system.charts import bar_chart, heat_map, line_chart
from logging_system.drawing import ACCENT, LINE, nice_ticks, short_number
from logging_system.frames import captioned_grid, enlarged, scale_to_be_seen


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


def test_line_runs_through_its_values() -> None:
    x = numpy.linspace(0, 100, 101)
    picture = line_chart(x, x / 100, title="t", x_label="x", y_label="y", marker=(50.0, 0.5))
    rows, columns = _where(picture, LINE)
    assert picture.shape == (420, 640, 3)
    slope = numpy.polyfit(columns, rows, 1)[0]
    assert slope == pytest.approx(-(302 / 1.08) / 540, rel=0.02)
    marker_rows, marker_columns = _where(picture, ACCENT)
    assert numpy.median(marker_columns) == pytest.approx(78 + 270, abs=2)
    assert marker_rows.min() <= 64


def test_flat_line_at_zero_is_drawn() -> None:
    picture = line_chart(numpy.array([1.0, 2.0]), numpy.zeros(2), title="t", x_label="x", y_label="y", marker=(1, 0))
    assert _where(picture, LINE)[0].size


def test_bars_are_logarithmic() -> None:
    values = numpy.array([1e-3, 1e-1, 0.0, numpy.nan])
    picture = bar_chart(["a", "b", "c", "d"], values, title="t", y_label="y")
    rows, columns = _where(picture, LINE)
    middles = [78 + 540 * (index + 0.5) / 4 for index in range(4)]
    tops = [rows[abs(columns - middle) < 5].min(initial=999) for middle in middles]
    assert tops[1] == pytest.approx(62, abs=1)  # the largest power of ten
    assert tops[0] >= 282  # the smallest one, no height
    assert tops[2:] == [999, 999]


@pytest.mark.parametrize("values", [[numpy.nan], [0.0], [numpy.inf, 1.0], [5.0] * 300])
def test_bars_of_odd_values(values: list[float]) -> None:
    names = [f"down.{index}.convolution.of.a.long.name" for index in range(len(values))]
    assert bar_chart(names, numpy.array(values), title="t", y_label="y").shape == (420, 640, 3)


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
    assert picture.shape == (420, 640, 3)


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
    row = picture[200, 79:536].tolist()
    assert row.count([68, 1, 84]) / len(row) == pytest.approx(0.75, abs=0.01)


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
    assert grid.shape == (3, -(-number // columns) * 152 + 4, columns * 132 + 4, 3)
    assert grid.dtype == numpy.uint8
    for index, clip in enumerate(clips):
        top, left = index // columns * 152 + 24, index % columns * 132 + 4
        assert (grid[:, top : top + 128, left : left + 128] == clip).all()
        caption = grid[0, top - 20 : top, left : left + 128]
        assert caption.min() < 100  # ink
        assert (caption[:, -2:] == 255).all()


def test_long_captions_stay_in_their_tile_and_grids_need_clips() -> None:
    clips = [numpy.zeros((1, 128, 128, 3), numpy.uint8)] * 2
    grid = captioned_grid(clips, ["a very long caption that does not fit at all", ""], columns=2)
    assert (grid[0, 4:24, 128:] == 255).all()
    with pytest.raises(ValueError, match="at least one clip"):
        captioned_grid([], [], columns=2)
