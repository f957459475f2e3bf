"""Every hostile file is refused, for the right reason, before it takes much time; a damaged one never does worse."""

import itertools
import random
import re
import time
from hashlib import sha256
from pathlib import Path

import numpy
import pytest

from data.media.decode import decode_media, media_digest, media_stamp
from data.media.files import PlainFile
from data.rows import WHOLE, Media, TarMember, TimeSpan, UnusableClip
from tests.data.media.hostile import HOSTILE, valid_file
from tests.data.media.hostile_codecs import encoded, h264
from tests.data.media.hostile_containers import Avi, Matroska, Mp4
from tests.data.media.hostile_pictures import jpeg, jpeg_that_claims, png, png_that_claims
from tests.shapes import stretched

SHAPE = stretched(8, 16)
MOST_GIBIBYTES = 5.0  # that could be hashed before a file is refused; the longest is a gibibyte of nothing
GREYS = [jpeg(shade=40 * number) for number in range(4)]


def inspected(root: Path, media: Media) -> str:
    """Return why a clip cannot be used; an empty string if it can."""
    try:
        media_stamp(root, media)
        media_digest(root, media)
        clip = decode_media(root, media, SHAPE).pixels_THWC
    except UnusableClip as error:
        return str(error)
    assert clip.shape == (8, 16, 16, 3)
    assert clip.dtype == numpy.uint8
    return ""


def seconds_of_a_gibibyte(root: Path) -> float:
    """Return the time of the processor in which a gibibyte can be hashed, as the content of every clip is."""
    with open(root / "zeros", "wb") as file:
        file.truncate(1 << 27)
    started = time.process_time()
    PlainFile(root / "zeros").digest()
    return 8 * (time.process_time() - started)


@pytest.mark.parametrize("most", [3, pytest.param(None, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("sort", HOSTILE)
def test_hostile_files_are_refused_for_the_right_reason(tmp_path, sort, most):
    wrong, slow = {}, {}
    reference = seconds_of_a_gibibyte(tmp_path)
    for file in itertools.islice(HOSTILE[sort](), most):
        path = file.write(tmp_path)
        started = time.process_time()
        reason = inspected(tmp_path, Media("video", file.name))
        if (gibibytes := (time.process_time() - started) / reference) > MOST_GIBIBYTES:
            slow[file.name] = gibibytes
        path.unlink()
        if not re.search(file.reason, reason):
            wrong[file.name] = (reason, file.reason)
        assert str(tmp_path) not in reason
    assert wrong == {}
    assert slow == {}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "^has no frames$"),
        ({"1.png": png()}, "^has only one frame"),
        ({"1.png": png(), "2.png": b""}, "^has a picture that cannot be read$"),
        ({"1.png": png(), "2.png": png()[:100]}, "^cannot be decoded|^has a picture"),
        ({"1.png": png(), "2.png": png_that_claims(30_000, 30_000)}, "^has frames that are too large$"),
        ({"1.png": png(), "2.png": png_that_claims(4097, 2304)}, "^has frames of 4097 x 2304 pixels; the most is"),
        ({"1.png": png(), "2.jpg": jpeg_that_claims(30_000, 30_000)}, "^has frames that are too large$"),
        ({"1.png": png(), "2.png": png(1, 1)}, "^has frames of 1 x 1 pixels; the least is"),
        ({"1.png": png(), "2.png": b"#EXTM3U\n/etc/passwd"}, "^has a picture that cannot be read$"),
        pytest.param(
            {f"{number}.png": b"" for number in range(50_001)}, "^has more than 50000 frames$", marks=pytest.mark.slow
        ),
    ],
)
def test_hostile_folders_of_frames_are_refused(tmp_path, files, reason):
    (tmp_path / "clip").mkdir()
    for name, content in files.items():
        (tmp_path / "clip" / name).write_bytes(content)
    assert re.search(reason, inspected(tmp_path, Media("frames", "clip")))


def test_a_frame_may_not_fill_the_memory(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "1.png").write_bytes(png())
    with open(tmp_path / "clip" / "2.png", "wb") as file:
        file.truncate((64 << 20) + 1)
    assert inspected(tmp_path, Media("frames", "clip")) == "has a frame that is larger than 64 MiB: 2.png"


