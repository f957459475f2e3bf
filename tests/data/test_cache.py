import logging
import os

import numpy
import pytest

from data.cache import ClipCache


def clip(value, size=1000):
    return numpy.full((size,), value, numpy.uint8)


def cached_files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def refuse():
    raise AssertionError("made again")


def test_a_clip_is_made_once(tmp_path):
    cache = ClipCache(tmp_path, 10**6)
    made = numpy.arange(24, dtype=numpy.uint8).reshape(2, 2, 2, 3)
    assert (cache.get_or_make(("word", 1), lambda: made) == made).all()
    assert (ClipCache(tmp_path, 10**6).get_or_make(("word", 1), refuse) == made).all()


def test_every_part_of_the_key_counts(tmp_path):
    cache = ClipCache(tmp_path, 10**6)
    for number, key in enumerate([("a", 1), ("a", 2), ("b", 1), ("a", "1"), ("a1",)]):
        assert cache.get_or_make(key, lambda number=number: clip(number))[0] == number


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty", "pickle"])
def test_a_damaged_entry_is_made_again(tmp_path, damage):
    cache = ClipCache(tmp_path, 10**6)
    cache.get_or_make(("a",), lambda: clip(1))
    (file,) = cached_files(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "flipped bit":
        content[-50] ^= 1
    file.write_bytes({"cut": content[:-10], "flipped bit": content, "empty": b"", "pickle": b"\x80\x04N."}[damage])
    assert (cache.get_or_make(("a",), lambda: clip(2)) == 2).all()
    assert (cache.get_or_make(("a",), refuse) == 2).all()


def test_entries_are_plain_npy_files(tmp_path):
    ClipCache(tmp_path, 10**6).get_or_make(("a",), lambda: clip(3))
    assert (numpy.load(cached_files(tmp_path)[0], allow_pickle=False) == 3).all()


def test_the_oldest_are_evicted_on_opening(tmp_path):
    cache = ClipCache(tmp_path, 10**6)
    for number in range(10):
        cache.get_or_make((number,), lambda number=number: clip(number))
        newest = max(cached_files(tmp_path), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (1000 + number, 1000 + number))
    reopened = ClipCache(tmp_path, 6000)
    assert sum(path.stat().st_size for path in cached_files(tmp_path)) <= 6000
    reopened.get_or_make((9,), refuse)
    assert reopened.get_or_make((0,), lambda: clip(77))[0] == 77


def test_it_stays_bounded_while_it_is_used(tmp_path):
    cache = ClipCache(tmp_path, 20_000)
    for number in range(200):
        cache.get_or_make((number,), lambda: clip(0))
    assert sum(path.stat().st_size for path in cached_files(tmp_path)) <= 20_000 * 1.2


def test_a_full_disk_is_reported_once_and_not_fatal(tmp_path, monkeypatch, caplog):
    cache = ClipCache(tmp_path, 10**6)

    def fail(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert (cache.get_or_make(("a",), lambda: clip(4)) == 4).all()
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    assert cached_files(tmp_path) == []


def test_an_impossible_folder_is_not_fatal(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = ClipCache(tmp_path / "file", 10**6)
    assert (cache.get_or_make(("a",), lambda: clip(5)) == 5).all()
    assert len(caplog.records) == 1


def test_errors_of_the_maker_pass_and_store_nothing(tmp_path):
    with pytest.raises(AssertionError, match="made again"):
        ClipCache(tmp_path, 10**6).get_or_make(("a",), refuse)
    assert cached_files(tmp_path) == []
