"""Make the screenshots of docs/dashboard.md from a finished run.

``python -m docs.make_dashboard_pictures logs/NAME docs/images`` starts TensorBoard on the run, looks at it with
Chromium and writes one PNG a category, and one of each tab that shows several.
"""

import argparse
import io
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, ViewportSize, sync_playwright
from playwright.sync_api import TimeoutError as WaitedTooLong

from common.console import program
from common.errors import UserError
from logging_system.dashboard_server import choose_port, tensorboard_server

HOST = "127.0.0.1"
VIEWPORT = ViewportSize(width=1540, height=1300)
PATIENCE_MILLISECONDS = 20_000
MARGIN = 8  # pixels above the cards, where the names of runs stand out
COLOURS = 128  # of the palette; enough for charts, and few enough that a picture stays small
# The settings pane and the table below each chart leave no room for the charts themselves. Smoothing and the cut that
# "ignore outliers" makes would show curves of few points as something that they are not.
SETTINGS = """localStorage.setItem('_tb_global_settings', JSON.stringify({
    timeSeriesSettingsPaneOpened: false, stepSelectorEnabled: false, scalarSmoothing: 0, ignoreOutliers: false}))"""
CARDS = {
    "timeseries": "card-view",
    "images": "tf-image-loader",
    "text": "tf-text-loader",
    "custom_scalars": "tf-custom-scalar-multi-line-chart-card",
}


@dataclass(frozen=True)
class Picture:
    """What to look at: some cards of one tab."""

    name: str  # of the file, without .png
    tab: str
    tags: str = ""  # regular expression
    cards: int | None = None  # how many, from the first; None shows the page
    height: int | None = None  # of the picture at most, in pixels


PICTURES = (
    Picture("dashboard_time_series", "timeseries"),
    Picture("dashboard_custom_scalars", "custom_scalars"),
    Picture("dashboard_hparams", "hparams", height=420),
    Picture("category_01", "timeseries", "01_Training/(Gradient_Norm$|Loss$|Validation_Loss)", 3),
    Picture(
        "category_02",
        "timeseries",
        "02_.*(Text_Gap_Shuffled($|_Lower)|Validation/Loss$|Loss_Shuffled|Timestep_Bin_[18]$)",
        6,
    ),
    Picture("category_03", "timeseries", "03_Epoch_Summary/(Average_Loss|Best_Val|Epoch_Time)", 3),
    Picture("category_04", "timeseries", "04_Learning_Rate/(Current_LR$|LR_In_100_|Schedule)", 3),
    Picture("category_05", "timeseries", "05_Performance/(Data_Wait|Logging_Overhead|Samples_Per_Second)", 3),
    Picture("category_06", "timeseries", "06_Diffusion/(Loss_By|Noise_Prediction_MSE|Timestep_Dist)", 3),
    Picture("category_07", "timeseries", "07_Noise_Analysis/(Noise_Correlation$|Predicted_Noise$|Predicted_Std)", 3),
    Picture("category_08", "text", "08_Model_Architecture", 1, height=420),
    Picture("category_09", "timeseries", "09_Parameter_Stats/unet.stem/(Norm|Std|Update_To_Weight_Ratio)", 3),
    Picture("category_10", "timeseries", "10_.*(stem|unet.pixels.output|text_encoder.embedding)", 3),
    Picture("category_11", "timeseries", "11_Gradient_Stats/(Clip_Percent|Gradient_Flow|unet.stem/Histogram)", 3),
    Picture("category_12", "images", "12_Generated_Samples/(Grid|Real_And|Time_Lapse)", 3, height=470),
    Picture("category_13", "images", "13_Noise_Visualization/(Denoising|Predicted|Side)", 3),
    Picture("category_14", "timeseries", "14_System/(CPU|Process_RSS|Disk)", 3),
    Picture("category_15", "text", "15_Configuration/Run_Doctor", 1, height=360),
)


@program
def main(arguments: Sequence[str]) -> int:
    """Make the pictures and return the exit code: 1 if one could not be made."""
    parser = argparse.ArgumentParser(description="Make the screenshots of docs/dashboard.md from a finished run.")
    parser.add_argument("run", type=Path, help="folder of a finished run, such as logs/NAME")
    parser.add_argument("output", type=Path, help="folder for the pictures, such as docs/images")
    parser.add_argument("--only", default="", help="only pictures whose name contains this")
    options = parser.parse_args(arguments)
    wanted = [picture for picture in PICTURES if options.only in picture.name]
    return 1 if make_pictures(options.run, options.output, wanted) else 0


def make_pictures(run: Path, output: Path, pictures: Sequence[Picture]) -> list[str]:
    """Write every picture to `output`, print its size, and return the names of those that the run has no tags for.

    Raises:
        UserError: the folder holds no run, or Chromium is missing.
    """
    if not any(run.glob("*tfevents*")):
        raise UserError(f"{run} holds no event file. Name the folder of a finished run, such as logs/NAME.")
    output.mkdir(parents=True, exist_ok=True)
    missing = []
    with served(run) as address, browser_page() as page:
        for picture in pictures:
            try:
                content = small_png(screenshot(page, address, picture))
            except WaitedTooLong:
                missing.append(picture.name)
                print(f"{picture.name}.png  left as it was: the run has no tag that matches {picture.tags}", flush=True)
                continue
            (output / f"{picture.name}.png").write_bytes(content)
            print(f"{picture.name}.png  {len(content) / 1000:.0f} kB", flush=True)
    return missing


@contextmanager
def served(run: Path) -> Iterator[str]:
    """Serve this run alone, and yield the address."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / run.resolve().name).symlink_to(run.resolve(), target_is_directory=True)
        port = choose_port(HOST, None)
        with tensorboard_server(Path(folder), HOST, port):
            yield f"http://{HOST}:{port}"


@contextmanager
def browser_page() -> Iterator[Page]:
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        raise UserError("Chromium is not installed. On Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=VIEWPORT)
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        page.add_init_script(SETTINGS)
        yield page
        browser.close()


def screenshot(page: Page, address: str, picture: Picture) -> bytes:
    """Return a PNG of the picture's cards, or of the page; playwright's TimeoutError if no card appeared."""
    tags = quote(picture.tags)
    # Time Series reads the filter from before the #, the older tabs from behind it.
    query = "?darkMode=false" + (f"&tagFilter={tags}" if picture.tab == "timeseries" else "")
    page.goto("about:blank")  # a change behind the # alone would not reload the page
    page.goto(f"{address}/{query}#{picture.tab}" + (f"&tagFilter={tags}" if tags else ""))
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # charts fade in
    if picture.cards is None:
        return page.screenshot(clip={"x": 0, "y": 0, "width": VIEWPORT["width"], "height": picture.height or 900})
    cards = page.locator(CARDS[picture.tab])
    if picture.tab in ("images", "text"):  # these show other tags too, below those that match
        cards = cards.filter(has_text=re.compile(picture.tags))
    cards.first.wait_for()
    return page.screenshot(clip=around(cards, picture))


def around(cards: Locator, picture: Picture) -> FloatRect:
    """Return the rectangle that holds the first cards."""
    boxes = [box for card in cards.all()[: picture.cards] if (box := card.bounding_box()) is not None]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes) - MARGIN
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    height = min(bottom - top, picture.height or math.inf, VIEWPORT["height"] - top)
    return {"x": left, "y": top, "width": right - left, "height": height}


def small_png(png: bytes) -> bytes:
    """Return the picture with a palette of few colours."""
    picture = Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    target = io.BytesIO()
    picture.save(target, format="PNG", optimize=True)
    return target.getvalue()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