def valid_files(folder: Path) -> list[tuple[str, bytes]]:
    """Small files of every container and of the codecs that people use."""
    h264_frames, header = h264(64, 64)
    files = [(extension, valid_file(folder, extension)) for extension in (".gif", ".mp4", ".webm", ".mkv", ".avi")]
    return [
        *files,
        (".mp4", Mp4(h264_frames, codec=b"avc1", codec_boxes=header).to_bytes()),
        (".mov", Mp4(GREYS).to_bytes()),
        (".mkv", Matroska(GREYS).to_bytes()),
        (".avi", Avi(GREYS).to_bytes()),
        (".avi", Avi([png(shade=shade) for shade in (0, 90, 200)], codec=b"MPNG").to_bytes()),
        (".avi", Avi([bytes(3 * 64 * 64)] * 4, codec=bytes(4)).to_bytes()),
        (".webm", Matroska(encoded("libvpx-vp9", deadline="realtime"), codec=b"V_VP9").to_bytes()),
    ]


def test_files_in_a_tar_file_are_the_same_as_on_the_disk(tmp_path):
    for number, (extension, content) in enumerate(valid_files(tmp_path)):
        (tmp_path / f"plain{extension}").write_bytes(content)
        (tmp_path / "a.tar").write_bytes(b"x" * 512 + content + b"y" * 512)
        plain = Media("video", f"plain{extension}")
        packed = Media("video", "a.tar", member=TarMember(512, len(content), extension))
        clips = [decode_media(tmp_path, media, SHAPE).pixels_THWC for media in (plain, packed)]
        assert (clips[0] == clips[1]).all(), number
        assert media_digest(tmp_path, plain) == media_digest(tmp_path, packed) == sha256(content).hexdigest()
        (tmp_path / "a.tar").write_bytes(b"x" * 512 + content[:-1])
        assert inspected(tmp_path, packed) == "is cut off: its tar file ends before it"


@pytest.mark.parametrize("sort", ["cut off", "empty", "too few frames", "mislabelled"])
def test_hostile_files_in_a_tar_file_are_refused_as_well(tmp_path, sort):
    wrong = {}
    for file in HOSTILE[sort]():
        (tmp_path / "a.tar").write_bytes(b"x" * 512 + file.content + b"y" * 512)
        member = TarMember(512, len(file.content), Path(file.name).suffix)
        reason = inspected(tmp_path, Media("video", "a.tar", member=member))
        if not re.search(file.reason, reason):
            wrong[file.name] = (reason, file.reason)
    assert wrong == {}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Change some bits, mostly near the beginning; sometimes cut the file off or repeat a part of it."""
    changed = bytearray(content)
    reach = len(changed) if chance.random() < 0.5 else min(len(changed), 600)
    for _ in range(chance.choice((1, 1, 2, 4, 16, 64))):
        place = chance.randrange(reach)
        changed[place] = (
            chance.choice((0, 1, 127, 128, 255)) if chance.random() < 0.3 else changed[place] ^ 1 << chance.randrange(8)
        )
    if chance.random() < 0.1:
        del changed[chance.randrange(len(changed)) :]
    if chance.random() < 0.1:
        source, place = chance.randrange(len(changed) + 1), chance.randrange(len(changed) + 1)
        changed[place:place] = changed[source : source + 50]
    return bytes(changed)


@pytest.mark.parametrize(
    "seeds",
    [range(200), pytest.param(range(200, 12_000), marks=pytest.mark.slow)],
    ids=["few", "many"],
)
def test_a_damaged_file_gives_a_clip_or_a_reason(tmp_path, seeds):
    files = valid_files(tmp_path)
    usable = 0
    for seed in seeds:
        chance = random.Random(seed)
        extension, content = chance.choice(files)
        (tmp_path / f"damaged{extension}").write_bytes(damaged(content, chance))
        span = chance.choice((WHOLE, WHOLE, TimeSpan(0.05, 0.13)))
        usable += not inspected(tmp_path, Media("video", f"damaged{extension}", span))
    assert 0.1 * len(seeds) < usable < 0.9 * len(seeds)


@pytest.mark.parametrize(
    "seeds", [range(100), pytest.param(range(100, 5000), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_damaged_frame_gives_a_clip_or_a_reason(tmp_path, seeds):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "1.png").write_bytes(png())
    usable = 0
    for seed in seeds:
        chance = random.Random(seed)
        name, content = chance.choice((("2.png", png()), ("2.jpg", jpeg())))
        path = tmp_path / "clip" / name
        path.write_bytes(damaged(content, chance))
        usable += not inspected(tmp_path, Media("frames", "clip"))
        path.unlink()
    assert 0.02 * len(seeds) < usable < 0.9 * len(seeds)
