import gzip
import io
import json
import os
import tarfile
import tracemalloc

import pytest
from webdataset import ShardWriter, WebDataset

from common.errors import UserError
from data.formats.tar_index import MOST_HEADER_BYTES
from data.formats.webdataset import FORMAT
from data.media.decode import media_digest
from data.rows import WHOLE, Media, TarMember, TimeSpan

CLIP = b"....ftypisom" + bytes(range(256)) * 3


def member(name, content=b"", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def write_tar(path, *members, file_format=tarfile.PAX_FORMAT, **options):
    with tarfile.open(path, "w:", format=file_format, errors="surrogateescape", **options) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))


def sample(key, text="hello", clip=CLIP, suffix="mp4"):
    return [member(f"{key}.{suffix}", clip), member(f"{key}.txt", text.encode())]


def read(root):
    return FORMAT.read(root)


def content_of(root, media):
    """Return the bytes that a row points at."""
    with open(root / media.path, "rb") as file:
        return os.pread(file.fileno(), media.member.size, media.member.offset)


def skipped(root, *members, **options):
    """Return the reasons for which samples of a tar file are skipped, beside one that is good."""
    write_tar(root / "a.tar", *members, *sample("good"), **options)
    manifest = read(root)
    assert [row.id for row in manifest.rows] == ["a.tar/good"]
    return {row.id: row.reason for row in manifest.skipped}


def test_samples_are_found_where_they_lie(tmp_path):
    write_tar(tmp_path / "b.tar", *sample("x/00.01", "second"), *sample("two", "  a\n b ", b"pose", "pose"))
    (tmp_path / "more").mkdir()
    write_tar(tmp_path / "more" / "a.tar", *sample("./00", "first", CLIP + b"!", "WebM"))
    manifest = read(tmp_path)
    assert manifest.root == tmp_path
    assert not manifest.skipped
    assert [(row.id, row.caption) for row in manifest.rows] == [
        ("b.tar/x/00", "second"),
        ("b.tar/two", "a b"),
        ("more/a.tar/00", "first"),
    ]
    assert [content_of(tmp_path, row.media) for row in manifest.rows] == [CLIP, b"pose", CLIP + b"!"]
    assert [row.media.kind for row in manifest.rows] == ["video", "pose", "video"]
    assert [row.media.member.suffix for row in manifest.rows] == [".mp4", ".pose", ".webm"]
    assert manifest.rows[0].media == Media("video", "b.tar", WHOLE, 25.0, TarMember(512, len(CLIP), ".mp4"))


def test_folders_of_shards_give_the_split_unless_the_samples_do(tmp_path):
    for name in ("train", "val", "test"):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", *sample("00", name))
    manifest = read(tmp_path)
    assert {row.caption: row.split for row in manifest.rows} == {
        "train": "training",
        "val": "validation",
        "test": "test",
    }
    assert [notice.topic for notice in manifest.notices] == ["split"]
    facts = json.dumps({"text": "val", "split": "val"}).encode()
    write_tar(tmp_path / "val" / "0.tar", member("00.mp4", CLIP), member("00.json", facts))
    manifest = read(tmp_path)
    assert {row.caption: row.split for row in manifest.rows} == {
        "train": "training",
        "val": "validation",
        "test": "test",
    }
    assert "1 clip for training, such as train/0.tar; 1 clip for testing" in manifest.notices[0].text
    facts = json.dumps({"text": "more", "split": "train"}).encode()
    write_tar(tmp_path / "more.tar", member("00.mp4", CLIP), member("00.json", facts))
    (tmp_path / "train" / "0.tar").unlink()
    splits = {row.caption: row.split for row in read(tmp_path).rows}
    assert splits == {"more": "training", "val": "validation", "test": "test"}


@pytest.mark.parametrize("name", ["{}-000000.tar", "signs-{}-000000.tar", "all/signs_{}.tar", "{}.tar"])
def test_names_of_shards_give_the_split(tmp_path, name):
    (tmp_path / "all").mkdir()
    for part in ("train", "validation", "test"):
        write_tar(tmp_path / name.format(part), *sample("00", part))
    assert {row.caption: row.split for row in read(tmp_path).rows} == {
        "train": "training",
        "validation": "validation",
        "test": "test",
    }
    write_tar(tmp_path / "more.tar", *sample("00"))
    with pytest.raises(UserError, match=r"shards or their folders named train, val or test hold 3 of 4 clips, such as"):
        read(tmp_path)


