"""What a person sees in the dashboard of a finished run."""

import io
import json
import re
import time

import numpy
import pytest
from PIL import Image

from logging_system.categories import CATEGORIES, c06_diffusion
from logging_system.categories.c15_configuration import LAYOUT, PROMINENT_CONSTANTS, RESULT_TAGS
from logging_system.pictures.charts import ACCENT, COLOURS, LINE
from tests.browser.conftest import PATIENCE_MILLISECONDS
from tests.waiting import wait_until

FIFTEEN = [specification.name for specification in CATEGORIES]

# TensorBoard puts a new <img> in place of a picture's first whenever a property of its card arrives late, so one that
# was found may be gone a moment later. True where the picture is loaded, in view, and has outlived a second.
STAYS_JS = """async image => {
    image.scrollIntoView({block: "center"});
    await new Promise(resolve => setTimeout(resolve, 1000));
    return image.isConnected && image.complete && image.naturalWidth > 0;
}"""


@pytest.fixture
def open_tab(chromium_page, tensorboard_url, finished_run):
    """Open one of TensorBoard's tabs, with only the tags that match an expression."""

    def go(tab, tags=""):
        chromium_page.goto("about:blank")  # a change after the # alone would not load the tab anew
        chromium_page.goto(f"{tensorboard_url(finished_run.parent)}/#{tab}&tagFilter={tags}")
        return chromium_page

    return go


def wait_for_groups(page, selector, names):
    """Wait until all of these are among the headings."""

    def titles():
        return {text.split("\n")[0].strip() for text in page.locator(selector).all_inner_texts()}

    wait_until(lambda: titles() >= names, titles)


def first_picture(page, beginning):
    """Return the first picture in the Images tab whose tag begins so, loaded, in view and there to stay."""
    picture = page.locator("tf-image-loader", has_text=f"tag: {beginning}").locator("img").first
    deadline = time.monotonic() + PATIENCE_MILLISECONDS / 1000
    while not picture.evaluate(STAYS_JS):
        assert time.monotonic() < deadline, f"no picture of {beginning} stays"
    return picture


def pixels(picture):
    """Return a screenshot as float [H, W, 3]."""
    return numpy.asarray(Image.open(io.BytesIO(picture.screenshot())).convert("RGB"), dtype=float)


def share_of_colour(screenshot_HWC, colour, distance=40):
    """Return the share of pixels near a colour; the browser and half a pixel of softness change colours a little."""
    return float((abs(screenshot_HWC - numpy.array(colour)).max(axis=-1) < distance).mean())


def views(picture, seconds):
    """Return how many different screenshots the picture gives within some seconds."""
    seen = set()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(seen) < 4:
        seen.add(picture.screenshot())
        time.sleep(0.15)
    return len(seen)


def test_all_fifteen_categories_are_there(open_tab, tmp_path):
    page = open_tab("timeseries")
    texts_alone = {"15_Configuration"}  # they have a tab of their own, and nothing of theirs is in Time Series
    wait_for_groups(page, "metrics-dashboard [class*=group-title]", set(FIFTEEN) - texts_alone)
    page.screenshot(path=tmp_path / "time_series.png")
    wait_for_groups(open_tab("text"), "tf-category-paginated-view .heading", texts_alone)
    assert len(FIFTEEN) == 15


@pytest.mark.slow
@pytest.mark.parametrize(
    ("category", "tag"),
    [("12_Generated_Samples", "12_Generated_Samples/Grid"), ("13_Noise_Visualization", "13_Noise_Visualization/")],
    ids=["12", "13"],
)
def test_videos_move(open_tab, category, tag, tmp_path):
    page = open_tab("images", category)
    picture = first_picture(page, tag)
    page.screenshot(path=tmp_path / f"{category}.png")
    assert views(picture, seconds=PATIENCE_MILLISECONDS / 1000) >= 4


@pytest.mark.slow
def test_pictures_stand_still(open_tab):
    """Guards the test above: what it takes for motion is not the page settling."""
    picture = first_picture(open_tab("images", "04_Learning_Rate"), "04_Learning_Rate/")
    wait_until(lambda: picture.screenshot() == picture.screenshot())
    assert views(picture, seconds=3) == 1


