"""What lies outside of a data set's folder is read only where DATA_ALLOW says so, whichever way leads there."""

import dataclasses
import json
import os
import shlex

import numpy
import pytest
from PIL import Image

from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from data.build import inspect_data
from data.clip_set import InspectedClips
from data.formats.folder import FORMAT
from data.formats.registry import read_data_set
from data.inspection import outside_notices
from data.rows import Manifest, SkippedRow, UnusableClip
from data.shards import write_shards

SHADES = (40, 120, 200)


@pytest.fixture
def disk(tmp_path, write_video):
    """Three grey clips outside of every data set, two levels deep."""
    for number, shade in enumerate(SHADES):
        path = tmp_path / "disk" / "clips" / str(number % 2) / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, numpy.full((4, 16, 16, 3), shade, numpy.uint8))
    return tmp_path / "disk"


@pytest.fixture
def inspect(tmp_path):
    """Inspect a data set as main.py does."""

    def run(path, *options):
        arguments = [f"--data-root={path}", f"--cache-dir={tmp_path / 'cache'}", "--image-size=32", "--max-frames=4"]
        config = load_settings(Config, PRESETS, [*arguments, *options], program="main.py").config
        return inspect_data(config)

    return run


def clips_of(disk):
    return sorted(disk.rglob("*.mp4"), key=lambda path: path.name)


def list_with(disk, line):
    """A list in a folder of its own whose lines name the clips in one way."""
    folder = disk.parent / "lists"
    folder.mkdir()
    lines = [f"{line(path)},{number}" for number, path in enumerate(clips_of(disk))]
    (folder / "manifest.csv").write_text("\n".join(["path,text", *lines]))
    return folder


def folder_of_links(disk, links_to_captions):
    folder = disk.parent / "links"
    folder.mkdir()
    for path in clips_of(disk):
        (folder / path.name).symlink_to(os.path.relpath(path, folder))
        caption = path.with_suffix(".txt") if links_to_captions else folder / f"{path.stem}.txt"
        caption.write_text(path.stem)
        if links_to_captions:
            (folder / caption.name).symlink_to(caption)
    return folder


def list_of_links(disk):
    folder = folder_of_links(disk, links_to_captions=False)
    for path in folder.glob("*.txt"):
        path.unlink()
    (folder / "manifest.csv").write_text("path,text\n" + "".join(f"{number}.mp4,{number}\n" for number in range(3)))
    return folder


def link_to_a_folder(disk):
    folder = disk.parent / "links"
    folder.mkdir()
    (folder / "all").symlink_to(disk / "clips")
    for path in clips_of(disk):
        path.with_suffix(".txt").write_text(path.stem)
    return folder


def shards(disk):
    for path in clips_of(disk):
        path.with_suffix(".txt").write_text(path.stem)
    manifest = FORMAT.read(disk)
    write_shards(manifest, disk / "clips" / "packed", shard_bytes=1, seed=0)
    folder = disk.parent / "links"
    folder.mkdir()
    for path in (disk / "clips" / "packed").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "inside.tar").write_bytes((folder / "shard-000000.tar").read_bytes())
    return folder


WAYS = {
    "absolute paths": lambda disk: list_with(disk, str),
    "paths with ..": lambda disk: list_with(disk, lambda path: f"../{path.relative_to(disk.parent)}"),
    "a list of links": list_of_links,
    "clips that are links": lambda disk: folder_of_links(disk, links_to_captions=False),
    "captions that are links": lambda disk: folder_of_links(disk, links_to_captions=True),
    "a link to a folder": link_to_a_folder,
    "shards that are links": shards,
}


