"""Unusual but correct files: the right colours come out at the right places."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy
import pytest
from av.video.reformatter import ColorRange
from PIL import Image

from common.video_encoding import video_frame
from data.media.decode import decode_media
from data.media.resample import DecodedClip, Fit
from data.rows import Media, TimeSpan, UnusableClip
from tests.data.media.hostile_codecs import encoded
from tests.data.media.hostile_containers import Avi, Matroska, Mp4
from tests.data.media.hostile_pictures import GifPart, gif, jpeg
from tests.shapes import stretched

BT601, BT709, BT2020 = 6, 1, 9  # the numbers of the matrices in files (ITU-T H.273)
CORNERS = [
    (200, 40, 40),
    (40, 160, 60),
    (40, 60, 200),
    (220, 220, 60),
]  # top left, top right, bottom left, bottom right


def quartered(height: int, width: int, colours: list[tuple[int, int, int]] = CORNERS) -> numpy.ndarray:
    """A picture of four colours, uint8 [height, width, 3]."""
    picture = numpy.empty((height, width, 3), numpy.uint8)
    rows, columns = height // 2, width // 2
    picture[:rows, :columns], picture[:rows, columns:] = colours[:2]
    picture[rows:, :columns], picture[rows:, columns:] = colours[2:]
    return picture


def corner_colours(clip: DecodedClip) -> list[list[float]]:
    """The colours in the middles of the quarters of the last frame."""
    frame = clip.pixels_THWC[-1]
    middles = [frame.shape[0] // 4, frame.shape[0] * 3 // 4]
    return [
        frame[row - 1 : row + 2, column - 1 : column + 2].mean((0, 1)).tolist() for row in middles for column in middles
    ]


def decoded(path: Path, size: int = 32, fit: Fit = "crop", frames: int = 3) -> DecodedClip:
    return decode_media(path.parent, Media("video", path.name), stretched(frames, size, fit))


def write(
    path: Path,
    picture: numpy.ndarray,
    codec: str,
    stored: str,
    *,
    given: str = "rgb24",
    aspect: Fraction | None = None,
    rotation: int = 0,
    matrix: tuple[float, float, float, float] | None = None,
    **options: str,
) -> None:
    """Write three equal frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], stored
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            a, b, c, d = (round(65536 * number) for number in matrix)
            stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for _ in range(3):
            container.mux(stream.encode(video_frame(picture, stored, given)))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "codec", "stored"),
    [
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mp4", "libx264", "yuv444p"),
        ("a.mp4", "libx264", "yuv420p10le"),
        ("a.mkv", "libx264rgb", "rgb24"),
        ("a.mkv", "ffv1", "bgr0"),
        ("a.mkv", "ffv1", "yuv420p10le"),
        ("a.mkv", "ffv1", "yuv444p16le"),
        ("a.mkv", "ffv1", "gbrp10le"),
        ("a.avi", "mpeg4", "yuv420p"),
        ("a.avi", "huffyuv", "rgb24"),
        ("a.avi", "utvideo", "gbrp"),
        ("a.avi", "rawvideo", "bgr24"),
        ("a.mov", "qtrle", "rgb24"),
        ("a.mov", "png", "rgb24"),
        ("a.mov", "prores_ks", "yuv422p10le"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.webm", "libvpx", "yuva420p"),
        ("a.webm", "libvpx-vp9", "yuv444p"),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (35, 51)])
def test_colours_are_right_in_every_pixel_format(tmp_path, name, codec, stored, size):
    if size[1] % 2 and codec.startswith("libx264") and "420" in stored:
        size = (36, 52)  # this encoder takes no odd sizes of these
    options = {"auto-alt-ref": "0"} if stored == "yuva420p" else {}  # which cannot go with transparency
    write(tmp_path / name, quartered(*size), codec, stored, **options)
    clip = decoded(tmp_path / name)
    assert corner_colours(clip) == [pytest.approx(colour, abs=9) for colour in CORNERS]
    assert (clip.facts.height, clip.facts.width) == size


@pytest.mark.parametrize("stored", ["gray", "gray10le", "gray16le"])
def test_greys_are_right(tmp_path, stored):
    greys = [(shade,) * 3 for shade in (10, 90, 170, 250)]
    write(tmp_path / "a.mkv", quartered(64, 64, greys), "ffv1", stored)
    assert corner_colours(decoded(tmp_path / "a.mkv")) == [pytest.approx(colour, abs=3) for colour in greys]


