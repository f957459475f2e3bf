import struct
import sys
import tracemalloc

import numpy
import pytest
from pose_format.pose_header import PoseHeaderCache

import data.media.decode
import data.media.pose_file
from data.media.decode import decode_pose
from data.media.files import PlainFile
from data.rows import WHOLE, TimeSpan, UnusableClip
from tests.data.media.pose_signers import signer, written
from tests.shapes import stretched

BODY_HEADER = "<fIH"  # of version 0.2: frames a second, frames, people
FRAME_BYTES = (33 + 468 + 21 + 21) * 4 * 4


@pytest.fixture
def decode(tmp_path):
    """Decode the bytes of a file."""

    def decode_(content, span=WHOLE):
        PoseHeaderCache.clear_cache()  # or a header that was read before would not be read again
        (tmp_path / "sign.pose").write_bytes(content)
        return decode_pose(PlainFile(tmp_path / "sign.pose"), stretched(4, 16), span)

    return decode_


@pytest.fixture(scope="module")
def sign():
    return signer(12).content()


def split(content, frames=12):
    """Return header and points of a file; what lies between them is left out."""
    points = frames * FRAME_BYTES
    return content[: -points - struct.calcsize(BODY_HEADER)], content[-points:]


def with_body_header(content, rate=25.0, frames=12, people=1):
    header, points = split(content)
    return header + struct.pack(BODY_HEADER, rate, frames, people) + points


def string(text):
    return struct.pack("<H", len(text)) + text.encode()


def component(name, points, limbs=0, colours=0, point_format="XYZC"):
    """Return the beginning of a component, up to its tables."""
    return string(name) + string(point_format) + struct.pack("<HHH", points, limbs, colours)


def header(*components, version=0.2, size=(100, 100)):
    return struct.pack("<fHHHH", version, *size, 0, len(components)) + b"".join(components)


def test_version_0_1_is_the_same_clip(decode, sign):
    head, points = split(sign)
    older = struct.pack("<f", 0.1) + head[4:] + struct.pack("<HHH", 25, 12, 1) + points
    assert (decode(older).pixels_THWC == decode(sign).pixels_THWC).all()
    assert decode(older).facts == decode(sign).facts


def test_an_empty_file_is_refused(decode):
    with pytest.raises(UnusableClip, match="is empty"):
        decode(b"")


@pytest.mark.parametrize("share", [0.0001, 0.002, 0.01, 0.03, 0.1, 0.5, 0.99, 0.99999])
@pytest.mark.parametrize("version", [0.1, 0.2])
def test_a_file_that_is_cut_off_is_refused(decode, sign, share, version):
    head, points = split(sign)
    body_header = struct.pack("<HHH", 25, 12, 1) if version == 0.1 else struct.pack(BODY_HEADER, 25, 12, 1)
    whole = struct.pack("<f", version) + head[4:] + body_header + points
    with pytest.raises(UnusableClip, match=r"is cut off|is too short"):
        decode(whole[: int(len(whole) * share)])


def test_a_file_that_goes_on_after_its_points_is_refused(decode, sign):
    with pytest.raises(UnusableClip, match="is damaged: its header asks for 104256 bytes of points, and 104260 are"):
        decode(sign + b"more")


@pytest.mark.parametrize(
    "content",
    [b"This is a text about a pose.\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(500), b"hi!", bytes(1000)],
    ids=["text", "PNG", "short", "zeros"],
)
def test_a_file_of_another_kind_is_refused(decode, content):
    with pytest.raises(UnusableClip, match=r"is not a \.pose file of version 0\.1 or 0\.2|is too short"):
        decode(content)


@pytest.mark.parametrize("version", [0.0, 0.3, 1.0, numpy.nan, numpy.inf])
def test_another_version_is_refused(decode, sign, version):
    with pytest.raises(UnusableClip, match=r"version 0\.1 or 0\.2"):
        decode(struct.pack("<f", version) + sign[4:])


@pytest.mark.parametrize("rate", [0.0, -25.0, numpy.nan, numpy.inf, 1e9, 1e-9])
def test_an_impossible_frame_rate_is_refused(decode, sign, rate):
    with pytest.raises(UnusableClip, match="frames a second; from 1 to 1000 are possible"):
        decode(with_body_header(sign, rate=rate))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"frames": 0}, "has no frames"),
        ({"frames": 1}, "has only one frame"),
        ({"frames": 13}, "is cut off: 104256 of 112944 bytes"),
        ({"frames": 40_000}, "is cut off"),
        ({"frames": 4_000_000_000}, "has more than 50000 frames"),
        ({"people": 0}, "has no person"),
        ({"people": 2}, "is cut off"),
        ({"people": 65_535}, "is cut off"),
    ],
)
def test_a_header_that_promises_something_else_is_refused(decode, sign, changes, reason):
    with pytest.raises(UnusableClip, match=reason):
        decode(with_body_header(sign, **changes))


