"""A process that goes through hostile clips takes little memory, and reads nothing but the folder."""

import functools
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy
import pytest
from PIL import Image

from common.video_encoding import video_frame
from tests.data.media.hostile import HOSTILE, playlists
from tests.data.media.hostile_containers import Avi, Mp4, chunk, full_box, numbers
from tests.data.media.hostile_pictures import GifPart, gif, jpeg, png

REPOSITORY = Path(__file__).resolve().parents[3]
# Measured: 424 with two threads, 506 with eight, most of it one clip of large frames, of which there is one at a time.
MOST_MEBIBYTES = 600
SECRET = 203  # the shade of a picture that must not be seen


def inspected(root: Path, *before: str) -> dict[str, Any]:
    """Inspect a folder in a process of its own."""
    command = [*before, sys.executable, "-m", "tests.data.media.hostile_inspection", str(root)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=250)
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    return json.loads(finished.stdout)


def add(root: Path, name: str, content: bytes) -> None:
    (root / name).write_bytes(content)
    (root / name).with_suffix(".txt").write_text("hello")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Any]:
    """What a process takes that decodes two small clips at the same time."""
    root = tmp_path_factory.mktemp("plain")
    for name in ("a.mp4", "b.mp4"):
        add(root, name, Mp4([jpeg(shade=shade) for shade in (0, 100, 200)]).to_bytes())
    return inspected(root)


def heavy_video() -> bytes:
    """What takes most memory: frames as large as may be, of which the decoder has to keep sixteen."""
    file = io.BytesIO()
    picture = numpy.random.default_rng(0).integers(0, 255, (9, 16, 3), dtype=numpy.uint8).repeat(256, 0).repeat(256, 1)
    with av.open(file, "w", format="mp4") as container:
        options = {"preset": "ultrafast", "x264-params": "ref=16:bframes=8:b-pyramid=2:keyint=250:scenecut=0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 2304, 4096, "yuv444p"
        for _ in range(20):
            container.mux(stream.encode(video_frame(picture, "yuv444p")))
        container.mux(stream.encode())
    return file.getvalue()


def heavy_gif() -> bytes:
    """Frames as large as may be, of which what was there before comes back."""
    file = io.BytesIO()
    images = [Image.new("L", (4096, 2304), shade) for shade in (10, 200)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=40, disposal=3)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sorts", "videos"), [(["growing"], 1), pytest.param(list(HOSTILE), 4, marks=pytest.mark.slow)]
)
def test_hostile_clips_take_little_memory(tmp_path, plain, sorts, videos):
    files = {file.name: file for sort in sorts for file in HOSTILE[sort]()}
    for file in files.values():
        file.write(tmp_path)
        (tmp_path / file.name).with_suffix(".txt").write_text("hello")
    video, animation = heavy_video(), heavy_gif()
    picture = png(4096, 2304)
    heavy = {f"heavy_{number}.mp4": video for number in range(videos)}
    heavy |= {f"heavy_{number}.gif": animation for number in range(2)}
    for name, content in heavy.items():
        add(tmp_path, name, content)
    for number in range(2):
        (tmp_path / f"frames_{number}").mkdir()
        for frame in range(2):
            (tmp_path / f"frames_{number}" / f"{frame}.png").write_bytes(picture)
    answer = inspected(tmp_path)
    assert set(answer["usable"]) == {*heavy, "frames_0", "frames_1"}
    assert {name for name, reason in answer["skipped"].items() if not re.search(files[name].reason, reason)} == set()
    assert answer["mebibytes"] - plain["mebibytes"] < MOST_MEBIBYTES
    assert answer["outside"] == []


@pytest.fixture
def listener() -> Iterator[tuple[int, list[str]]]:
    """A port of this machine, and the addresses of those who called it."""
    callers: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:  # closed: the test is over
                    return
                callers.append(str(address))
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield server.getsockname()[1], callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def subtitles(playlist: bytes) -> tuple[bytes, bytes]:
    """A stream of an AVI file that holds a playlist as if it were subtitles, and its content.

    FFmpeg once followed it: https://www.cvedetails.com/cve/CVE-2016-1897 and its successors.
    """
    header = b"txts" + bytes(4) + bytes(12) + numbers(0x01000000, 0x19000000, 0, 0x01000000, 0, 0, 0) + bytes(8)
    stream = chunk(b"LIST", b"strl", chunk(b"strh", header), chunk(b"strf", b""))
    content = b"GAB2\0\2\0" + bytes(4) + b"\4\0" + len(playlist).to_bytes(4, "little") + playlist
    return stream, chunk(b"01tx", content)


