import errno
import io
import itertools
import json
import tarfile
from pathlib import Path

import numpy
import pytest
from PIL import Image
from webdataset import WebDataset

import data.shards
from common.errors import UserError
from data.formats import folder, manifest, webdataset
from data.media.decode import decode_media
from data.rows import WHOLE, Manifest, ManifestRow, Media, TimeSpan
from data.shards import write_shards
from tests.shapes import stretched

ONE_SHARD = {"shard_bytes": 10**9, "seed": 0}
SHAPE = stretched(8, 32)


@pytest.fixture
def videos(tmp_path, write_video, brightening_video):
    """A folder of twelve clips of three signers."""
    root = tmp_path / "videos"
    (root / "sub").mkdir(parents=True)
    for number in range(12):
        name = root / ("sub" if number % 2 else ".") / f"{'abc'[number // 4]}_clip.{number:02d}"
        extension = (".mp4", ".gif", ".webm")[number % 3]
        write_video(name.with_name(name.name + extension), numpy.roll(brightening_video, number, axis=0))
        name.with_name(name.name + ".txt").write_text(f"caption {number} ü")
    return folder.with_signers(folder.FORMAT.read(root))


def read(root):
    return webdataset.FORMAT.read(root)


def by_original_id(root):
    """Return the samples of all shards, as the library reads them, by the id that their .json gives."""
    urls = sorted(map(str, root.glob("*.tar")))
    return {json.loads(item["json"])["id"]: item for item in WebDataset(urls, shardshuffle=False)}


def contents(root):
    return {file.name: file.read_bytes() for file in root.iterdir()}


def test_whole_files_are_copied_with_all_that_is_known_of_them(tmp_path, videos):
    report = write_shards(videos, tmp_path / "out", **ONE_SHARD)
    assert (report.shards, report.clips, report.encoded, report.skipped) == (1, 12, 0, [])
    samples = by_original_id(tmp_path / "out")
    assert samples.keys() == {row.id for row in videos.rows}
    assert sorted(item["__key__"] for item in samples.values()) == [f"{number:08d}" for number in range(12)]
    for row in videos.rows:
        item = samples[row.id]
        assert item[Path(row.id).suffix[1:]] == (videos.root / row.media.path).read_bytes()
        assert item["txt"].decode() == row.caption
        assert json.loads(item["json"]) == {"id": row.id, "signer": row.signer}


def test_what_was_written_is_read_as_a_data_set(tmp_path, videos):
    write_shards(videos, tmp_path / "out", shard_bytes=20_000, seed=0)
    assert webdataset.FORMAT.recognise(tmp_path / "out") == "it holds shard-000000.tar"
    again = read(tmp_path / "out")
    assert not again.skipped
    of_caption = {row.caption: row for row in again.rows}
    assert len(of_caption) == 12
    for row in videos.rows:
        copy = of_caption[row.caption]
        assert copy.signer == row.signer
        expected, decoded = decode_media(videos.root, row.media, SHAPE), decode_media(again.root, copy.media, SHAPE)
        assert numpy.array_equal(decoded.pixels_THWC, expected.pixels_THWC)
        assert decoded.facts == expected.facts
    report = write_shards(again, tmp_path / "copy", shard_bytes=20_000, seed=1)  # shards of shards
    assert (report.clips, report.encoded) == (12, 0)


def test_shards_have_no_more_than_their_bytes(tmp_path, videos):
    limit = 24_000
    report = write_shards(videos, tmp_path / "out", shard_bytes=limit, seed=0)
    sizes = {name: len(content) for name, content in contents(tmp_path / "out").items()}
    assert sorted(sizes) == [f"shard-{number:06d}.tar" for number in range(report.shards)]
    assert report.shards > 1
    assert max(sizes.values()) <= limit
    assert sum(sizes.values()) / report.shards > limit / 3
    keys = [item["__key__"] for item in WebDataset(sorted(map(str, (tmp_path / "out").glob("*"))), shardshuffle=False)]
    assert keys == [f"{number:08d}" for number in range(12)]
    alone = write_shards(videos, tmp_path / "alone", shard_bytes=1, seed=0)
    assert alone.shards == 12


def test_the_same_seed_gives_the_same_bytes_and_another_another_order(tmp_path, videos):
    write_shards(videos, tmp_path / "a", shard_bytes=30_000, seed=3)
    write_shards(videos, tmp_path / "b", shard_bytes=30_000, seed=3)
    write_shards(videos, tmp_path / "c", shard_bytes=30_000, seed=4)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert contents(tmp_path / "a") != contents(tmp_path / "c")