def test_a_json_file_describes_a_sample(tmp_path):
    facts = {"text": "hallo", "signer": 7, "split": "dev", "start": 1.5, "end": "2,5", "language": "gsg", "n": [None]}
    write_tar(
        tmp_path / "a.tar",
        member("1.mp4", CLIP),
        member("1.json", json.dumps(facts).encode()),
        member("2.json", b'\xef\xbb\xbf{"caption": "in json", "signer": "a\\nb"}'),
        member("2.mp4", CLIP),
        member("3.mp4", CLIP),
        member("3.json", b'{"text": "in json", "caption": 3, "split": "train"}'),
        member("3.txt", b"in text"),
    )
    first, second, third = read(tmp_path).rows
    assert (first.caption, first.signer, first.split, first.language) == ("hallo", "7", "validation", "gsg")
    assert first.media.span == TimeSpan(1.5, 2.5)
    assert (second.caption, second.signer, second.split, second.media.span) == ("in json", "a b", None, WHOLE)
    assert (third.caption, third.split) == ("in text", "training")


def test_shards_that_the_library_wrote_are_read(tmp_path):
    with ShardWriter(f"{tmp_path}/shard-%06d.tar", maxcount=3, verbose=0) as writer:
        for number in range(7):
            content = {"txt": f"word {number}", "mp4": CLIP + bytes([number]), "json": {"signer": f"s{number}"}}
            writer.write({"__key__": f"sub/{number:03d}", **content})
    manifest = read(tmp_path)
    assert not manifest.skipped
    assert [row.id for row in manifest.rows] == [f"shard-{n // 3:06d}.tar/sub/{n:03d}" for n in range(7)]
    assert [row.caption for row in manifest.rows] == [f"word {n}" for n in range(7)]
    assert [row.signer for row in manifest.rows] == [f"s{n}" for n in range(7)]
    assert [content_of(tmp_path, row.media) for row in manifest.rows] == [CLIP + bytes([n]) for n in range(7)]


