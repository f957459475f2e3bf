"""The guide's screenshots: which there are, how large they are, and the command that makes them."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from docs.make_dashboard_pictures import PICTURES, Picture, main, make_pictures, screenshot, small_png
from logging_system.categories import CATEGORIES

DOCS = Path(__file__).resolve().parents[2] / "docs"
LARGEST_BYTES = 120_000


def test_guide_shows_every_category_once():
    names = [picture.name for picture in PICTURES]
    guide = (DOCS / "dashboard.md").read_text(encoding="utf-8")
    shown = re.findall(r"!\[[^\]]+\]\(images/(\w+)\.png\)", guide)
    assert sorted(shown) == sorted(names)
    for category in CATEGORIES:
        assert f"### {category.name}: " in guide
        assert f"category_{category.name[:2]}" in names


def test_pictures_are_small():
    for picture in PICTURES:
        assert 2_000 < (DOCS / "images" / f"{picture.name}.png").stat().st_size < LARGEST_BYTES


def test_palette_keeps_what_is_seen():
    picture = Image.new("RGB", (40, 20), (255, 255, 255))
    picture.paste((214, 90, 30), (10, 5, 30, 15))
    source = io.BytesIO()
    picture.save(source, format="PNG")
    small = Image.open(io.BytesIO(small_png(source.getvalue())))
    assert small.mode == "P"
    assert small.convert("RGB").tobytes() == picture.tobytes()


def test_folder_without_a_run_is_an_error(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "pictures")]) == 1
    assert "holds no event file" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_are_made_and_missing_ones_named(finished_run, tmp_path, monkeypatch, capsys):
    there = Picture("there", "timeseries", "01_Training/Loss$", cards=1)
    missing = Picture("missing", "text", "no_such_tag", cards=1)

    def screenshot_in_time(page, address, picture):
        page.set_default_timeout(4_000 if picture is missing else 100_000)
        return screenshot(page, address, picture)

    monkeypatch.setattr("docs.make_dashboard_pictures.screenshot", screenshot_in_time)
    with ThreadPoolExecutor(max_workers=1) as other:  # Playwright runs once a thread, and the other tests have it here
        found = other.submit(make_pictures, finished_run, tmp_path, [there, missing]).result()
    assert found == ["missing"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["there.png"]
    width, height = Image.open(tmp_path / "there.png").size
    assert 300 < width < 500
    assert 200 < height < 500
    assert "missing.png  left as it was" in capsys.readouterr().out