def with_references(kind: bytes, target: bytes) -> bytes:
    """A video that says that its pictures lie in another file."""
    greys = [jpeg(shade=shade) for shade in (0, 50, 100)]
    if kind == b"alis":
        name = target.rsplit(b"/", 1)[-1][:63]
        record = bytes(4) + b"\0\x96\0\2" + b"\0\0" + bytes([0]).ljust(28, b"\0") + bytes(12)
        record += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + b"\0\1\0\1" + bytes(16)
        record += b"\0\x12" + len(target).to_bytes(2, "big") + target + bytes(len(target) % 2) + b"\xff\xff\0\0"
        entry = full_box(kind, record)
    else:
        entry = full_box(kind, target + b"\0")
    return Mp4(greys, references=full_box(b"dref", numbers(1), entry)).to_bytes()


@pytest.fixture
def tempting(tmp_path, listener) -> Path:
    """A folder whose files name a secret beside it, and an address."""
    root = tmp_path / "clips"
    root.mkdir()
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(Mp4([jpeg(shade=SECRET)] * 3).to_bytes())
    shutil.copy(secret, tmp_path / "secret.gif")
    (tmp_path / "secret.gif").write_bytes(gif([GifPart(numpy.full((8, 8), SECRET))] * 2, 8, 8))
    addresses = [str(secret), f"file://{secret}", "../secret.mp4", f"http://127.0.0.1:{listener[0]}/secret.mp4"]
    greys = [jpeg(shade=shade) for shade in (0, 50, 100)]
    for number, address in enumerate(addresses):
        for kind, content in playlists(address).items():
            for extension in (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"):
                add(root, f"{kind}_{number}{extension}", content)
            stream, part = subtitles(content)
            add(
                root,
                f"subtitles_{kind}_{number}.avi",
                Avi(greys, further_streams=stream, further_chunks=part).to_bytes(),
            )
        for kind in (b"url ", b"urn ", b"alis"):
            name = f"references_{kind.decode().strip()}_{number}"
            add(root, f"{name}.mp4", with_references(kind, address.encode()))
            add(root, f"{name}.mov", with_references(kind, address.encode()))
    add(root, "link.mp4", b"")
    (root / "link.mp4").unlink()
    (root / "link.mp4").symlink_to(secret)
    (root / "frames").mkdir()
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(png(shade=SECRET))
        (root / "frames" / name).symlink_to(tmp_path / name)
    return root


def check_nothing_leaked(answer: dict[str, Any], callers: list[str]) -> None:
    assert callers == []
    assert answer["connected"] == []
    assert answer["outside"] == []
    assert answer["usable"], "files that name another but hold pictures themselves may be usable"
    assert all(abs(shade - SECRET) > 50 for shade in answer["shades"].values())
    assert not any("secret" in reason for reason in answer["skipped"].values())
    assert answer["skipped"]["link.mp4"].startswith("leads out of the data set's folder, to ")
    assert "leads out of the data set's folder" in answer["skipped"]["frames"]


@pytest.mark.slow
def test_no_file_leads_to_another_or_to_an_address(tempting, listener):
    check_nothing_leaked(inspected(tempting), listener[1])


@functools.cache
def strace_works() -> bool:
    """Whether calls of the system can be watched here."""
    command = ["strace", "-f", "--seccomp-bpf", "-e", "trace=openat", "true"]
    return shutil.which("strace") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not strace_works(), reason="strace is not there, or may not watch processes")
def test_ffmpeg_opens_nothing_outside_of_the_folder_either(tempting, listener, tmp_path):
    trace = tmp_path / "trace"
    calls = "trace=open,openat,openat2,connect,execve"
    check_nothing_leaked(
        inspected(tempting, "strace", "-f", "--seccomp-bpf", "-qq", "-s", "300", "-e", calls, "-o", str(trace)),
        listener[1],
    )
    lines = trace.read_text(errors="replace").splitlines()
    assert any(f"{tempting}/references_url_0.mp4" in line for line in lines)
    assert [line for line in lines if re.search(r"/secret\.|/[12]\.png", line) and "readlink" not in line] == []
    assert [line for line in lines if "connect(" in line and "AF_INET" in line] == []
    assert [line for line in lines if "execve(" in line and "hostile_inspection" not in line] == []
