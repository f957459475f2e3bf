"""A process that goes through a folder of clips and says what that took.

python -m tests.data.media.hostile_inspection FOLDER
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

from data.cache import ClipCache
from data.formats.folder import FORMAT
from data.inspection import ClipReader, inspect_clips
from data.rows import Manifest, ManifestRow, Media
from data.verdicts import VerdictStore
from tests.shapes import stretched

CODE = (".py", ".pyc", ".so")  # what Python reads of itself


def main(root: Path) -> None:
    """Print, as JSON, what was found and touched."""
    opened: list[str] = []
    connected: list[str] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            opened.append(str(arguments[0]))
        elif event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system"):
            connected.append(repr(arguments))

    with tempfile.TemporaryDirectory() as cache:
        reader = ClipReader(root, stretched(8, 32), ClipCache(Path(cache), 100_000_000))
        manifest = FORMAT.read(root)
        frames = [ManifestRow(path.name, Media("frames", path.name), "x") for path in root.iterdir() if path.is_dir()]
        manifest = Manifest(root, (*manifest.rows, *sorted(frames, key=lambda row: row.id)), manifest.skipped)
        sys.addaudithook(watch)
        inspection = inspect_clips("folder", "folder", manifest, reader, VerdictStore(Path(cache), root))
        own = (f"{root}/", cache)
        outside = [path for path in opened if not path.startswith(own) and not path.endswith(CODE)]
    answer = {
        "usable": [clip.row.id for clip in inspection.usable],
        "skipped": {row.id: row.reason for row in inspection.skipped},
        "shades": {clip.row.id: reader.clip(clip).mean().item() for clip in inspection.usable},
        "outside": outside,
        "connected": connected,
        "mebibytes": most_mebibytes(),
    }
    print(json.dumps(answer))


def most_mebibytes() -> float:
    """Return the most memory that this process has had.

    Linux counts, in what `getrusage` says, the process that started this one, until it ran another program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
