"""The only door to a run's event file, ``metrics.jsonl`` and ``samples/``.

Records are framed and written here, on the calling thread, instead of through TensorBoard's ``EventFileWriter``. That
class writes on a thread which ends at the first error, after which calls raise or hang, and it flushes when it likes.
Here what is logged waits in memory until :meth:`Writer.flush`: nothing can die, a failed write is repeated at the next
flush, and TENSORBOARD_FLUSH_EVERY_STEPS means what it says.
"""

import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tqdm import tqdm

from common.files import write_atomically
from common.video_encoding import check_video, encode_gif, encode_mp4, encode_png
from logging_system.files import summaries
from logging_system.files.append_log import AppendLog, BinaryFile, frame_record, open_unbuffered
from logging_system.files.encoding_worker import EncodingWorker
from logging_system.files.rewind import EPOCH_MARK, EVENT_FILE_PREFIX, METRICS_FILE, PARTIAL_EPOCH_MARK
from logging_system.files.scalar_history import ScalarHistory, json_number, read_history
from logging_system.statistics.tensors import Histogram

SAMPLES_FOLDER = "samples"
_CLOSE_TIMEOUT_SECONDS = 120.0
_HURRIED_CLOSE_SECONDS = 2.0


def report_on_console(message: str) -> None:
    """Write one line to the standard error stream, above a tqdm bar if there is one."""
    tqdm.write(message, file=sys.stderr)
    sys.stderr.flush()