@pytest.mark.parametrize("file_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_keys_and_contents_are_those_that_the_library_reads(tmp_path, file_format):
    path = "d/" * 60  # too long for the header itself
    names = ["a", "b.c/d", "ä", f"{path}e", ".hidden", "_f", "__meta__/x", "g h"]
    members = [file for name in names for file in sample(name, f"text of {name}", CLIP + name.encode())]
    write_tar(
        tmp_path / "a.tar", *members, member("README"), member("folder", kind=tarfile.DIRTYPE), file_format=file_format
    )
    theirs = list(WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    rows = read(tmp_path).rows
    assert [row.id.removeprefix("a.tar/") for row in rows] == [item["__key__"] for item in theirs]
    assert [content_of(tmp_path, row.media) for row in rows] == [item["mp4"] for item in theirs]
    assert [row.caption for row in rows] == [item["txt"].decode() for item in theirs]
    assert len(rows) == 6


def test_what_is_wrong_with_a_sample_is_said(tmp_path):
    both, text = [member("k.mp4", CLIP), member("k.txt", b"x")], member("k.txt", b"x")
    cases = [
        ([member("k.mp4", CLIP)], "has no caption: neither a .txt file, nor a .json file with text"),
        ([text], "has no clip (.gif, .mp4, .webm, .mov, .avi, .mkv, .m4v, .qt, .3gp, .pose), only .txt"),
        (
            [member("k.jpg"), member("k.cls")],
            "has no clip (.gif, .mp4, .webm, .mov, .avi, .mkv, .m4v, .qt, .3gp, .pose), only .cls, .jpg",
        ),
        ([*both, member("k.left.avi", CLIP)], "has more than one clip: .left.avi, .mp4"),
        (
            [member("k.1.mp4", CLIP), member("k.1.txt", b"x"), member("k.2.mp4", CLIP)],
            "has more than one clip: .1.mp4, .2.mp4",
        ),
        ([member("k.1.mp4", CLIP), member("k.2.txt", b"x")], "has no caption: neither a .txt"),
        ([*both, member("k.MP4", CLIP)], "is in its tar file more than once"),
        ([*both, *sample("between"), text], "is in its tar file more than once"),
        ([member("k.mp4", CLIP), member("k.txt", b"\xff")], "has no usable caption: its .txt is not UTF-8"),
        ([member("k.mp4", CLIP), member("k.txt", b" \n")], "has no caption: its .txt is empty"),
        (
            [member("k.mp4", CLIP), member("k.txt", b"x" * 20_000)],
            "has no usable caption: its .txt is larger than 16384",
        ),
        ([*both, member("k.json", b"{")], "has no usable .json: it is not JSON (Expecting property"),
        ([*both, member("k.json", b"[" * 100_000)], "has no usable .json: it is not JSON (maximum recursion"),
        ([*both, member("k.json", b"9" * 5000)], "has no usable .json: it is not JSON (Exceeds the limit"),
        ([*both, member("k.json", b"\xff\xfe{}")], "has no usable .json: it is not JSON ('utf-8' codec"),
        ([*both, member("k.json", b"[]")], "has no usable .json: it is not a JSON object"),
        ([*both, member("k.json", b" " * 300_000)], "has no usable .json: it is larger than 256 KiB"),
        ([member("k.mp4", CLIP), member("k.json", b'{"text": 3}')], "has text=3: it must be a text"),
        ([member("k.mp4", CLIP), member("k.json", b'{"text": " "}')], "has no text: fill in"),
        ([*both, member("k.json", b'{"split": "tset"}')], "has split='tset': write one of train"),
        ([*both, member("k.json", b'{"start": NaN}')], "has start=nan: write seconds"),
        ([*both, member("k.json", b'{"start": 3, "end": 2}')], "has end=2 and start=3"),
        ([*both, member("k.json", b'{"signer": ["x"]}')], "has signer=a list"),
    ]
    for members, reason in cases:
        others = [file for file in members if file[0].name.startswith("k")]
        write_tar(tmp_path / "a.tar", *others, *sample("good"))
        manifest = read(tmp_path)
        assert [row.id for row in manifest.rows] == ["a.tar/good"]
        assert [row.id for row in manifest.skipped] == ["a.tar/k"]
        assert manifest.skipped[0].reason.startswith(reason), (manifest.skipped[0].reason, reason)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"],
    ids=["symbolic link", "hard link", "character device", "block device", "pipe", "unknown"],
)
def test_links_and_devices_are_not_used(tmp_path, kind):
    (tmp_path / "outside.mp4").write_bytes(CLIP)
    for suffix, other in (("mp4", "txt"), ("txt", "mp4")):
        members = [member(f"k.{other}", CLIP), member(f"k.{suffix}", kind=kind, linkname=str(tmp_path / "outside.mp4"))]
        reasons = skipped(tmp_path, *members)
        assert reasons == {"a.tar/k": f"has no usable .{suffix}: it is a link, a device or a sparse file"}


def test_sparse_files_are_not_used(tmp_path):
    info, content = member("k.mp4", CLIP)
    info.pax_headers = {"GNU.sparse.map": "0,10,5000,10", "GNU.sparse.size": "5010", "GNU.sparse.name": "k.mp4"}
    assert "sparse" in skipped(tmp_path, (info, content), member("k.txt", b"x"))["a.tar/k"]


@pytest.mark.parametrize(
    ("name", "shown", "reason"),
    [
        ("../../k", "a.tar/../../k", "has a name that leads out of its tar file"),
        ("/etc/k", "a.tar//etc/k", "has a name that leads out of its tar file"),
        ("x/../k", "a.tar/x/../k", "has a name that leads out of its tar file"),
        ("n" * 4096, f"a.tar/{'n' * 60}...", "has a name of more than 1000 characters"),
        ("n" * 4096 + "/k", f"a.tar/{'n' * 60}...", "has a name of more than 1000 characters"),
    ],
)
@pytest.mark.parametrize("file_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hostile_names_are_refused(tmp_path, name, shown, reason, file_format):
    assert skipped(tmp_path, *sample(name), file_format=file_format)[shown] == reason


@pytest.mark.parametrize("file_format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_cannot_be_printed_are_escaped(tmp_path, file_format):
    names = ["a\nb", "a\x1b[31m", "a\udcff"]
    write_tar(tmp_path / "a.tar", *(file for name in names for file in sample(name)), file_format=file_format)
    rows = read(tmp_path).rows
    assert [row.id for row in rows] == ["a.tar/a\\nb", "a.tar/a\\x1b[31m", "a.tar/a\\udcff"]
    assert all(content_of(tmp_path, row.media) == CLIP for row in rows)


def test_names_that_look_the_same_are_not_mixed_up(tmp_path):
    write_tar(tmp_path / "a.tar", *sample("a\nb", "first"), *sample("a\\nb", "second"))
    manifest = read(tmp_path)
    assert [row.caption for row in manifest.rows] == ["first"]
    assert manifest.skipped[0].reason == "cannot be told by its name from another sample"


def test_a_tar_file_that_is_cut_off_anywhere_gives_what_is_whole(tmp_path):
    path = tmp_path / "a.tar"
    write_tar(path, *(file for key in "abc" for file in sample(key)))
    whole = path.read_bytes()
    ends = {row.id[-1]: row.media.member.offset + 1024 + 512 + 5 for row in read(tmp_path).rows}  # of the captions
    assert len(ends) == 3
    data_end = ends["c"] - 5 + 512  # 1,5 KiB of clip and header, and a block with the caption
    for length in [*range(0, data_end + 1024, 256), *(end + d for end in ends.values() for d in (-1, 0, 1))]:
        path.write_bytes(whole[:length])
        expected = [f"a.tar/{key}" for key, end in ends.items() if end <= length]
        if not expected:
            with pytest.raises(UserError, match="no clip can be read from its tar files"):
                read(tmp_path)
            continue
        manifest = read(tmp_path)
        assert [row.id for row in manifest.rows] == expected, length
        assert all(content_of(tmp_path, row.media) == CLIP for row in manifest.rows)
        reasons = {row.id: row.reason for row in manifest.skipped}
        if length < data_end + 512:
            assert reasons["a.tar"].startswith("is cut off or damaged: what comes after its first "), (length, reasons)
        else:
            assert not reasons


def test_a_damaged_header_hides_what_follows_and_is_reported(tmp_path):
    write_tar(tmp_path / "a.tar", *sample("a"), *sample("b"))
    content = bytearray((tmp_path / "a.tar").read_bytes())
    content[content.index(b"b.mp4")] = 0xEE
    (tmp_path / "a.tar").write_bytes(content)
    manifest = read(tmp_path)
    assert [row.id for row in manifest.rows] == ["a.tar/a"]
    assert [(row.id, row.reason) for row in manifest.skipped] == [
        ("a.tar", "is cut off or damaged: what comes after its first 2 files cannot be read (a header is damaged)")
    ]


def header(name, size_field, kind=b"0"):
    """Return a header whose size field holds any twelve bytes."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size_field, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NEGATIVE = (-1024).to_bytes(12, "big", signed=True)
HUGE = b"\x80" + (1 << 80).to_bytes(11, "big")


@pytest.mark.parametrize(
    "blocks",
    [
        header("b.mp4", NEGATIVE),
        header("b.mp4", HUGE),
        header("x", NEGATIVE, tarfile.XHDTYPE) + bytes(2048),
        header("x", HUGE, tarfile.GNUTYPE_LONGNAME) + bytes(2048),
        header("x", b"00077777777\0", tarfile.XGLTYPE) + bytes(2048),
        header("x", b"00000001000\0", tarfile.XHDTYPE)
        + b"14 size=-1024\n".ljust(512, b"\0")
        + header("b.mp4", b"0" * 12),
        header("x", b"00000001000\0", tarfile.XHDTYPE) * 3000,
        header("x", b"00000001000\0", tarfile.XHDTYPE)
        + b"22 GNU.sparse.map=a,b\n".ljust(512, b"\0")
        + header("b", b"0" * 12),
        header("x", b"00000001000\0", tarfile.XHDTYPE) + b"9" * 5000,
        header("b.mp4", b"00000000000\0", tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29),
    ],
    ids=[
        "negative size",
        "huge size",
        "negative size of an extended header",
        "huge size of a long name",
        "global header beyond the end",
        "extended header with a negative size",
        "many extended headers",
        "sparse map that is none",
        "extended header of digits alone",
        "sparse file that is cut off",
    ],
)
def test_headers_that_lie_end_the_reading(tmp_path, blocks):
    write_tar(tmp_path / "a.tar", *sample("a"))
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(content[: 512 + 1024 + 1024] + blocks + content[512 + 1024 + 1024 :])
    manifest = read(tmp_path)
    assert [row.id for row in manifest.rows] == ["a.tar/a"]
    assert any(row.reason.startswith("is cut off or damaged") for row in manifest.skipped)


@pytest.mark.parametrize("kind", ["pax_headers", "global"])
def test_large_extended_headers_are_not_read(tmp_path, kind):
    large = {"comment": "x" * 40_000_000}
    if kind == "global":
        write_tar(tmp_path / "a.tar", *sample("k"), pax_headers=large)
    else:
        write_tar(tmp_path / "a.tar", *sample("a"), member("k.mp4", CLIP, pax_headers=large), member("k.txt", b"x"))
    tracemalloc.start()
    if kind == "global":
        with pytest.raises(UserError, match=f"or more than {MOST_HEADER_BYTES >> 10} KiB"):
            read(tmp_path)
    else:
        assert [row.id for row in read(tmp_path).rows] == ["a.tar/a"]
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_many_global_headers_do_not_add_up(tmp_path):
    with open(tmp_path / "a.tar", "wb") as file:
        for number in range(200):
            file.write(tarfile.TarInfo.create_pax_global_header({f"comment{number}": "x" * 50_000}))
            file.write(tarfile.TarInfo(f"{number}.cls").tobuf())
        for info, content in sample("k"):
            file.write(info.tobuf() + content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    tracemalloc.start()
    assert [row.id for row in read(tmp_path).rows] == ["a.tar/k"]
    assert tracemalloc.get_traced_memory()[1] < 2_000_000  # of 10 in the headers
    tracemalloc.stop()


def test_a_number_without_end_in_a_header_takes_no_time(tmp_path):
    """It never reaches tarfile, which takes six seconds with each such header."""
    content = b"9" * 60_000
    block = header("x", b"%011o\0" % len(content), tarfile.XHDTYPE) + content + bytes(-len(content) % 512)
    write_tar(tmp_path / "b.tar", *sample("k"))
    (tmp_path / "a.tar").write_bytes(block + (tmp_path / "b.tar").read_bytes())
    (skipped,) = read(tmp_path).skipped
    assert skipped.id == "a.tar"
    assert "a header holds a number of a hundred digits" in skipped.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "a.tar is empty"),
        (b"These are no clips.\n" * 100, r"a.tar is not a readable tar file \("),
        (b"short", r"a.tar is not a readable tar file \(truncated header\)"),
        (bytes(10_240), "a.tar holds no sample"),
        (gzip.compress(b"x" * 1000), r"a.tar is compressed \(gzip\): unpack it"),
        (b"\x28\xb5\x2f\xfd....", r"a.tar is compressed \(zstd\)"),
    ],
    ids=["empty", "text", "short", "zeros", "gzip", "zstd"],
)
def test_what_is_no_tar_file_is_named(tmp_path, content, reason):
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(UserError, match=reason):
        read(tmp_path)
    write_tar(tmp_path / "b.tar", *sample("k"))
    manifest = read(tmp_path)
    assert [row.id for row in manifest.rows] == ["b.tar/k"]
    assert [row.id for row in manifest.skipped] == ["a.tar"]


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    write_tar(tmp_path / "outside.tar", *sample("k"))
    write_tar(root / "b.tar", *sample("k"))
    (root / "a.tar").symlink_to(tmp_path / "outside.tar")
    (root / "c.tar").symlink_to(root / "b.tar")
    (root / "d.tar").symlink_to(root / "gone.tar")
    os.mkfifo(root / "e.tar")
    manifest = read(root)
    assert [row.id for row in manifest.rows] == ["b.tar/k", "c.tar/k"]
    assert {row.id: row.reason for row in manifest.skipped} == {
        "a.tar": f"leads out of the data set's folder, to {tmp_path} (DATA_ALLOW)",
        "d.tar": "is a link that leads nowhere",
        "e.tar": "is not a regular file",
    }
    allowed = FORMAT.read(root, (tmp_path,))
    assert [row.id for row in allowed.rows] == ["a.tar/k", "b.tar/k", "c.tar/k"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.TAR.zst", "b.tar.xz"])
def test_compressed_shards_are_refused_with_the_remedy(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert FORMAT.recognise(tmp_path) == f"it holds {name}"
    (tmp_path / "folder").mkdir()
    assert FORMAT.recognise(tmp_path) is None  # perhaps what the folder was unpacked from
    write_tar(tmp_path / "b.tar", *sample("k"))
    with pytest.raises(UserError, match=rf"{name} is compressed.*Unpack it to a plain .tar file \(gunzip"):
        read(tmp_path)


def test_shards_are_recognised(tmp_path):
    assert FORMAT.recognise(tmp_path) is None
    assert FORMAT.recognise(tmp_path / "gone") is None
    assert FORMAT.recognise(tmp_path / "zero\0byte") is None
    write_tar(tmp_path / "x-1.tar", *sample("k"))
    write_tar(tmp_path / "x-0.tar", *sample("k"))
    assert FORMAT.recognise(tmp_path) == "it holds x-0.tar"
    assert FORMAT.recognise(tmp_path / "x-0.tar") is None
    (tmp_path / "clip.mp4").write_bytes(CLIP)
    assert FORMAT.recognise(tmp_path) is None  # a folder of clips, with a copy of them


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"it holds no .tar file"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"is no folder with WebDataset shards"):
        read(tmp_path / "gone")


def test_a_clip_in_a_shard_can_be_opened(tmp_path):
    write_tar(tmp_path / "a.tar", *sample("k"))
    (row,) = read(tmp_path).rows
    assert len(media_digest(tmp_path, row.media)) == 64