def test_signers_are_mixed(tmp_path, videos):
    many = Manifest(videos.root, tuple(row for row in videos.rows for _ in range(10)), ())
    write_shards(many, tmp_path / "out", **ONE_SHARD)
    signers = [row.signer for row in read(tmp_path / "out").rows]
    assert len(signers) == 120
    changes = sum(signer != following for signer, following in itertools.pairwise(signers))
    assert changes == pytest.approx(119 * 2 / 3, abs=16)  # three times the deviation of a random order


def test_parts_and_frames_are_encoded_and_each_clip_stands_for_itself(tmp_path, write_video, brightening_video):
    root = tmp_path / "data"
    (root / "frames").mkdir(parents=True)
    for number, frame in enumerate(brightening_video):
        Image.fromarray(frame).save(root / "frames" / f"{number}.png")
    write_video(root / "long.mp4", brightening_video, rate=10)
    (root / "manifest.csv").write_text(
        "path,text,start,end,split,language\n"
        "long.mp4,first,0,0.5,train,ase\nlong.mp4,second,0.5,,dev,gsg\nframes,third,,,,\nlong.mp4,whole,,,test,\n"
    )
    rows = manifest.FORMAT.read(root)
    report = write_shards(rows, tmp_path / "out", **ONE_SHARD)
    assert (report.clips, report.encoded) == (4, 3)
    samples = by_original_id(tmp_path / "out")
    assert samples["long.mp4"]["mp4"] == (root / "long.mp4").read_bytes()
    again = {row.caption: row for row in read(tmp_path / "out").rows}
    assert {row.media.span for row in again.values()} == {WHOLE}
    assert [again[caption].split for caption in ("first", "second", "third", "whole")] == [
        "training",
        "validation",
        None,
        "test",
    ]
    assert [again[caption].language for caption in ("first", "second", "third")] == ["ase", "gsg", None]
    for row in rows.rows:
        decoded = decode_media(tmp_path / "out", again[row.caption].media, SHAPE)
        expected = decode_media(root, row.media, SHAPE)
        assert decoded.facts.frames == expected.facts.frames
        assert decoded.facts.seconds == pytest.approx(expected.facts.seconds, abs=1e-4)
        assert numpy.abs(decoded.pixels_THWC.astype(int) - expected.pixels_THWC).max() <= 3
    write_shards(rows, tmp_path / "again", **ONE_SHARD)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_a_part_of_a_pose_file_is_the_whole_file_with_its_times(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.pose").write_bytes(b"poses" * 100)
    row = ManifestRow("a@1-2.5", Media("pose", "a.pose", TimeSpan(1.0, 2.5)), "hello", split="test")
    tail = ManifestRow("a@1-", Media("pose", "a.pose", TimeSpan(1.0)), "bye")
    assert write_shards(Manifest(root, (row, tail), ()), tmp_path / "out", **ONE_SHARD).encoded == 0
    samples = by_original_id(tmp_path / "out")
    assert samples["a@1-2.5"]["pose"] == samples["a@1-"]["pose"] == b"poses" * 100
    assert json.loads(samples["a@1-2.5"]["json"]) == {"id": "a@1-2.5", "split": "test", "start": 1.0, "end": 2.5}
    spans = {row.caption: row.media.span for row in read(tmp_path / "out").rows}
    assert spans == {"hello": TimeSpan(1.0, 2.5), "bye": TimeSpan(1.0)}


def test_clips_that_cannot_be_read_are_reported_and_left_out(tmp_path, videos, monkeypatch):
    lost, empty, text, large, outside = (videos.rows[index] for index in (0, 3, 5, 8, 11))
    (videos.root / lost.media.path).unlink()
    (videos.root / empty.media.path).write_bytes(b"")
    (videos.root / text.media.path).write_text("This is no video, but long enough.")
    with open(videos.root / large.media.path, "ab") as file:
        file.write(bytes(200_000))
    (tmp_path / "outside.mp4").write_bytes((videos.root / outside.media.path).read_bytes())
    (videos.root / outside.media.path).unlink()
    (videos.root / outside.media.path).symlink_to(tmp_path / "outside.mp4")
    monkeypatch.setattr(data.shards, "MOST_MEMBER_BYTES", 150_000)
    report = write_shards(videos, tmp_path / "out", shard_bytes=30_000, seed=0)
    assert {row.id: row.reason for row in report.skipped} == {
        lost.id: "does not exist",
        empty.id: "is empty",
        text.id: "is not a video of a known kind",
        large.id: "is larger than 0 MiB: too large for a clip in a shard",
        outside.id: f"leads out of the data set's folder, to {tmp_path} (DATA_ALLOW)",
    }
    samples = by_original_id(tmp_path / "out")
    assert samples.keys() == {row.id for row in videos.rows} - {row.id for row in report.skipped}
    assert sorted(item["__key__"] for item in samples.values()) == [f"{number:08d}" for number in range(7)]


def test_where_nothing_can_be_read_nothing_is_written(tmp_path, videos):
    nothing = Manifest(tmp_path, videos.rows, ())
    with pytest.raises(UserError, match=r"Not one of 12 clips can be written: .* does not exist, "):
        write_shards(nothing, tmp_path / "new" / "out", **ONE_SHARD)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path, videos):
    full, empty, file, link = (tmp_path / name for name in ("full", "empty", "file", "link"))
    full.mkdir()
    (full / "mine").write_text("keep")
    file.write_text("keep")
    empty.mkdir()
    link.symlink_to(empty)
    for path in (full, file, link):
        with pytest.raises(UserError, match=r"is not empty|is no folder"):
            write_shards(videos, path, **ONE_SHARD)
    assert (full / "mine").read_text() == file.read_text() == "keep"
    assert not list(empty.iterdir())
    assert write_shards(videos, empty, **ONE_SHARD).clips == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full", "link", "videos"]


