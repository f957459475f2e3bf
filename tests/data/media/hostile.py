"""Files that are damaged, mislabelled or made to do harm, each with what must be said of it.

Each function of HOSTILE makes those of one sort.
"""

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy
from PIL import Image

from common.video_encoding import video_frame
from tests.data.media.hostile_codecs import encoded, h264, vp8, vp9
from tests.data.media.hostile_containers import Avi, Matroska, Mp4, box, full_box, numbers
from tests.data.media.hostile_pictures import (
    GifPart,
    gif,
    jpeg,
    jpeg_that_claims,
    long_gif,
    png,
    png_that_claims,
)

CUTS = 10  # places at which each kind of file is cut off
LARGE = 30_000  # pixels: width and height that headers claim
UNKNOWN_KIND = "^is not a video of a known kind$"
TOO_LARGE = r"frames of \d+ x \d+ pixels; the most is|of an unknown size, or of more than \d+ pixels"
TOO_MANY = r"^has more than 50000 frames$"
_ENCODERS = {".mp4": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}


@dataclass(frozen=True)
class HostileFile:
    """A file of which no clip can be made."""

    name: str
    content: bytes
    reason: str  # regular expression for what is said of it
    size: int | None = None  # where the file is longer than its content: the rest is a hole that takes no room

    def write(self, folder: Path) -> Path:
        """Write it into a folder."""
        path = folder / self.name
        path.write_bytes(self.content)
        if self.size is not None:
            with open(path, "r+b") as file:
                file.truncate(self.size)
        return path


def noise(frames: int = 20, size: int = 64) -> list[numpy.ndarray]:
    """Frames that cannot be compressed."""
    return list(numpy.random.default_rng(0).integers(0, 255, (frames, size, size, 3), dtype=numpy.uint8))