def test_a_pose_of_one_frame_is_refused(decode):
    with pytest.raises(UnusableClip, match="has only one frame: it is a picture"):
        decode(signer(1).content())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (header(), "has no points"),
        (header(component("POSE_LANDMARKS", 0)) + struct.pack(BODY_HEADER, 25, 9, 1), "has no points"),
        (header(size=(0, 480)), "has a canvas of 0 x 480"),
        (header(component("A", 0, point_format="")) + bytes(50), "has points in the format ''"),
        (header(component("A", 0, point_format="C")) + bytes(50), "has points in the format 'C'"),
        (header(component("A", 0), component("B", 0, point_format="XYC")) + bytes(50), "more than one format"),
        (header(component("A", 1)) + b"\x02\x00\xff\xfe" + bytes(50), "a name in it is not text"),
    ],
    ids=["no component", "no points", "no canvas", "no format", "confidence alone", "two formats", "name"],
)
def test_a_strange_header_is_refused(decode, content, reason):
    with pytest.raises(UnusableClip, match=reason):
        decode(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        header(component("A", 65_535)),
        header(component("A", 0, limbs=65_535)),
        header(component("A", 0, colours=65_535)),
        header(component("A", 65_535)) + bytes(5_000_000),
        header(component("A", 0, limbs=65_535)) + bytes(5_000_000),
        header(*[component("A", 0, 0, 0)] * 60_000) + bytes(100),
        struct.pack("<fHHHH", 0.2, 9, 9, 0, 65_535) + bytes(5_000_000),
        header(component("A", 1)) + string("a") + struct.pack(BODY_HEADER, 25, 49_999, 65_535) + bytes(100),
    ],
    ids=range(8),
)
def test_a_header_that_asks_for_much_gets_little(decode, content):
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(UnusableClip):
            decode(content)
    finally:
        sys.setprofile(None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert calls < 1_000_000  # about a second, at most
    assert peak < 3 * len(content) + 30_000_000


def test_a_file_that_is_too_large_is_refused(decode, sign, monkeypatch):
    monkeypatch.setattr(data.media.pose_file, "MOST_POSE_BYTES", 1 << 16)
    with pytest.raises(UnusableClip, match="is larger than 0 MiB, the most for a pose"):
        decode(sign)


def test_a_clip_with_too_many_frames_is_refused_but_a_part_of_it_is_not(decode, sign, monkeypatch):
    monkeypatch.setattr(data.media.decode, "MOST_POSE_FRAMES", 8)
    with pytest.raises(UnusableClip, match="has 12 frames; 8 is the most for a pose"):
        decode(sign)
    assert decode(sign, TimeSpan(0.0, 0.3)).facts.frames == 8


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UnusableClip, match="cannot be read"):
        decode_pose(PlainFile(tmp_path), stretched(4, 16))


def test_absurd_places_do_no_harm(decode):
    generator = numpy.random.default_rng(0)
    for value in (3e38, -3e38, 1e20, 65_536.0, 1e-40):
        sign = signer(12)
        for points in sign.points.values():
            points[generator.random(points.shape) < 0.05] = value
        assert decode(written([sign])).pixels_THWC.shape == (4, 16, 16, 3)


def test_damaged_files_are_drawn_or_refused_with_a_reason(decode, sign):
    generator = numpy.random.default_rng(1)
    refused = 0
    for number in range(400):
        content = bytearray(sign)
        place = int(generator.integers(0, 6000 if number % 2 else len(sign)))
        match number % 4:
            case 0 | 1:
                for byte in generator.integers(0, 256, 4).tolist():
                    content[int(generator.integers(0, 60)) if number % 3 == 0 else place] = byte
            case 2:
                del content[place : place + int(generator.integers(1, 200))]
            case _:
                content[place:place] = generator.bytes(int(generator.integers(1, 200)))
        try:
            decode(bytes(content), TimeSpan(0.0, None if number % 5 else 0.3))
        except UnusableClip:  # any other exception fails the test
            refused += 1
    assert 150 < refused < 400
