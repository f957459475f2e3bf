import json
import logging

import pytest

import data.verdicts
from data.media.motion import Region
from data.media.resample import MediaFacts
from data.rows import Media, TimeSpan
from data.verdicts import Verdict, VerdictStore

MEDIA = Media("video", "a.mp4")
FACTS = MediaFacts(640, 480, 50, 2.0, ("turned", "mirrored"), Region(0.1, 0.25, 1 / 3, 1.0))
VERDICT = Verdict("abc", FACTS)


@pytest.fixture
def open_store(tmp_path):
    (tmp_path / "clips").mkdir()
    return lambda: VerdictStore(tmp_path / "cache", tmp_path / "clips")


def store_file(tmp_path):
    return next((tmp_path / "cache").rglob("*.jsonl"))


def test_what_was_found_out_is_known_at_the_next_start(open_store):
    store = open_store()
    assert store.get(MEDIA, "stamp") is None
    store.add(MEDIA, "stamp", VERDICT)
    store.write()
    assert open_store().get(MEDIA, "stamp") == VERDICT


@pytest.mark.parametrize(
    ("media", "stamp"),
    [
        (MEDIA, "another stamp"),
        (Media("video", "b.mp4"), "stamp"),
        (Media("video", "a.mp4", TimeSpan(1.0, 2.0)), "stamp"),
        (Media("frames", "a.mp4"), "stamp"),
    ],
)
def test_it_is_not_taken_for_what_is_known_of_another_clip(open_store, media, stamp):
    store = open_store()
    store.add(MEDIA, "stamp", VERDICT)
    store.write()
    assert open_store().get(media, stamp) is None


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_that_a_killed_process_left_unfinished_spoils_no_other(open_store, tmp_path, cut):
    store = open_store()
    store.add(MEDIA, "1", VERDICT)
    store.write()
    store.add(MEDIA, "2", VERDICT)
    store.write()
    content = store_file(tmp_path).read_bytes()
    store_file(tmp_path).write_bytes(content[:-cut])
    again = open_store()
    assert again.get(MEDIA, "1") == VERDICT
    assert (again.get(MEDIA, "2") is None) == (cut > 1)
    again.add(MEDIA, "3", VERDICT)
    again.write()
    assert open_store().get(MEDIA, "3") == VERDICT


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{}", b"\xff\xfe", b'{"key": 1}', b"[" * 100_000, b'{"key": "a", "facts": 3}'],
    ids=["list", "empty object", "not UTF-8", "number as key", "nested too deeply", "number as facts"],
)
def test_damaged_lines_do_not_count(open_store, tmp_path, line):
    store = open_store()
    store.add(MEDIA, "1", VERDICT)
    store.write()
    store_file(tmp_path).write_bytes(line + b"\n" + store_file(tmp_path).read_bytes())
    assert open_store().get(MEDIA, "1") == VERDICT


def test_two_processes_may_add_to_one_file(open_store):
    first, second = open_store(), open_store()
    first.add(MEDIA, "1", VERDICT)
    second.add(MEDIA, "2", VERDICT)
    first.write()
    second.write()
    assert open_store().get(MEDIA, "1") == open_store().get(MEDIA, "2") == VERDICT


def test_what_is_no_longer_asked_for_is_left_out_when_it_is_most_of_the_file(open_store, tmp_path, monkeypatch):
    monkeypatch.setattr(data.verdicts, "MOST_STALE_LINES", 3)
    store = open_store()
    for number in range(10):
        store.add(MEDIA, str(number), VERDICT)
    store.write()
    again = open_store()
    for number in range(6):
        again.get(MEDIA, str(number))
    again.tidy()  # four of ten are stale: not most of them
    assert len(store_file(tmp_path).read_text().split()) > 10
    again = open_store()
    again.get(MEDIA, "7")
    again.tidy()
    lines = [json.loads(line) for line in store_file(tmp_path).read_text().splitlines() if line]
    assert [line["digest"] for line in lines] == ["abc"]
    assert open_store().get(MEDIA, "7") == VERDICT


def test_a_disk_that_cannot_be_written_is_said_and_does_no_harm(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the folder should be")
    store = VerdictStore(tmp_path / "cache", tmp_path)
    store.add(MEDIA, "1", VERDICT)
    with caplog.at_level(logging.WARNING):
        store.write()
    assert "cannot be written" in caplog.text
    assert store.get(MEDIA, "1") == VERDICT