@pytest.mark.parametrize("way", WAYS)
def test_what_lies_outside_is_read_once_it_is_allowed(disk, inspect, way):
    folder = WAYS[way](disk)
    own = 1 if way == "shards that are links" else 0
    if way == "a link to a folder":  # nothing else is there, which is refused
        path = folder / "good.mp4"
        path.write_bytes(clips_of(disk)[0].read_bytes())
        path.with_suffix(".txt").write_text("good")
        own = 1
    inspection, _ = inspect(folder)
    assert len(inspection.usable) == own
    assert {row.reason for row in inspection.skipped} != set()
    (notice,) = [notice for notice in inspection.notices if "--data-allow" in notice.text]
    assert notice.topic == "files"
    option = shlex.split(notice.text.rpartition(" add ")[2])
    whole = {"a link to a folder": "clips", "shards that are links": "clips/packed"}
    parts = json.dumps([str(disk / "clips" / "0"), str(disk / "clips" / "1")])
    assert option == ["--data-allow", str(disk / whole[way]) if way in whole else parts]
    inspection, reader = inspect(folder, *option)
    assert inspection.skipped == ()
    assert [notice for notice in inspection.notices if "--data-allow" in notice.text] == []
    clips = InspectedClips(reader, inspection.usable)
    shades = [round(float(clips.load(clips.row(0, index)).mean())) for index in range(len(clips))]
    assert len(shades) == 3 + own
    assert all(min(abs(shade - each) for each in SHADES) <= 3 for shade in shades)
    assert len({clip.digest for clip in inspection.usable}) == 3


def test_only_what_is_allowed_is_read(disk, inspect):
    folder = list_with(disk, str)
    inspection, _ = inspect(folder, f"--data-allow={disk / 'clips' / '0'}")
    assert [clip.row.caption for clip in inspection.usable] == ["0", "2"]
    (skipped,) = inspection.skipped
    assert skipped.reason == f"leads out of the data set's folder, to {disk / 'clips' / '1'} (DATA_ALLOW)"
    (notice,) = inspection.notices
    assert notice.text == (
        "1 path leads out of the data set's folder, such as manifest.csv line 3: to read there, add --data-allow "
        f"{disk / 'clips' / '1'}"
    )
    for near in (f"{disk}x", str(disk / "clips" / "0" / "0.mp4x"), str(disk / "nothing")):
        assert len(inspect(folder, f"--data-allow={near}")[0].usable) == 0


def test_several_folders_are_proposed_as_the_option_takes_them(disk, inspect, tmp_path):
    folder = list_with(disk, str)
    with open(folder / "manifest.csv", "a") as file:
        file.write("\n/usr/bin/env,tool")  # on another disk, perhaps
    inspection, _ = inspect(folder)
    (notice,) = inspection.notices
    bin_folder = os.path.dirname(os.path.realpath("/usr/bin/env"))
    folders = sorted([str(disk / "clips" / "0"), str(disk / "clips" / "1"), bin_folder])
    assert notice.text.endswith(f"--data-allow {shlex.quote(json.dumps(folders))}")
    option = shlex.split(notice.text.rpartition(" add ")[2])
    inspection, _ = inspect(folder, *option)
    assert len(inspection.usable) == 3
    (skipped,) = inspection.skipped
    assert skipped.reason.startswith("names path='/usr/bin/env': a clip is one of ")


def test_folders_are_proposed_as_they_are_and_never_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "me"))

    def proposed(*folders):
        skipped = [SkippedRow(f"{number}.mp4", "x", outside=folder) for number, folder in enumerate(folders)]
        return [notice.text.rpartition(": ")[2] for notice in outside_notices(skipped)]

    home = str(tmp_path / "home")
    assert proposed("/mnt/a", "/mnt/b", "/mnt/a/c", "/") == [
        """to read there, add --data-allow '["/mnt/a", "/mnt/b"]'"""
    ]
    assert proposed(f"{home}/me/clips", f"{home}/me") == [f"to read there, add --data-allow {home}/me/clips"]
    assert proposed("/", home, f"{home}/me") == ["put what it leads to into that folder"]
    four = proposed("/m/d", "/m/c", "/m/b", "/m/a")
    assert four == ["""to read there, add --data-allow '["/m/a", "/m/b", "/m/c"]' and others"""]


