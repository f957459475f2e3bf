"""What a person sees in the dashboard of a finished run."""

import time

import pytest

from logging_system.registry import CATEGORIES

FIFTEEN = [specification.name for specification in CATEGORIES]


@pytest.fixture
def open_tab(chromium_page, tensorboard_url, finished_run):
    """Open one of TensorBoard's tabs, with only the tags that match an expression."""

    def go(tab, tags=""):
        chromium_page.goto("about:blank")  # a change after the # alone would not load the tab anew
        chromium_page.goto(f"{tensorboard_url(finished_run.parent)}/#{tab}&tagFilter={tags}")
        return chromium_page

    return go


def group_titles(page, selector):
    """Return the headings, once as many have appeared as will."""
    page.locator(selector).first.wait_for()
    titles, before = [], None
    while titles != before or not titles:
        before = titles
        time.sleep(0.5)
        titles = [text.split("\n")[0].strip() for text in page.locator(selector).all_inner_texts()]
    return set(titles)


def first_picture(page, category):
    """Return the first picture of a category in the Images tab, loaded and in view."""
    picture = page.locator("tf-image-loader", has_text=f"tag: {category}/").locator("img").first
    picture.wait_for()
    picture.scroll_into_view_if_needed()
    element = picture.element_handle()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=element)
    return picture


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
    titles = group_titles(page, "metrics-dashboard [class*=group-title]")
    page.screenshot(path=tmp_path / "time_series.png")
    # Texts have a tab of their own, and nothing of theirs is in Time Series.
    titles |= group_titles(open_tab("text"), "tf-category-paginated-view .heading")
    assert titles >= set(FIFTEEN)
    assert len(FIFTEEN) == 15


@pytest.mark.parametrize("category", ["12_Generated_Samples", "13_Noise_Visualization"])
def test_videos_move(open_tab, category, tmp_path):
    page = open_tab("images", category)
    picture = first_picture(page, category)
    page.screenshot(path=tmp_path / f"{category}.png")
    assert views(picture, seconds=20) >= 4


def test_pictures_stand_still(open_tab):
    """Guards the test above: what it takes for motion is not the page settling."""
    picture = first_picture(open_tab("images", "04_Learning_Rate"), "04_Learning_Rate")
    picture.screenshot()
    assert views(picture, seconds=3) == 1


def test_hparams_show_this_run_once(open_tab, finished_run):
    page = open_tab("hparams")
    page.get_by_text("LEARNING_RATE", exact=True).first.wait_for()
    rows = page.get_by_text(finished_run.name, exact=True)
    rows.first.wait_for()
    assert page.get_by_text(f"{finished_run.name}/").count() == 0  # no sub-runs
