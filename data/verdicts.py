"""What was found out about clips at earlier starts, so that a large data set is inspected once.

Each data set has one file of JSON lines, to which lines are only added: several processes may use it, and one that is
killed loses at most what it found in the last moments. Damaged lines do not count. Only clips that can be used are
remembered; the others are read again at every start.
"""

import hashlib
import json
import logging
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import PIL

from common.files import write_atomically
from data.media.decode import DECODING_VERSION
from data.media.motion import Region
from data.media.resample import MediaFacts
from data.rows import Media

WRITTEN_EVERY_SECONDS = 2.0
MOST_STALE_LINES = 1000  # and more than half of the file: then it is written anew

DECODERS = (DECODING_VERSION, av.__version__, PIL.__version__)  # of what one can decode, another may not

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """A clip can be used."""

    digest: str  # sha256 of its content
    facts: MediaFacts


class VerdictStore:
    """Verdicts by clip. Never raises because of the disk: it then goes on without remembering, and says so."""

    def __init__(self, cache_folder: Path, root: Path) -> None:
        """Read what is known about the data set in the folder `root`."""
        name = hashlib.sha256(str(root.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        self._path = cache_folder / f"inspected-v{DECODING_VERSION}" / f"{name}.jsonl"
        self._known: dict[str, Verdict] = {}
        self._lines = 0
        self._unwritten: list[str] = []
        self._written_at = time.monotonic()
        self._used: set[str] = set()
        self._lock = threading.Lock()  # several threads inspect
        self._read()

    def get(self, media: Media, stamp: str) -> Verdict | None:
        """Return what is known of a clip whose files have this stamp."""
        key = _key(media, stamp)
        self._used.add(key)
        return self._known.get(key)

    def add(self, media: Media, stamp: str, verdict: Verdict) -> None:
        """Remember that a clip can be used."""
        key = _key(media, stamp)
        with self._lock:
            self._known[key] = verdict
            self._used.add(key)
            self._unwritten.append(_line(key, verdict))
            is_due = time.monotonic() - self._written_at > WRITTEN_EVERY_SECONDS
        if is_due:
            self.write()

    def write(self) -> None:
        """Write what was added since the last time; call it when all clips have been inspected."""
        with self._lock:
            self._written_at = time.monotonic()
            lines, self._unwritten = self._unwritten, []
        if not lines:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(self._path, "ab") as file:
                # The line break comes first: what a killed process left unfinished then spoils no line but its own.
                file.write(("\n" + "\n".join(lines) + "\n").encode())
        except OSError as error:
            _log.warning("%s cannot be written (%s): the clips are inspected again next time.", self._path, error)
            return
        self._lines += len(lines)

    def tidy(self) -> None:
        """Remove what was not asked for if that is most of the file: clips that are gone or have changed."""
        stale = self._lines - len(self._used & self._known.keys())
        if stale < MOST_STALE_LINES or 2 * stale < self._lines:
            return
        kept = [_line(key, self._known[key]) for key in sorted(self._used & self._known.keys())]
        try:
            write_atomically(self._path, ("\n".join(kept) + "\n").encode())
        except OSError as error:
            _log.warning("%s cannot be made smaller: %s", self._path, error)

    def _read(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read (%s): the clips are inspected again.", self._path, error)
            return
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                facts, region = entry["facts"], entry["facts"]["region"]
                facts |= {"changes": tuple(facts["changes"]), "region": region and Region(**region)}
                self._known[entry["key"]] = Verdict(str(entry["digest"]), MediaFacts(**facts))
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            self._lines += 1


def _key(media: Media, stamp: str) -> str:
    content = json.dumps([DECODERS, asdict(replace(media, allowed=())), stamp]).encode()
    return hashlib.sha256(content).hexdigest()[:32]


def _line(key: str, verdict: Verdict) -> str:
    return json.dumps({"key": key, "digest": verdict.digest, "facts": asdict(verdict.facts)})