@pytest.mark.slow
def test_heat_map_is_coloured(open_tab):
    tag = "06_Diffusion/Loss_By_Timestep_Over_Time"
    seen = pixels(first_picture(open_tab("images", tag), "06_Diffusion/"))
    distances = abs(seen[:, :, None, :] - COLOURS).max(axis=-1)  # to the ten colours between which the map runs
    bar = seen.shape[1] * 8 // 10  # to the right of it stands the bar, which has all colours whatever the map shows
    assert (distances.min(axis=(0, 1)) < 12).sum() >= 9
    in_map = seen[:, :bar][(seen.max(axis=-1) - seen.min(axis=-1))[:, :bar] > 40]
    assert len(in_map) > 0.02 * seen.shape[0] * bar
    assert len(numpy.unique(in_map.round(-1), axis=0)) >= 5  # cells of several losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "colours"),
    [
        ("04_Learning_Rate/Schedule", {LINE: 0.002, ACCENT: 0.001}),
        ("11_Gradient_Stats/Gradient_Flow", {LINE: 0.02}),
    ],
)
def test_charts_are_drawn(open_tab, tag, colours):
    picture = first_picture(open_tab("images", tag), tag.split("/")[0])
    assert picture.evaluate("image => [image.clientWidth, image.clientHeight]") == [350, 215]  # half of what is drawn
    seen = pixels(picture)
    for colour, least in colours.items():
        assert share_of_colour(seen, colour) >= least


@pytest.mark.slow
def test_description_opens(open_tab):
    tag = "06_Diffusion/Loss_By_Timestep_Over_Time"
    page = open_tab("images", tag)
    first_picture(page, "06_Diffusion/")
    page.get_by_title("Show summary description").first.click()
    description = page.locator("tf-markdown-view p", has_text="Mean unweighted squared error").first
    description.wait_for()
    assert description.inner_text().strip() == c06_diffusion.TAGS[tag.split("/")[1]].description


@pytest.mark.slow
def test_custom_scalars_show_the_whole_layout(open_tab):
    page = open_tab("custom_scalars")
    for section, charts in LAYOUT.items():
        page.get_by_text(section, exact=True).first.wait_for()
        for chart in charts:
            page.get_by_text(chart, exact=True).first.wait_for(state="attached")
    cards = page.locator("tf-custom-scalar-multi-line-chart-card")
    assert cards.count() == sum(len(charts) for charts in LAYOUT.values())
    first = next(iter(next(iter(LAYOUT.values()))))
    lines = cards.filter(has_text=first).locator("path.line")
    lines.first.wait_for(state="attached")
    # "L" is the command of a path that draws a line from one point to the next.
    assert any("L" in path for path in lines.evaluate_all("paths => paths.map(path => path.getAttribute('d') || '')"))


def test_texts_show_the_configuration_and_the_verdict(open_tab):
    page = open_tab("text", "15_Configuration")
    texts = page.locator("tf-text-loader")
    config = texts.filter(has_text="15_Configuration/Config")
    config.get_by_role("cell", name="LEARNING_RATE", exact=True).first.wait_for()
    assert config.get_by_role("row", name=re.compile("MAX_STEPS")).first.inner_text().split() == ["MAX_STEPS", "3"]
    verdict = texts.filter(has_text="15_Configuration/Run_Doctor").locator("tf-markdown-view")
    verdict.get_by_text("checks are healthy").first.wait_for()


@pytest.mark.slow
def test_hparams_show_this_run_once(open_tab, finished_run):
    page = open_tab("hparams")
    page.get_by_text("LEARNING_RATE", exact=True).first.wait_for()
    rows = page.get_by_text(finished_run.name, exact=True)
    rows.first.wait_for()
    assert page.get_by_text(f"{finished_run.name}/").count() == 0  # no sub-runs


@pytest.mark.slow
def test_hparams_show_the_constants_that_runs_are_compared_by(open_tab):
    cells = open_tab("hparams").locator("tf-hparams-table-view vaadin-grid-cell-content")
    for constant in PROMINENT_CONSTANTS:
        cells.get_by_text(constant, exact=True).first.wait_for()
    assert cells.get_by_text("ADAM_BETA_1", exact=True).count() == 0


@pytest.mark.slow
def test_hparams_show_the_results(open_tab, finished_run):
    page = open_tab("hparams")
    cells = page.locator("tf-hparams-table-view vaadin-grid-cell-content")
    for tag in RESULT_TAGS[:5]:  # as many as TensorBoard shows unless asked for more
        cells.get_by_text(tag, exact=True).first.wait_for()
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    loss = next(line["value"] for line in reversed(lines) if line["tag"] == RESULT_TAGS[0])
    numbers = [float(text) for text in cells.all_inner_texts() if re.fullmatch(r"[0-9.]+", text.strip())]
    assert any(number == pytest.approx(loss, rel=1e-4) for number in numbers)
