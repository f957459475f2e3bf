"""Small data sets that are laid out as the real ones are, with clips that can be decoded.

Each function makes one below a folder and returns what to give as DATA_ROOT. The first `clips` entries have a file and
nothing wrong with them; two thirds are for training. Published sets also list clips that are not there, as the real
ones do. The lines are in the form of real ones: separators, quotes, ids that begin with "-".
"""

import importlib.resources
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import av
import numpy
from PIL import Image

from common.video_encoding import video_frame

FRAMES = 6
SIDE = 32
WORDS = ("hello", "thank you", "see you", "good morning", "book", "walk")
SENTENCES = (
    "We're going to work on a arm drill that will help you have graceful hand movements in front of you.",
    "I call it painting the wall.",
    "So we're going to go up and down; let's switch hands, down and up; down and up.",
    'She said "Hello" to them.',
    "The number one loss for these birds, is flight.",
    "Good.",
)
FORECASTS = (
    ("JETZT WETTER MORGEN DONNERSTAG", "und nun die wettervorhersage für morgen donnerstag den zwölften august ."),
    ("DRUCK TIEF KOMMEN", "tiefer luftdruck bestimmt in den nächsten tagen unser wetter ."),
    ("MAL NEBEL", "hier und da bilden sich einzelne nebelfelder ."),
    ("SONST REGION SONNE", "sonst scheint verbreitet die sonne ."),
    ("TEMPERATUR BLEIBEN GLEICH", "am temperaturniveau ändert sich wenig ."),
    ("WIND SCHWACH MAESSIG", 'der "wind" weht meist schwach mitunter auch mal mäßig .'),
)


def pictures(number: int, height: int = SIDE, width: int = SIDE) -> numpy.ndarray:
    """Return uint8 [FRAMES, height, width, 3]: a square that moves, another colour for each number."""
    video = numpy.full((FRAMES, height, width, 3), 40, numpy.uint8)
    colour = [(number * 67) % 200 + 55, (number * 131) % 200 + 55, (number * 29) % 200 + 55]
    side = min(height, width) // 3
    for frame in range(FRAMES):
        left = frame * (width - side) // FRAMES
        video[frame, side : 2 * side, left : left + side] = colour
    return video


def write_clip(path: Path, number: int, rate: int = 25) -> Path:
    """Write a video file of FRAMES frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # Without assembler, which at this size makes other bits now and then: it reads memory that nobody has written.
        stream = container.add_stream("libx264", rate=rate, options={"x264-params": "asm=0"})
        stream.height = stream.width = SIDE
        stream.pix_fmt = "yuv420p"
        for image in pictures(number):
            container.mux(stream.encode(video_frame(image, "yuv420p")))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, number: int, height: int = 260, width: int = 210) -> Path:
    """Write a folder of FRAMES pictures, named as PHOENIX-2014T names them."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame, image in enumerate(pictures(number, height, width), 1):
        Image.fromarray(image).save(folder / f"images{frame:04d}.png")
    return folder


def split_of(number: int, names: Sequence[str] = ("train", "val", "test")) -> str:
    """Return the split of a clip: four of six are for training."""
    return names[(0, 0, 1, 0, 2, 0)[number % 6]]


def folder_replica(folder: Path, clips: int = 6) -> Path:
    """Make ``alice_0.mp4`` with ``alice_0.txt`` and so on."""
    for number in range(clips):
        name = f"{('alice', 'bob', 'carol')[number % 3]}_{number}"
        write_clip(folder / f"{name}.mp4", number)
        (folder / f"{name}.txt").write_text(WORDS[number % len(WORDS)] + "\n", encoding="utf-8")
    return folder