@pytest.mark.parametrize(
    ("name", "codec", "stored"),
    [
        *[("a.mov", "png", "rgba"), ("a.mov", "qtrle", "argb"), ("a.mov", "prores_ks", "yuva444p10le")],
        *[("a.mkv", "ffv1", "bgra"), ("a.mkv", "ffv1", "yuva420p"), ("a.mkv", "libvpx-vp9", "yuva420p")],
        *[("a.webm", "libvpx", "yuva420p"), ("a.webm", "libvpx-vp9", "yuva420p")],
    ],
)
def test_what_is_transparent_in_a_video_is_white(tmp_path, name, codec, stored):
    picture = numpy.dstack([quartered(64, 64), numpy.full((64, 64), 255, numpy.uint8)])
    picture[:32, :32, 3] = 0
    picture[:32, 32:, 3] = 128
    options = {"auto-alt-ref": "0"} if codec == "libvpx" else {}
    write(tmp_path / name, picture, codec, stored, given="rgba", **options)
    clip = decoded(tmp_path / name)
    half = [(value + 255) / 2 for value in CORNERS[1]]
    assert corner_colours(clip) == [
        pytest.approx(colour, abs=2 if "rgb" in stored or "bgr" in stored else 9)
        for colour in ((255, 255, 255), half, CORNERS[2], CORNERS[3])
    ]
    assert clip.facts.changes == ("transparent",)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [("yuva420p", {}), ("yuv420p", {"color_trc": 18}), ("yuva420p", {"color_trc": 18})],
    ids=["transparent", "HDR", "both"],
)
def test_pictures_of_one_colour_stay_so_at_every_width(tmp_path, stored, tags):
    """At some widths, some of FFmpeg's conversions leave the last columns as they were in memory, or drop a colour."""
    for width in range(34, 54):
        with av.open(str(tmp_path / "a.mkv"), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = 54, width, stored
            frame = video_frame(numpy.full((54, width, 4), (90, 140, 190, 255), numpy.uint8), stored, "rgba")
            for tagged in (frame, stream.codec_context):
                for name, value in tags.items():
                    setattr(tagged, name, value)
            for frame.pts in range(2):
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        left = (54 - width) // 2
        clip = decoded(tmp_path / "a.mkv", 54, "pad", 2).pixels_THWC[:, :, left : left + width]
        assert (clip == clip[0, 0, 0]).all()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_what_is_transparent_moves_in_a_part_of_a_webm_too(tmp_path, codec):
    """Frames of black, each transparent down to one row more; the part begins between two key frames."""
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream(codec, rate=10, options={"auto-alt-ref": "0", "deadline": "realtime"})
        stream.height, stream.width, stream.pix_fmt, stream.codec_context.gop_size = 64, 33, "yuva420p", 8
        for number in range(30):
            picture = numpy.zeros((64, 33, 4), numpy.uint8)
            picture[number:, :, 3] = 255
            container.mux(stream.encode(video_frame(picture, "yuva420p", "rgba")))
        container.mux(stream.encode())
    media = Media("video", "a.webm", TimeSpan(1.95, 2.55))  # frames 20 to 25
    clip = decode_media(tmp_path, media, stretched(6, 64, "pad")).pixels_THWC.astype(int)
    for number, frame in zip(range(20, 26), clip[:, :, 32].mean(2), strict=True):
        assert frame[: number - 2].min() > 235
        assert frame[number + 2 :].max() < 20


def test_transparency_of_another_size_is_refused(tmp_path, monkeypatch):
    picture = numpy.dstack([quartered(64, 64), numpy.full((64, 64), 255, numpy.uint8)])
    write(tmp_path / "a.webm", picture, "libvpx-vp9", "yuva420p", given="rgba")
    monkeypatch.setattr("data.media.video.decode_alpha", lambda *given: av.VideoFrame(64, 32, "yuv420p"))
    with pytest.raises(UnusableClip, match="is transparent by pictures of another size"):
        decoded(tmp_path / "a.webm")


@pytest.mark.parametrize(
    ("colorspace", "color_range", "rgb"),
    [  # of Y 90, Cb 100, Cr 200, by the formulas of the ITU
        (BT709, ColorRange.MPEG, (215, 54, 27)),
        (BT709, ColorRange.JPEG, (203, 62, 38)),
        (BT601, ColorRange.MPEG, (201, 39, 30)),
        (BT601, ColorRange.JPEG, (191, 48, 40)),
        (BT2020, ColorRange.MPEG, (207, 45, 26)),
        (BT2020, ColorRange.JPEG, (196, 53, 37)),
    ],
)
def test_colours_are_made_by_the_matrix_and_range_that_the_file_names(tmp_path, colorspace, color_range, rgb):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "0", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        frame = av.VideoFrame(32, 32, "yuv420p")
        for plane, value in zip(frame.planes, (90, 100, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = colorspace, color_range
        for frame.pts in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert decoded(tmp_path / "a.mp4", 16).pixels_THWC.mean((0, 1, 2)) == pytest.approx(rgb, abs=2)


def test_a_palette_in_a_video_is_used(tmp_path):
    numbers = numpy.zeros((64, 64), numpy.uint8)
    numbers[:32, 32:], numbers[32:, :32], numbers[32:, 32:] = 1, 2, 3
    image = Image.fromarray(numbers)
    image.putpalette([value for colour in CORNERS for value in colour])
    image.save(tmp_path / "a.png")
    (tmp_path / "a.avi").write_bytes(Avi([(tmp_path / "a.png").read_bytes()] * 3, codec=b"MPNG").to_bytes())
    assert corner_colours(decoded(tmp_path / "a.avi")) == [list(colour) for colour in CORNERS]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("aspect", [1, 2])
def test_pixels_that_are_not_square_and_lie_on_their_side(tmp_path, rotation, aspect):
    """A picture of 64 x 32 pixels, each twice as wide as high, is four times as wide as it is high."""
    write(tmp_path / "a.mp4", quartered(32, 64), "libx264", "yuv444p", aspect=Fraction(aspect), rotation=rotation)
    width, height = (64 * aspect, 32) if rotation % 180 == 0 else (32, 64 * aspect)
    turned = numpy.rot90(numpy.arange(4).reshape(2, 2), rotation // 90).ravel()
    colours = [pytest.approx(CORNERS[corner], abs=9) for corner in turned]

    cropped = decoded(tmp_path / "a.mp4")
    assert cropped.facts.width / cropped.facts.height == width / height
    assert corner_colours(cropped) == colours

    padded = decoded(tmp_path / "a.mp4", fit="pad").pixels_THWC[-1].astype(int)
    border = 32 // 2 - 32 // (4 * aspect)  # rows above and below, or columns left and right
    lines = padded if width > height else padded.transpose(1, 0, 2)
    assert lines[: border - 1].max() <= 6
    assert lines[-border + 1 :].max() <= 6
    assert lines[border + 1 : -border - 1].max(2).min() > 100


# Where a picture's four corners go by a matrix (a, b, c, d), which moves (x, y) to (a x + c y, b x + d y).
TURNS = {
    (1, 0, 0, 1): ([0, 1, 2, 3], ()),
    (-1, 0, 0, 1): ([1, 0, 3, 2], ("mirrored",)),
    (-1, 0, 0, -1): ([3, 2, 1, 0], ("turned",)),
    (1, 0, 0, -1): ([2, 3, 0, 1], ("turned", "mirrored")),
    (0, 1, 1, 0): ([0, 2, 1, 3], ("turned", "mirrored")),
    (0, 1, -1, 0): ([2, 0, 3, 1], ("turned",)),
    (0, -1, -1, 0): ([3, 1, 2, 0], ("turned", "mirrored")),
    (0, -1, 1, 0): ([1, 3, 0, 2], ("turned",)),
}


@pytest.mark.parametrize("matrix", TURNS)
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")]
)
def test_videos_are_turned_and_mirrored_as_players_do(tmp_path, name, codec, matrix):
    write(tmp_path / name, quartered(32, 64), codec, "yuv444p", matrix=matrix)
    clip = decoded(tmp_path / name)
    corners, changes = TURNS[matrix]
    assert corner_colours(clip) == [pytest.approx(CORNERS[corner], abs=9) for corner in corners]
    assert (clip.facts.width, clip.facts.height) == ((64, 32) if matrix[0] else (32, 64))
    assert clip.facts.changes == changes


@pytest.mark.parametrize(
    ("matrix", "nearest"),
    [
        ((0.87, 0.5, -0.5, 0.87), (1, 0, 0, 1)),  # by 30 degrees
        ((0.5, 0.87, -0.87, 0.5), (0, 1, -1, 0)),  # by 60
        ((-0.87, 0.5, 0.5, 0.87), (-1, 0, 0, 1)),  # by 30, and mirrored
        ((0, 2, -2, 0), (0, 1, -1, 0)),  # larger too
    ],
)
def test_other_turns_count_as_the_nearest_quarter(tmp_path, matrix, nearest):
    write(tmp_path / "a.mp4", quartered(64, 64), "libx264", "yuv444p", matrix=matrix)
    expected = [pytest.approx(CORNERS[corner], abs=9) for corner in TURNS[nearest][0]]
    assert corner_colours(decoded(tmp_path / "a.mp4")) == expected


def with_orientation(picture: numpy.ndarray, orientation: int, kind: str) -> bytes:
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(picture).save(content, kind, exif=exif, **options)
    return content.getvalue()


# EXIF says where the stored picture's first row and column are: 6 is top right, so it has to be turned clockwise.
EXIF = [(1, 0, 0, 1), (-1, 0, 0, 1), (-1, 0, 0, -1), (1, 0, 0, -1), (0, 1, 1, 0), (0, 1, -1, 0), (0, -1, -1, 0)]
EXIF += [(0, -1, 1, 0)]


@pytest.mark.parametrize(("orientation", "matrix"), list(enumerate(EXIF, 1)))
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_frames_are_turned_as_their_camera_was_held(tmp_path, kind, orientation, matrix):
    (tmp_path / "clip").mkdir()
    for number in range(2):
        content = with_orientation(quartered(32, 64), orientation, kind)
        (tmp_path / "clip" / f"{number}.{kind}").write_bytes(content)
    clip = decode_media(tmp_path, Media("frames", "clip"), stretched(2, 32))
    corners, changes = TURNS[matrix]
    assert corner_colours(clip) == [pytest.approx(CORNERS[corner], abs=9) for corner in corners]
    assert (clip.facts.width, clip.facts.height) == ((64, 32) if matrix[0] else (32, 64))
    assert clip.facts.changes == changes


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0", b"Exif\0\0no TIFF at all"], ids=["empty", "cut off", "text"]
)
def test_an_orientation_that_cannot_be_read_counts_as_upright(tmp_path, exif):
    (tmp_path / "clip").mkdir()
    for number in range(2):
        Image.fromarray(quartered(32, 64)).save(tmp_path / "clip" / f"{number}.png", exif=exif)
    clip = decode_media(tmp_path, Media("frames", "clip"), stretched(2, 32))
    assert corner_colours(clip) == [pytest.approx(colour, abs=9) for colour in CORNERS]


def test_jpeg_frames_in_a_video_are_turned_too(tmp_path):
    """Their EXIF is data that PyAV cannot name."""
    frames = [with_orientation(quartered(32, 64), 6, "jpeg")] * 3
    (tmp_path / "a.avi").write_bytes(Avi(frames, 64, 32).to_bytes())
    assert corner_colours(decoded(tmp_path / "a.avi")) == [
        pytest.approx(CORNERS[corner], abs=9) for corner in TURNS[0, 1, -1, 0][0]
    ]


@pytest.mark.parametrize("name", ["a.m4v", "a.M4V", "a.qt", "a.3gp", "a.MP4"])
def test_mp4_and_mov_have_other_names(tmp_path, name):
    write(tmp_path / "a.mp4", quartered(64, 64), "libx264", "yuv444p")
    (tmp_path / "a.mp4").rename(tmp_path / name)
    assert corner_colours(decoded(tmp_path / name)) == [pytest.approx(colour, abs=9) for colour in CORNERS]


def test_an_absurd_shape_of_pixels_counts_as_square(tmp_path):
    write(tmp_path / "a.mp4", quartered(64, 64), "libx264", "yuv444p", aspect=Fraction(1000))
    assert corner_colours(decoded(tmp_path / "a.mp4")) == [pytest.approx(colour, abs=9) for colour in CORNERS]


@pytest.mark.parametrize("numbers", [[0] * 9, [2**31 - 1] * 9, [-(2**31)] * 9, [1, 0, 0, 0, 0, 0, 0, 0, 1]])
def test_a_senseless_orientation_does_no_harm(tmp_path, numbers):
    matrix = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    greys = [jpeg(shade=shade) for shade in (0, 100, 200)]
    (tmp_path / "a.mp4").write_bytes(Mp4(greys, matrix=matrix).to_bytes())
    assert decoded(tmp_path / "a.mp4").pixels_THWC.mean((1, 2, 3)) == pytest.approx([0, 100, 200], abs=2)


def test_frames_that_grow_are_each_made_square(tmp_path):
    frames = [jpeg(64, 64, 0), jpeg(64, 64, 100), jpeg(640, 320, 200)]
    (tmp_path / "a.avi").write_bytes(Avi(frames).to_bytes())
    assert decoded(tmp_path / "a.avi").pixels_THWC.mean((1, 2, 3)) == pytest.approx([0, 100, 200], abs=2)


def test_the_title_of_a_file_need_not_be_unicode(tmp_path):
    """Programs in Western Europe have written titles in Latin-1."""
    frames = encoded("libvpx", deadline="realtime")
    content = Matroska(frames, codec=b"V_VP8", title="Gebärden".encode("latin-1")).to_bytes()
    (tmp_path / "a.webm").write_bytes(content)
    assert decoded(tmp_path / "a.webm").pixels_THWC.shape == (3, 32, 32, 3)


PALETTE = numpy.random.default_rng(1).integers(0, 255, (256, 3), dtype=numpy.uint8)
OTHER_PALETTE = numpy.random.default_rng(2).integers(0, 255, (256, 3), dtype=numpy.uint8)


def random_parts(seed: int, disposals: list[int]) -> list[GifPart]:
    """Frames of 24 x 24 and parts of them, with palettes of their own and transparent places."""
    chance = numpy.random.default_rng(seed)
    parts = []
    for number in range(8):
        height, width = (24, 24) if number == 0 else chance.integers(1, 20, 2)
        top, left = chance.integers(0, 25 - height), chance.integers(0, 25 - width)
        parts.append(
            GifPart(
                chance.integers(0, 6, (height, width)),
                left,
                top,
                palette=OTHER_PALETTE if chance.random() < 0.4 else None,
                transparent=3 if chance.random() < 0.7 else None,
                disposal=disposals[number % len(disposals)],
            )
        )
    return parts


def composed(parts: list[GifPart]) -> numpy.ndarray:
    """What a browser shows on a white page, uint8 [T, 24, 24, 3]."""
    page = numpy.full((24, 24, 3), 255, numpy.uint8)
    shown = []
    for part in parts:
        before = page.copy()
        height, width = part.colours.shape
        place = page[part.top : part.top + height, part.left : part.left + width]
        drawn = part.colours != (-1 if part.transparent is None else part.transparent)
        place[drawn] = (PALETTE if part.palette is None else part.palette)[part.colours[drawn]]
        shown.append(page.copy())
        if part.disposal == 2:
            place[:] = 255
        elif part.disposal == 3:
            page = before
    return numpy.stack(shown)


@pytest.mark.parametrize("disposals", [[0], [1], [2], [3], [1, 3], [2, 0], [3, 0], [0, 1, 2, 3]])
@pytest.mark.parametrize("seed", range(4))
def test_gifs_are_composed_as_browsers_do(tmp_path, disposals, seed):
    parts = random_parts(seed, disposals)
    (tmp_path / "a.gif").write_bytes(gif(parts, 24, 24, PALETTE))
    assert (decoded(tmp_path / "a.gif", 24, frames=8).pixels_THWC == composed(parts)).all()


@pytest.mark.parametrize("disposals", [[0], [1], [3]])
@pytest.mark.parametrize("seed", range(4))
def test_gifs_are_composed_as_pillow_does(tmp_path, disposals, seed):
    parts = random_parts(seed, disposals)
    (tmp_path / "a.gif").write_bytes(gif(parts, 24, 24, PALETTE))
    page = Image.new("RGBA", (24, 24), "white")
    with Image.open(tmp_path / "a.gif") as image:
        for number, frame in enumerate(decoded(tmp_path / "a.gif", 24, frames=8).pixels_THWC):
            image.seek(number)
            assert (numpy.asarray(Image.alpha_composite(page, image.convert("RGBA")))[:, :, :3] == frame).all()


def test_a_gif_whose_frames_reach_over_its_border_shows_them(tmp_path):
    parts = [GifPart(numpy.zeros((16, 16), int)), GifPart(numpy.ones((16, 16), int), left=16, top=16)]
    (tmp_path / "a.gif").write_bytes(gif(parts, 16, 16, PALETTE))
    last = decoded(tmp_path / "a.gif", 32, frames=2).pixels_THWC[-1]
    assert (last[:16, :16] == PALETTE[0]).all()
    assert (last[16:, 16:] == PALETTE[1]).all()
    assert (last[:16, 16:] == 255).all()


def test_a_gif_without_a_palette_is_grey_and_stray_bytes_are_skipped(tmp_path):
    parts = [GifPart(numpy.full((16, 16), shade)) for shade in (10, 200)]
    content = gif(parts, 16, 16)
    (tmp_path / "a.gif").write_bytes(content[:13] + b"\0\0" + content[13:-1] + b"\0;" + b"what follows means nothing")
    assert decoded(tmp_path / "a.gif", 16, frames=2).pixels_THWC.mean((1, 2, 3)).tolist() == [10, 200]


def test_an_interlaced_gif_is_put_in_order(tmp_path):
    rows = numpy.arange(19)[:, None].repeat(19, 1)
    (tmp_path / "a.gif").write_bytes(gif([GifPart(rows, is_interlaced=True)] * 2, 19, 19))
    assert (decoded(tmp_path / "a.gif", 19, frames=2).pixels_THWC == rows[None, :, :, None]).all()