def valid_file(folder: Path, extension: str, **options: str) -> bytes:
    """A correct file of twenty frames, as an encoder writes it. Options are the container's."""
    path = folder / f"valid{extension}"
    if extension == ".gif":
        images = [Image.fromarray(frame) for frame in noise()]
        images[0].save(path, save_all=True, append_images=images[1:], duration=40)
        return path.read_bytes()
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(_ENCODERS[extension], rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for frame in noise():
            container.mux(stream.encode(video_frame(frame, "yuv420p")))
        container.mux(stream.encode())
    return path.read_bytes()


def grey_frames(count: int = 4) -> list[bytes]:
    """Pictures of growing brightness."""
    return [jpeg(shade=40 + number) for number in range(count)]


def _cut_off() -> Iterator[HostileFile]:
    with tempfile.TemporaryDirectory() as folder:
        whole = {f"cut_off{extension}": valid_file(Path(folder), extension) for extension in (".gif", *_ENCODERS)}
        whole["cut_off_index_first.mp4"] = valid_file(Path(folder), ".mp4", movflags="faststart")
    for name, content in whole.items():
        stem, extension = name.split(".")
        for place in range(1, CUTS + 1):
            cut = content[: len(content) * place // (CUTS + 2)]
            yield HostileFile(f"{stem}_{place}.{extension}", cut, "^is cut off: ")
    yield HostileFile(
        "index_of_more.mp4",
        Mp4(grey_frames(20), content=b"".join(grey_frames(20)[:10])).to_bytes(),
        "^is cut off: 10 frames are there, of 20$",
    )


def _empty() -> Iterator[HostileFile]:
    for extension in (".gif", *_ENCODERS):
        yield HostileFile(f"empty{extension}", b"", "^is empty$")


def _too_few() -> Iterator[HostileFile]:
    for count, name, reason in ((0, "no_frames", "^has no frames$"), (1, "one_frame", "^has only one frame")):
        yield HostileFile(f"{name}.mp4", Mp4(grey_frames(count)).to_bytes(), reason)
        yield HostileFile(f"{name}.mkv", Matroska(grey_frames(count)).to_bytes(), reason)
        yield HostileFile(f"{name}.avi", Avi(grey_frames(count)).to_bytes(), reason)
        yield HostileFile(f"{name}.gif", gif([GifPart(numpy.zeros((16, 16)))] * count, 16, 16), reason)
    yield HostileFile("no_video.mp4", box(b"ftyp", b"isom\0\0\2\0isom") + box(b"moov"), "cannot be decoded|no video")
    yield HostileFile("only_a_head.mp4", box(b"ftyp", b"isom\0\0\2\0isom"), "cannot be decoded")
    yield HostileFile("only_a_head.mkv", b"\x1a\x45\xdf\xa3", "cannot be decoded")
    yield HostileFile("only_a_head.gif", b"GIF89a", "^is cut off")
    for extension, codec in ((".mp4", "aac"), (".mkv", "aac"), (".webm", "libopus"), (".avi", "pcm_s16le")):
        yield HostileFile(f"only_sound{extension}", _sound(extension, codec), "^has no video stream$")


def _sound(extension: str, codec: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sound{extension}"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=48_000, layout="mono")
            frame = av.AudioFrame.from_ndarray(numpy.zeros((1, 9600), numpy.int16), "s16", "mono")
            frame.sample_rate = 48_000
            resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000, stream.codec_context.frame_size)
            for part in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(part))
            container.mux(stream.encode())
        return path.read_bytes()


def _small() -> Iterator[HostileFile]:
    for side in (0, 1):
        reason = f"frames of {side} x {side} pixels; the least is 8 x 8|of an unknown size"
        colours = numpy.zeros((side, side))
        name = f"{side}_pixels"
        yield HostileFile(f"{name}.gif", gif([GifPart(colours)] * 2, side, side), reason)
        pixels = [bytes(3 * side * side)] * 4
        yield HostileFile(f"{name}.mp4", Mp4(pixels, side, side, codec=b"raw ").to_bytes(), reason)
        yield HostileFile(f"{name}.avi", Avi(pixels, side, side, codec=bytes(4)).to_bytes(), reason)
    yield HostileFile("1_pixel_jpeg.mkv", Matroska([jpeg(1, 1)] * 4, 1, 1).to_bytes(), "frames of 1 x 1 pixels")


def _large() -> Iterator[HostileFile]:
    size = (LARGE, LARGE)
    yield HostileFile("large.gif", gif([GifPart(numpy.zeros((8, 8)))] * 2, *size), TOO_LARGE)
    samples, header = h264(*size)
    yield HostileFile("large_h264.mp4", Mp4(samples, *size, b"avc1", header).to_bytes(), TOO_LARGE)
    # Here FFmpeg refuses the stream's own header, and the container's is all that is known.
    yield HostileFile("large_h264_inside.mp4", Mp4(samples, 64, 64, b"avc1", header).to_bytes(), "cannot be decoded")
    samples, header = h264(16_000, 16_000)
    yield HostileFile("large_h264_within_limits.mp4", Mp4(samples, 64, 64, b"avc1", header).to_bytes(), TOO_LARGE)
    for name, codec, frames in (("vp8", b"V_VP8", vp8(16_383, 16_383)), ("vp9", b"V_VP9", vp9(*size))):
        yield HostileFile(f"large_{name}.webm", Matroska(frames, *size, codec).to_bytes(), TOO_LARGE)
        inside = f"{TOO_LARGE}|cannot be decoded"
        yield HostileFile(f"large_{name}_inside.webm", Matroska(frames, codec=codec).to_bytes(), inside)
    claims = [jpeg_that_claims(*size)] * 4
    yield HostileFile("large_jpeg.mp4", Mp4(claims, *size).to_bytes(), TOO_LARGE)
    yield HostileFile("large_jpeg.mkv", Matroska(claims, *size).to_bytes(), TOO_LARGE)
    yield HostileFile("large_jpeg.avi", Avi(claims, *size).to_bytes(), TOO_LARGE)
    yield HostileFile("large_jpeg_inside.avi", Avi(claims).to_bytes(), "cannot be decoded")
    claims = [png_that_claims(*size)] * 4
    yield HostileFile("large_png.avi", Avi(claims, *size, b"MPNG").to_bytes(), TOO_LARGE)
    yield HostileFile("large_png_inside.avi", Avi(claims, codec=b"MPNG").to_bytes(), "cannot be decoded")
    pixels = [bytes(3 * 64 * 64)] * 4
    yield HostileFile("large_raw.avi", Avi(pixels, *size, bytes(4)).to_bytes(), TOO_LARGE)
    yield HostileFile("large_raw.mp4", Mp4(pixels, *size, b"raw ").to_bytes(), TOO_LARGE)


def _growing() -> Iterator[HostileFile]:
    first = GifPart(numpy.zeros((8, 8)))
    for disposal in range(4):
        last = GifPart(numpy.zeros((1, 1)), left=LARGE, top=LARGE, disposal=disposal)
        yield HostileFile(f"grows_{disposal}.gif", gif([first, last, first], 8, 8), TOO_LARGE)
    samples, header = h264(16_000, 16_000, from_frame=2)
    yield HostileFile("grows_h264.mp4", Mp4(samples, 64, 64, b"avc1", header).to_bytes(), "cannot be decoded")
    frames = encoded("libvpx", deadline="realtime") + vp8(16_383, 16_383)
    yield HostileFile("grows_vp8.webm", Matroska(frames, codec=b"V_VP8").to_bytes(), "cannot be decoded")
    # More than what decoders that work beside each other may take, and less than what one may take alone.
    yield HostileFile("grows_really.avi", Avi([jpeg(), jpeg(), jpeg(2048, 1280)]).to_bytes(), "cannot be decoded")
    frames = encoded("libvpx-vp9", deadline="realtime") + vp9(4_000, 2_000)
    yield HostileFile("grows_vp9.webm", Matroska(frames, codec=b"V_VP9").to_bytes(), "cannot be decoded")
    claims = [jpeg(), jpeg(), jpeg_that_claims(LARGE, LARGE)]
    yield HostileFile("grows_jpeg.avi", Avi(claims).to_bytes(), "cannot be decoded")


def _long() -> Iterator[HostileFile]:
    yield HostileFile("long.gif", long_gif(100_000), TOO_MANY)
    tiny = [jpeg(16, 16)] * 60_000
    yield HostileFile("long.mp4", Mp4(tiny, 16, 16).to_bytes(), TOO_MANY)
    yield HostileFile("long.avi", Avi([bytes(192)] * 60_000, 8, 8, bytes(4)).to_bytes(), TOO_MANY)
    times = [number % 30_000 for number in range(60_000)]
    yield HostileFile("long.mkv", Matroska(tiny, 16, 16, times=times).to_bytes(), TOO_MANY)
    yield HostileFile("many_pixels.gif", long_gif(1000, 4096, 2304), "^is too long")
    yield HostileFile("one_pixel_too_many.gif", long_gif(3, 4097, 2304), TOO_LARGE)


def _mislabelled() -> Iterator[HostileFile]:
    still = gif([GifPart(numpy.zeros((16, 16)))] * 2, 16, 16)
    yield HostileFile("gif.mp4", still, "^is not a .mp4 file: its content is gif$")
    yield HostileFile("mp4.webm", Mp4(grey_frames()).to_bytes(), "^is not a .webm file: its content is mov$")
    yield HostileFile("mkv.avi", Matroska(grey_frames()).to_bytes(), "^is not a .avi file: its content is matroska$")
    yield HostileFile("avi.gif", Avi(grey_frames()).to_bytes(), "^is not a .gif file: its content is avi$")
    yield HostileFile("png.gif", png(), UNKNOWN_KIND)
    yield HostileFile("text.mp4", b"I am text and nothing else.\n" * 9, UNKNOWN_KIND)
    yield HostileFile("page.mp4", b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>", UNKNOWN_KIND)
    yield HostileFile("sound.avi", b"RIFF\x24\0\0\0WAVEfmt ", UNKNOWN_KIND)
    yield HostileFile("other_codec.mp4", Mp4(grey_frames(), codec=b"xxyy").to_bytes(), "encoded in a way that is not")
    yield HostileFile(
        "old_codec.avi", Avi(grey_frames(), codec=b"RT21").to_bytes(), "^is encoded as indeo2, which is not"
    )


def playlists(target: str) -> dict[str, bytes]:
    """Texts that FFmpeg takes for instructions to open something else."""
    return {
        "m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        "ffconcat": f"ffconcat version 1.0\nfile '{target}'\n".encode(),
        "concat": f"file '{target}'\n".encode(),
        "sdp": f"v=0\ns=x\nu={target}\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n".encode(),
        "dash": f"<?xml version='1.0'?><MPD><BaseURL>{target}</BaseURL></MPD>".encode(),
        "link": f"[InternetShortcut]\nURL={target}\n".encode(),
    }


def _playlists() -> Iterator[HostileFile]:
    for number, target in enumerate(("/etc/passwd", "http://127.0.0.1:9/secret.mp4")):
        for kind, content in playlists(target).items():
            for extension in (".gif", *_ENCODERS):
                yield HostileFile(f"{kind}_{number}{extension}", content, UNKNOWN_KIND)


def _greedy() -> Iterator[HostileFile]:
    """Small files whose tables ask for gigabytes, or for the same pictures again and again."""
    frames = grey_frames(1000)
    edits = box(b"edts", full_box(b"elst", numbers(100_000), numbers(1000, 0, 0x10000) * 100_000))
    yield HostileFile("repeats.mp4", Mp4(frames, edits=edits).to_bytes(), TOO_MANY)
    count = 150_000_000
    yield HostileFile(
        "table.mp4",
        Mp4(
            grey_frames(),
            frame_times=full_box(b"stts", numbers(1, count, 1)),
            sizes=full_box(b"stsz", numbers(8, count)),
            chunks=full_box(b"stsc", numbers(1, 1, count, 1)),
        ).to_bytes(),
        "^has no frames$|^has more than|^is cut off|cannot be decoded",
    )
    # A hole of a gibibyte takes no room on the disk; here it is one frame.
    size = 1 << 30
    lengths = [len(frame) for frame in grey_frames()]
    video = Mp4(grey_frames(), sizes=full_box(b"stsz", numbers(0, 4, *lengths[:3], size - 100_000))).to_bytes()
    start = video.rindex(b"mdat") - 4
    video = video[:start] + struct.pack(">I", size - start) + video[start + 4 :]
    yield HostileFile("larger.mp4", video, "^is larger than 1024 MiB$", size + 1)
    yield HostileFile("hole.mp4", video, r"^cannot be decoded \(Cannot allocate memory\)$", size)


def _untimed() -> Iterator[HostileFile]:
    years = full_box(b"stts", numbers(2, 3, 1, 1, 0x7FFFFFFF))
    yield HostileFile(
        "years_later.mp4",
        Mp4(
            grey_frames(), frame_times=years, display_offsets=full_box(b"ctts", numbers(2, 3, 0, 1, 0x7FFFFFF0))
        ).to_bytes(),
        r"^lasts [\d.e+]+ seconds by its timestamps",
    )
    yield HostileFile(
        "at_once.mkv", Matroska(grey_frames(), times=[7] * 4).to_bytes(), "^shows all of its frames at one moment"
    )


HOSTILE = {
    "cut off": _cut_off,
    "empty": _empty,
    "too few frames": _too_few,
    "too small": _small,
    "too large": _large,
    "growing": _growing,
    "too long": _long,
    "mislabelled": _mislabelled,
    "playlists": _playlists,
    "greedy": _greedy,
    "badly timed": _untimed,
}