def test_what_others_put_there_meanwhile_is_not_replaced(tmp_path, videos, monkeypatch):
    prepare = data.shards.prepare_sample

    def prepare_and_meddle(root, row):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "mine").touch()
        return prepare(root, row)

    monkeypatch.setattr(data.shards, "prepare_sample", prepare_and_meddle)
    with pytest.raises(UserError, match="is not empty"):
        write_shards(videos, tmp_path / "out", **ONE_SHARD)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos"]


class FullDisk(io.FileIO):
    """A file on a disk that has room for a few bytes."""

    def __init__(self, path, room):
        super().__init__(path, "w")
        self.room = room

    def write(self, content):
        if len(content) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(content)
        return super().write(content)


@pytest.mark.parametrize("room", [0, 25_000, 41_000])
def test_a_full_disk_leaves_nothing_behind(tmp_path, videos, monkeypatch, room):
    size = write_shards(videos, tmp_path / "out", **ONE_SHARD)
    assert size.clips == 12
    assert (tmp_path / "out" / "shard-000000.tar").stat().st_size > 41_000
    monkeypatch.setattr(data.shards, "open", lambda path, mode: io.BufferedWriter(FullDisk(path, room)), raising=False)
    with pytest.raises(UserError, match=r"new/full cannot be written: No space left on device"):
        write_shards(videos, tmp_path / "new" / "full", **ONE_SHARD)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "videos"]


def test_an_interruption_leaves_nothing_behind(tmp_path, videos, monkeypatch):
    prepare = data.shards.prepare_sample

    def prepare_until_interrupted(root, row):
        if row == videos.rows[7]:
            raise KeyboardInterrupt
        return prepare(root, row)

    monkeypatch.setattr(data.shards, "prepare_sample", prepare_until_interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(videos, tmp_path / "out", **ONE_SHARD)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_nothing_of_the_machine_the_time_or_the_user_gets_into_a_shard(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "a.pose").write_bytes(b"pose" * 200)
    write_shards(Manifest(root, (ManifestRow("a", Media("pose", "a.pose"), "x"),), ()), tmp_path / "out", **ONE_SHARD)
    with tarfile.open(tmp_path / "expected.tar", "w:", format=tarfile.USTAR_FORMAT) as tar:
        for extension, content in (("json", b'{"id": "a"}'), ("pose", b"pose" * 200), ("txt", b"x")):
            info = tarfile.TarInfo(f"00000000.{extension}")
            info.size, info.mode, info.uname, info.gname = len(content), 0o444, "bigdata", "bigdata"
            tar.addfile(info, io.BytesIO(content))
    assert (tmp_path / "out" / "shard-000000.tar").read_bytes() == (tmp_path / "expected.tar").read_bytes()