class Writer:
    """Writes one run. Every method returns at once and none raises for the sake of a disk or an encoder.

    Such a failure is counted in :attr:`failures`, reported once on the console and tried again at the next flush. Wrong
    arguments do raise ValueError, for they are mistakes of the caller. Safe to use from several threads.

    ``description`` says what a tag is, with its unit; TensorBoard shows it next to the chart. It is stored with the
    tag's first point of this process.

    Attributes:
        history: every scalar of the run, those of earlier launches included. Only to be read.
        dropped_videos: given up because the encoder could not keep up. Only to be read.

    Args:
        run_folder: created if need be; the event file is new, ``metrics.jsonl`` is continued.
        first_new_step: 0 for a new run, else the first step that this process will write (see `rewind.rewind`).
        report: takes one line for the console.
        open_file: opens a file for writing at any position.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        first_new_step: int = 0,
        report: Callable[[str], None] = report_on_console,
        open_file: Callable[[Path], BinaryFile] = open_unbuffered,
    ) -> None:
        self._run_folder = run_folder
        self._report = report
        self._lock = threading.RLock()
        self._described: set[str] = set()
        self._failures: Counter[str] = Counter()
        self.dropped_videos = 0
        self._waiting_files: dict[Path, bytes] = {}
        self._worker = EncodingWorker(lambda error: self._fail("video", f"a video could not be encoded: {error!r}"))
        self._events = AppendLog(_new_event_file(run_folder), open_file=open_file)
        self._metrics = AppendLog(run_folder / METRICS_FILE, open_file=open_file)
        self.history = self._read_history(self._metrics.path)
        self._append_event(Event(file_version="brain.Event:2"))
        # Tells readers that honour it to forget later points of an earlier launch. TensorBoard's fast loader does not,
        # which is why rewind.rewind also takes them out of the files.
        self._append_event(Event(step=first_new_step, session_log=SessionLog(status=SessionLog.START)))

    @property
    def failures(self) -> Mapping[str, int]:
        """How often each kind of thing failed: event_file, metrics_file, sample_file, video, and refused_points.

        Points are refused while a file cannot be written and too much waits for it already (see ``AppendLog``).
        """
        with self._lock:
            refused = self._events.dropped + self._metrics.dropped
            return MappingProxyType({**self._failures, **({"refused_points": refused} if refused else {})})

    def scalar(self, tag: str, value: float, step: int, description: str = "") -> None:
        """Write one number to the event file (as float32, its format) and to ``metrics.jsonl`` (as float64).

        Values that are not finite are written as they are. JSON has no such numbers, so there they become the strings
        "NaN", "Infinity" and "-Infinity", which Python's ``float`` and pandas' ``to_numeric`` read back.
        """
        number = float(value)
        line = json.dumps({"step": step, "tag": tag, "value": json_number(number)}, allow_nan=False) + "\n"
        with self._lock:
            self._append_value(tag, step, lambda text: summaries.scalar_value(tag, number, text), description)
            self._guard("metrics_file", self._metrics, lambda: self._metrics.append(line.encode()))
            self.history.add(tag, step, number)

    def histogram(self, tag: str, histogram: Histogram, step: int, description: str = "") -> None:
        self._append_value(tag, step, lambda text: summaries.histogram_value(tag, histogram, text), description)

    def text(self, tag: str, markdown: str, step: int, description: str = "") -> None:
        self._append_value(tag, step, lambda text: summaries.text_value(tag, markdown, text), description)

    def image(self, tag: str, image_HWC: numpy.ndarray, step: int, description: str = "") -> None:
        """Write a uint8 [H, W, 3] image as PNG."""
        self._append_image(tag, encode_png(image_HWC), image_HWC.shape[1], image_HWC.shape[0], step, description)

    def video(
        self,
        tag: str,
        video_THWC: numpy.ndarray,
        step: int,
        frames_per_second: float,
        file_name: str | None = None,
        scale: int = 1,
        description: str = "",
    ) -> None:
        """Write a uint8 [T, H, W, 3] clip as a looping GIF, encoded on a worker thread.

        Args:
            tag: in TensorBoard's Images tab.
            video_THWC: copied, so the caller may change it afterwards.
            step: of the optimizer.
            frames_per_second: above 0.
            file_name: also write ``samples/<file_name>.mp4`` in the run folder.
            scale: enlarge each pixel this many times, so that a clip of 32 pixels can be seen.
            description: what the clip shows.
        """
        if file_name is not None and (not file_name or Path(file_name).name != file_name):
            raise ValueError(f"file_name is {file_name!r}; it must be a plain name without folders")
        check_video(video_THWC, frames_per_second, scale)
        frames = numpy.array(video_THWC, copy=True)
        is_shown = False

        def encode() -> None:
            nonlocal is_shown
            if not is_shown:  # a job that raises is tried again, and must not show its clip twice
                width, height = frames.shape[2] * scale, frames.shape[1] * scale
                self._append_image(tag, encode_gif(frames, frames_per_second, scale), width, height, step, description)
                is_shown = True
            if file_name is not None:
                path = self._run_folder / SAMPLES_FOLDER / f"{file_name}.mp4"
                self._write_file(path, encode_mp4(frames, frames_per_second, scale))

        if not self._worker.submit(encode, frames.nbytes):
            with self._lock:
                self.dropped_videos += 1
                first = self.dropped_videos == 1
            if first:
                self._report(
                    "Logging: videos come faster than they can be encoded; some are missing from the dashboard."
                )

    def hparams_start(
        self, hparams: Mapping[str, bool | float | str], metrics: Sequence[str], prominent: Collection[str] = ()
    ) -> None:
        """Show this run in the HParams tab: its settings, ``prominent`` first, and the latest values of ``metrics``."""
        values = summaries.hparams_start_values(hparams, metrics, self._run_folder.name, prominent)
        self._append_event(Event(step=0, summary=Summary(value=values)))

    def hparams_end(self) -> None:
        """Show there that the run has come to its end. A run that was interrupted, or goes on, does not say so."""
        self._append_event(Event(step=0, summary=Summary(value=[summaries.hparams_end_value()])))

    def custom_scalars_layout(self, layout: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Group curves in the Custom Scalars tab (see `summaries.layout_value`)."""
        self._append_event(Event(step=0, summary=Summary(value=[summaries.layout_value(layout)])))

    def mark_epoch(self, step: int, *, is_partial: bool) -> None:
        """Note that the epoch points which follow were made at optimizer step ``step``.

        Epoch summaries have the epoch on their x axis; with this mark a later resume knows which of them to take back.
        """
        message = PARTIAL_EPOCH_MARK if is_partial else EPOCH_MARK
        self._append_event(Event(step=step, session_log=SessionLog(status=SessionLog.CHECKPOINT, msg=message)))

    def flush(self) -> None:
        """Write what waits to the event file, ``metrics.jsonl`` and ``samples/``. Does not wait for the encoder."""
        with self._lock:
            self._guard("event_file", self._events, self._events.flush)
            self._guard("metrics_file", self._metrics, self._metrics.flush)
            waiting, self._waiting_files = self._waiting_files, {}
        for path, content in waiting.items():
            self._write_file(path, content)

    def finish_videos(self, is_hurried: Callable[[], bool] = lambda: False) -> None:
        """Wait for the videos that are being encoded. Later ones drop.

        After two minutes the rest is given up, or after two seconds in which `is_hurried` says so.
        """
        start = time.monotonic()
        if not self._worker.close(lambda: _HURRIED_CLOSE_SECONDS if is_hurried() else _CLOSE_TIMEOUT_SECONDS):
            waited = time.monotonic() - start
            self._fail("video", f"videos were still being encoded after {waited:.0f} s and are given up")

    def close(self) -> None:
        """Finish the videos, flush and close the files. What is logged afterwards is lost."""
        self.finish_videos()
        self.flush()
        with self._lock:
            self._guard("event_file", self._events, self._events.close)
            self._guard("metrics_file", self._metrics, self._metrics.close)

    def _append_image(self, tag: str, encoded: bytes, width: int, height: int, step: int, description: str) -> None:
        self._append_value(
            tag, step, lambda text: summaries.image_value(tag, encoded, width, height, text), description
        )

    def _append_value(
        self, tag: str, step: int, build: Callable[[str | None], Summary.Value], description: str
    ) -> None:
        with self._lock:
            value = build(None if tag in self._described else description)
            self._append_event(Event(step=step, summary=Summary(value=[value])))
            self._described.add(tag)

    def _append_event(self, event: Event) -> None:
        event.wall_time = time.time()
        record = frame_record(event.SerializeToString())
        with self._lock:
            self._guard("event_file", self._events, lambda: self._events.append(record))

    def _guard(self, kind: str, log: AppendLog, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._fail(kind, f"{log.path} could not be written ({error}); {log.waiting_bytes} bytes wait in memory")

    def _write_file(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        except OSError as error:
            with self._lock:
                if len(self._waiting_files) < 64:
                    self._waiting_files[path] = content
            self._fail("sample_file", f"{path} could not be written ({error}); the next flush tries again")

    def _read_history(self, path: Path) -> ScalarHistory:
        try:
            return read_history(path).history
        except FileNotFoundError:  # a new run
            return ScalarHistory()
        except OSError as error:
            self._fail("metrics_file", f"{path} could not be read ({error}); the run doctor sees this launch alone")
            return ScalarHistory()

    def _fail(self, kind: str, message: str) -> None:
        with self._lock:
            self._failures[kind] += 1
            first = self._failures[kind] == 1
        if first:
            self._report(f"Logging: {message}. Training goes on. (Reported once.)")


def _new_event_file(run_folder: Path) -> Path:
    """Return a name that sorts after every event file of the run; TensorBoard reads them in the order of their names.

    The clock alone is not enough: it may have been set back, or two launches may fall within one second.
    """
    seconds = int(time.time())
    for path in run_folder.glob(f"{EVENT_FILE_PREFIX}*"):
        stamp = path.name.removeprefix(EVENT_FILE_PREFIX).split(".")[0]
        if stamp.isdigit():
            seconds = max(seconds, int(stamp) + 1)
    return run_folder / f"{EVENT_FILE_PREFIX}{seconds:010d}.{socket.gethostname()}.{os.getpid()}"