def words_replica(folder: Path, clips: int = 6) -> Path:
    """Make ``train/hello/0.mp4`` and so on; each word is signed by two clips."""
    for number in range(clips):
        word = WORDS[number // 2 % len(WORDS)].replace(" ", "_")
        write_clip(folder / split_of(number) / word / f"{number}.mp4", number)
    return folder


def manifest_replica(folder: Path, clips: int = 6, extension: str = ".csv") -> Path:
    """Make a list that somebody wrote, with every field, beside its clips; the list is what to give as DATA_ROOT."""
    rows = []
    for number in range(clips):
        write_clip(folder / "clips" / f"{number}.mp4", number)
        row = {
            "path": f"clips/{number}.mp4",
            "text": WORDS[number % len(WORDS)],
            "signer": ("alice", "bob", "carol")[number % 3],
            "split": split_of(number),
            "start": "",
            "end": "0.2" if number % 2 else "",
            "language": "ase",
        }
        rows.append(row)
    file = folder / f"manifest{extension}"
    if extension == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        separator = "\t" if extension == ".tsv" else ","
        lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def how2sign_replica(folder: Path, clips: int = 6) -> Path:
    """Make the lists, which are separated by tabs, and the clips in the folders of the archives."""
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for number in range(clips):
        split, signer = split_of(number), (1, 5, 8)[number % 3]
        video = ("-d5dN54tH2E", "--7E2sU6zP4", "G3di9jJTqDs")[number % 3]
        name = f"{video}_{number}-{signer}-rgb_front"
        write_clip(folder / f"{split}_rgb_front_clips" / "raw_videos" / f"{name}.mp4", number)
        lines[split].append(_how2sign_line(video, signer, number, SENTENCES[number % len(SENTENCES)]))
    lines["train"].append(_how2sign_line("00dWJ4YRRSI", 11, 2, "This clip has no file."))
    for split, body in lines.items():
        _write_lines(folder / f"how2sign_realigned_{split}.csv", HOW2SIGN_HEADER, body)
    return folder


HOW2SIGN_HEADER = "VIDEO_ID\tVIDEO_NAME\tSENTENCE_ID\tSENTENCE_NAME\tSTART_REALIGNED\tEND_REALIGNED\tSENTENCE"


def _how2sign_line(video: str, signer: int, number: int, sentence: str) -> str:
    quoted = '"' + sentence.replace('"', '""') + '"' if '"' in sentence else sentence  # as pandas writes it
    times = f"{12.97 + number}\t{19.52 + number}"
    view = f"{signer}-rgb_front"
    return f"{video}\t{video}-{view}\t{video}_{number}\t{video}_{number}-{view}\t{times}\t{quoted}"


def phoenix_replica(folder: Path, clips: int = 6) -> Path:
    """Make the release's folder with annotations/manual and features/fullFrame-210x260px."""
    root = folder / "PHOENIX-2014-T"
    lines: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for number in range(clips):
        split = split_of(number, ("train", "dev", "test"))
        name = f"11August_2010_Wednesday_tagesschau-{number + 1}"
        write_frames(root / "features" / "fullFrame-210x260px" / split / name, number)
        lines[split].append(_phoenix_line(name, (8, 1, 5)[number % 3], *FORECASTS[number % len(FORECASTS)]))
    lines["train"].append(_phoenix_line("05May_2011_Thursday_heute-99", 4, "REGEN", "es regnet ."))
    for split, body in lines.items():
        file = root / "annotations" / "manual" / f"PHOENIX-2014-T.{split}.corpus.csv"
        _write_lines(file, "name|video|start|end|speaker|orth|translation", body)
    return folder


def _phoenix_line(name: str, signer: int, glosses: str, translation: str) -> str:
    return f"{name}|{name}/1/*.png|-1|-1|Signer{signer:02d}|{glosses}|{translation}"


def wlasl_replica(folder: Path, clips: int = 6) -> Path:
    """Make WLASL_v0.3.json and videos/VIDEO_ID.mp4; each word is signed twice, and once more without a file."""
    entries = []
    for start in range(0, clips, 2):
        instances = [_wlasl_instance(number) for number in range(start, min(start + 2, clips))]
        for instance in instances:
            write_clip(folder / "videos" / f"{instance['video_id']}.mp4", int(str(instance["video_id"])))
        instances.append(_wlasl_instance(start, video_id=f"9{start:04d}"))
        entries.append({"gloss": WORDS[start // 2 % len(WORDS)], "instances": instances})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "WLASL_v0.3.json").write_text(json.dumps(entries, indent=4), encoding="utf-8")
    return folder


def _wlasl_instance(number: int, video_id: str | None = None) -> dict[str, object]:
    return {
        "bbox": [385, 37, 885, 720],
        "fps": 25,
        "frame_end": 2249 if number % 2 else -1,
        "frame_start": 2150 if number % 2 else 1,
        "instance_id": number,
        "signer_id": (118, 90, 31)[number % 3],
        "source": "aslbrick",
        "split": split_of(number),
        "url": "http://aslbricks.org/New/ASL-Videos/book.mp4",
        "variation_id": 0,
        "video_id": f"{number + 335:05d}" if video_id is None else video_id,
    }


def msasl_replica(folder: Path, clips: int = 6) -> Path:
    """Make the three lists and the videos: half of them complete, half cut; each word is in two clips."""
    lists: dict[str, list[dict[str, object]]] = {"train": [msasl_entry(99)], "val": [], "test": []}
    for number in range(clips):
        entry = msasl_entry(number)
        lists[split_of(number)].append(entry)
        part = f"_{entry['start']}_{entry['end']}" if number % 2 else ""
        write_clip(folder / "videos" / f"video-{number:05d}{part}.mp4", number)
    for split, entries in lists.items():
        (folder / f"MSASL_{split}.json").write_text(json.dumps(entries), encoding="utf-8")
    (folder / "MSASL_classes.json").write_text(json.dumps(WORDS), encoding="utf-8")
    return folder


def msasl_entry(number: int, **changes: object) -> dict[str, object]:
    """Return an entry of a list of MS-ASL: the first 0.2 seconds of the video "video-00000" and so on."""
    word = WORDS[number // 2 % len(WORDS)]
    entry: dict[str, object] = {
        "org_text": f"{word.upper()}-sign",
        "clean_text": word,
        "start_time": 0.0,
        "signer_id": (7, 0, 31)[number % 3],
        "signer": -1,
        "start": 0,
        "end": 5,
        "file": f"{word} sign",
        "label": number // 2,
        "height": 360.0,
        "fps": 25.0,
        "end_time": 0.2,
        "url": f"https://www.youtube.com/watch?v=video-{number:05d}",
        "text": word,
        "box": [0.05, 0.21, 1.0, 0.83],
        "width": 640.0,
    }
    return entry | changes


def pose_lexicon_replica(folder: Path, clips: int = 6) -> Path:
    """Copy letters of the finger-spelling lexicon in the package spoken-to-signed, with their lines of its index."""
    lexicon = importlib.resources.files("spoken_to_signed") / "assets" / "fingerspelling_lexicon"
    header, *lines = (lexicon / "index.csv").read_text(encoding="utf-8").splitlines()
    (folder / "ase").mkdir(parents=True, exist_ok=True)
    for line in lines[:clips]:
        path = line.split(",")[0]
        with importlib.resources.as_file(lexicon.joinpath(*path.split("/"))) as file:
            shutil.copyfile(file, folder / path)
    _write_lines(folder / "index.csv", header, lines[:clips])
    return folder


def webdataset_replica(folder: Path, clips: int = 6) -> Path:
    """Make two shards of samples ``0000.mp4``, ``0000.json`` with caption, signer and split."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(folder / f"clips-{shard:06d}.tar", "w") as tar:
            for number in range(shard, clips, 2):
                clip = write_clip(folder / f"{number:04d}.mp4", number)
                _add_member(tar, clip.name, clip.read_bytes())
                signer = ("alice", "bob", "carol")[number % 3]
                fields = {"text": WORDS[number % len(WORDS)], "signer": signer, "split": split_of(number)}
                _add_member(tar, f"{number:04d}.json", json.dumps(fields).encode())
                clip.unlink()
    return folder


def _add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def _write_lines(file: Path, header: str, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