def test_frames_may_be_links_into_a_store(tmp_path, inspect):
    store, frames = tmp_path / "store" / "ab", tmp_path / "set" / "frames"
    store.mkdir(parents=True)
    frames.mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (16, 16), (10, 20, 60 * number)).save(store / f"{number}.png")
        (frames / f"{number}.png").symlink_to(store / f"{number}.png")
    (tmp_path / "set" / "manifest.csv").write_text("path,text\nframes,hello\n")
    inspection, _ = inspect(tmp_path / "set")
    assert inspection.usable == ()
    (notice,) = inspection.notices
    assert notice.text.endswith(f"add --data-allow {store}")
    inspection, _ = inspect(tmp_path / "set", f"--data-allow={store}")
    assert len(inspection.usable) == 1


def test_what_is_allowed_later_is_checked_when_it_is_opened(disk, inspect):
    """A link that is turned elsewhere after the inspection is not followed."""
    folder = folder_of_links(disk, links_to_captions=False)
    inspection, reader = inspect(folder, f"--data-allow={disk}")
    secret = disk.parent / "secret.mp4"
    secret.write_bytes(clips_of(disk)[1].read_bytes())
    (folder / "0.mp4").unlink()
    (folder / "0.mp4").symlink_to(secret)
    clip = dataclasses.replace(inspection.usable[0], stamp="other")
    reader = dataclasses.replace(
        reader, shape=dataclasses.replace(reader.shape, image_size=(20, 20))
    )  # not in the cache
    with pytest.raises(UnusableClip, match="leads out of the data set's folder"):
        reader.clip(clip)


def test_shards_are_written_of_what_is_allowed(disk, inspect, tmp_path):
    folder = list_with(disk, str)
    inspection, _ = inspect(folder, f"--data-allow={disk}")
    rows = tuple(clip.row for clip in inspection.usable)
    report = write_shards(Manifest(inspection.root, rows, ()), tmp_path / "out", shard_bytes=1 << 20, seed=0)
    assert (report.clips, report.skipped) == (3, [])


def test_clips_are_not_read_again_because_more_is_allowed(disk, inspect, monkeypatch):
    folder = folder_of_links(disk, links_to_captions=False)
    inspect(folder, f"--data-allow={disk}")
    monkeypatch.setattr("data.inspection.decode_media", None)
    assert len(inspect(folder, f'--data-allow=["{disk}", "/nothing"]')[0].usable) == 3


LISTS = {
    "metadata.csv": "path,text\na.mp4,secret\n",
    "manifest.jsonl": '{"path": "a.mp4", "text": "secret"}\n',
    "prompts.txt": "secret\n",
    "index.csv": "path,spoken_language,signed_language,start,end,words,glosses,priority\na.mp4,en,ase,0,0,secret,,1\n",
    "how2sign_realigned_train.csv": "SENTENCE_NAME\tSENTENCE\na\tsecret\n",
    "PHOENIX-2014-T.train.corpus.csv": "name|translation\na|secret\n",
    "MSASL_train.json": '[{"url": "https://youtu.be/abcdefghijk", "text": "secret"}]',
    "WLASL_v0.3.json": '[{"gloss": "secret", "instances": [{"video_id": "a", "split": "train"}]}]',
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_a_link_is_read_only_inside_or_where_that_is_allowed(tmp_path, name):
    folder, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    (folder / "features/fullFrame-210x260px/train/a").mkdir(parents=True)
    elsewhere.mkdir()
    (folder / "a.mp4").touch()
    if name == "prompts.txt":
        (folder / "videos.txt").write_text("a.mp4\n")
    (elsewhere / name).write_text(LISTS[name])
    (folder / name).symlink_to(elsewhere / name)
    with pytest.raises(
        UserError, match=f"{name} leads out of the data set's folder, to {elsewhere} .DATA_ALLOW."
    ) as no:
        read_data_set(folder, "auto")
    assert "secret" not in str(no.value)
    _, _, allowed = read_data_set(folder, "auto", (elsewhere,))
    (folder / name).unlink()
    (folder / "lists").mkdir()
    (folder / "lists" / "own").write_text(LISTS[name])
    (folder / name).symlink_to("lists/own")
    _, _, inside = read_data_set(folder, "auto")
    assert [row.caption for row in allowed.rows] == [row.caption for row in inside.rows]
    assert len(allowed.skipped) == len(inside.skipped)
