"""What TensorBoard shows, over HTTP, of a run that was killed and resumed twice; and metrics.jsonl beside it."""

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy
import psutil
import pytest
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from checkpoints.checkpoint import load_newest
from logging_system.dashboard_server import tensorboard_server
from logging_system.files.rewind import rewind
from logging_system.files.writer import Writer
from tests.ports import free_port
from tests.waiting import HANGS_AFTER_SECONDS, wait_until

ROOT = Path(__file__).resolve().parents[2]
SAVE_EVERY = 7
STEPS_PER_EPOCH = 3  # 12 clips in batches of 4
SETTINGS = (
    "--image-size=16",
    "--patch-size=2",
    "--max-frames=8",
    "--clip-timing=stretched",  # so that epochs have one number of steps
    "--model-channels=16,32",
    "--spatial-attention-sizes=4",
    "--attention-head-channels=16",
    "--text-channels=32",
    "--text-layers=1",
    "--text-heads=2",
    "--epoch-size=12",
    "--batch-size=4",
    "--validation-clips=4",
    "--sampling-steps=2",
    "--recogniser-steps=0",
    '--sample-prompts=["A", "B"]',
    "--num-workers=0",
    "--lr-schedule=constant",
    "--log-every-steps=1",
    "--tensorboard-flush-every-steps=1",
    "--diagnostic-log-every-steps=3",
    f"--validate-every-steps={STEPS_PER_EPOCH}",  # a launch knows its own validations alone
    "--sample-every-steps=8",
    f"--save-every-steps={SAVE_EVERY}",
    "--parameter-tracking-max-layers=5",
    "--device=cpu",
    "--experiment-name=run",
)
KINDS = ("scalars", "images", "histograms", "text")

Point = tuple[int, float, float | str | None]  # step, wall time, value of a scalar
Shown = dict[str, list[Point]]  # by tag


@dataclass(frozen=True)
class Kill:
    """What was on the disk when the process was gone, and when the next one began."""

    checkpoint: int  # its step
    last_step: int
    on_disk: Shown
    lines: list[str]  # of metrics.jsonl
    resumed_at: float


@dataclass(frozen=True)
class History:
    logdir: Path
    kills: tuple[Kill, Kill]
    last_step: int
    live_url: str  # a TensorBoard with the default loader, open all the time


def start(folder: Path, max_steps: int, *more: str) -> subprocess.Popen[bytes]:
    options = (f"--log-dir={folder / 'logs'}", f"--cache-dir={folder / 'cache'}", f"--max-steps={max_steps}")
    with open(folder / "console.log", "ab") as console:
        command = [sys.executable, "main.py", *SETTINGS, *options, *more]
        return subprocess.Popen(command, cwd=ROOT, stdout=console, stderr=console)


def last_logged_step(run: Path) -> int:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    steps = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return max((point["step"] for point in steps if point["tag"] == "01_Training/Loss"), default=0)


def checkpoint_step(run: Path) -> int:
    latest = run / "checkpoints" / "LATEST"
    return int(latest.read_text().strip().removeprefix("step_")) if latest.exists() else 0


def kill_beyond_a_checkpoint(process: subprocess.Popen[bytes], folder: Path, *, beyond: int) -> None:
    """Kill when steps that a checkpoint after step `beyond` lacks are in the files; the process is halted to look."""
    run = folder / "logs" / "run"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if checkpoint_step(run) > beyond and last_logged_step(run) > checkpoint_step(run):
            process.send_signal(signal.SIGSTOP)
            wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
            if last_logged_step(run) >= checkpoint_step(run) + STEPS_PER_EPOCH + 1:  # an epoch has ended since
                process.kill()
                process.wait()
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.02)
    process.kill()
    pytest.fail(f"the run did not get beyond a checkpoint: {(folder / 'console.log').read_text()}")


def read_disk(run: Path) -> Shown:
    """Read the event files with TensorBoard's own reader, which knows nothing of resuming."""
    found: Shown = {}
    for path in sorted(run.glob("*tfevents*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.simple_value if value.WhichOneof("value") == "simple_value" else None
                if not value.tag.startswith(("_hparams_", "custom_scalars")):
                    found.setdefault(value.tag, []).append((event.step, event.wall_time, number))
    return found


def after_kill(folder: Path) -> Kill:
    run = folder / "logs" / "run"
    checkpoint = load_newest(run / "checkpoints")
    assert checkpoint is not None
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return Kill(checkpoint.state.step, last_logged_step(run), read_disk(run), lines, time.time())


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """Start TensorBoard on a folder of runs and return its address."""
    with ExitStack() as servers:

        def start_server(logdir: Path, fast: str) -> str:
            port = free_port()
            options = ("--load_fast", fast, "--reload_interval", "1")
            servers.enter_context(tensorboard_server(logdir, "127.0.0.1", port, options))
            return f"http://127.0.0.1:{port}"

        yield start_server


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory, serve: Callable[..., str]) -> History:
    """Killed with SIGKILL, resumed, killed again, resumed, finished."""
    folder = tmp_path_factory.mktemp("killed_twice")
    (folder / "logs").mkdir()
    live_url = serve(folder / "logs", "true")
    kill_beyond_a_checkpoint(start(folder, 10_000), folder, beyond=0)
    first = after_kill(folder)
    kill_beyond_a_checkpoint(start(folder, 10_000, "--resume"), folder, beyond=first.checkpoint)
    second = after_kill(folder)
    last_step = max(first.last_step, second.last_step) + 3
    finished = start(folder, last_step, "--resume")
    assert finished.wait(timeout=120) == 0, (folder / "console.log").read_text()
    for kill in (first, second):  # else the test would show nothing
        assert kill.last_step > kill.checkpoint
    return History(folder / "logs", (first, second), last_step, live_url)


def ask(url: str, plugin: str, route: str, **query: str | int) -> Any:
    with urlopen(f"{url}/data/plugin/{plugin}/{route}?{urlencode(query)}", timeout=HANGS_AFTER_SECONDS) as answer:
        return json.load(answer)


def shown_by(url: str) -> dict[str, Shown]:
    """Return every point of every tag of the run, by kind."""
    shown: dict[str, Shown] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for tag in ask(url, kind, "tags").get("run", ()):
            answer = ask(url, kind, kind, run="run", tag=tag, **({"sample": 0} if kind == "images" else {}))
            if kind in ("images", "text"):
                shown[kind][tag] = [(point["step"], point["wall_time"], None) for point in answer]
            else:
                is_scalar = kind == "scalars"
                shown[kind][tag] = [(step, wall, value if is_scalar else None) for wall, step, value in answer]
    return shown


def newest_points(shown: Shown) -> dict[str, tuple[int, float]]:
    """Return step and time of every tag's newest point."""
    return {tag: points[-1][:2] for tag, points in shown.items()}


def wait_until_read(url: str, run: Path) -> dict[str, Shown]:
    """Ask until the newest point of every tag is there: the server may still be reading. Return all that it shows."""
    expected = newest_points(read_disk(run))

    def shown_when_read() -> dict[str, Shown] | None:
        with suppress(HTTPError):  # the server has not found the run, or a tag, yet
            by_kind = shown_by(url)
            if newest_points({tag: points for tags in by_kind.values() for tag, points in tags.items()}) == expected:
                return by_kind
        return None

    shown = wait_until(shown_when_read, lambda: f"{url} does not show all of {run}")
    assert shown is not None
    return shown


def wait_for_a_reload(url: str, logdir: Path) -> None:
    """Return once a server has read everything anew: it has found a run, and then another one."""
    for _ in range(2):
        marker = f"marker_{len(list(logdir.iterdir()))}"
        writer = Writer(logdir / marker)
        writer.scalar("01_Training/Loss", 0.0, 0)
        writer.close()
        wait_until(lambda marker=marker: marker in runs_of(url))


def runs_of(url: str) -> list[str]:
    with urlopen(f"{url}/data/runs", timeout=HANGS_AFTER_SECONDS) as answer:
        return json.load(answer)


def optimizer_step(tag: str, step: int) -> int:
    """Return the step of training at which a point was made; the x axis of 03 is the epoch."""
    return step * STEPS_PER_EPOCH if tag.startswith("03_") else step


@pytest.fixture(scope="module")
def boards(history: History, serve: Callable[..., str]) -> dict[str, dict[str, Shown]]:
    """What three TensorBoards show, two that were started afterwards and one that was open all along; and the files.

    TensorBoard hides an old point as soon as a newer launch writes the tag at that step or below; the files show all.
    """
    urls = {fast: serve(history.logdir, fast) for fast in ("true", "false")} | {"live": history.live_url}
    shown = {name: wait_until_read(url, history.logdir / "run") for name, url in urls.items()}
    return shown | {"files": {"every kind": read_disk(history.logdir / "run")}}


@pytest.mark.slow
@pytest.mark.parametrize("board", ["true", "false", "live", "files"])
def test_every_tag_of_every_kind_is_whole(history: History, boards: dict[str, dict[str, Shown]], board: str) -> None:
    by_kind = boards[board]
    assert all(by_kind.values()), "a kind of points is missing altogether"
    shown = {tag: points for tags in by_kind.values() for tag, points in tags.items()}
    assert shown.keys() == read_disk(history.logdir / "run").keys()
    for tag, points in shown.items():
        steps = [step for step, _, _ in points]
        assert steps == sorted(set(steps)), f"{tag}: {steps}"
        for kill in history.kills:
            for step, wall_time, _ in points:
                if optimizer_step(tag, step) > kill.checkpoint:
                    assert wall_time >= kill.resumed_at, f"{tag} of step {step} is older than the resume"


@pytest.mark.slow
@pytest.mark.parametrize("board", ["true", "false", "live", "files"])
def test_nothing_flushed_up_to_the_checkpoint_is_lost(
    history: History, boards: dict[str, dict[str, Shown]], board: str
) -> None:
    shown = {tag: points for tags in boards[board].values() for tag, points in tags.items()}
    for kill in history.kills:
        compared = 0
        for tag, points in kill.on_disk.items():
            kept = [point for point in points if optimizer_step(tag, point[0]) <= kill.checkpoint]
            compared += len(kept)
            assert set(kept) <= set(shown.get(tag, ())), tag
        assert compared > 50 * kill.checkpoint
        for tag in ("01_Training/Loss", "03_Epoch_Summary/Average_Loss"):  # else nothing had to be taken back
            assert optimizer_step(tag, kill.on_disk[tag][-1][0]) > kill.checkpoint


@pytest.mark.slow
def test_metrics_file_says_what_the_dashboard_shows(history: History, boards: dict[str, dict[str, Shown]]) -> None:
    lines = (history.logdir / "run" / "metrics.jsonl").read_text().splitlines()
    written: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        point = json.loads(line)
        written.setdefault(point["tag"], []).append((point["step"], float(point["value"])))
    scalars = boards["true"]["scalars"]
    assert written.keys() == scalars.keys()
    for tag, points in written.items():
        assert [step for step, _ in points] == [step for step, _, _ in scalars[tag]], tag
        for (_, number), (_, _, value) in zip(points, scalars[tag], strict=True):
            assert value is not None
            assert math.isclose(numpy.float32(number), float(value), rel_tol=1e-6), tag
    for kill in history.kills:
        for line in kill.lines:
            point = json.loads(line)
            if optimizer_step(point["tag"], point["step"]) <= kill.checkpoint:
                assert line in lines


@pytest.mark.slow
def test_an_open_dashboard_survives_a_launch_that_is_taken_back_whole(
    tmp_path: Path, serve: Callable[..., str]
) -> None:
    """With the slower loader too, which is the only one on some systems; its file would vanish under it."""

    def launch(first_new_step: int, *steps: int) -> None:
        writer = Writer(tmp_path / "run", first_new_step=first_new_step)
        for step in steps:
            writer.scalar("01_Training/Loss", first_new_step, step)
        writer.close()

    urls = {}
    launch(0, 1, 2)
    rewind(tmp_path / "run", 3)
    launch(3, 3, 4)  # killed before its first checkpoint
    for fast in ("true", "false"):
        urls[fast] = serve(tmp_path, fast)
        wait_until_read(urls[fast], tmp_path / "run")
    rewind(tmp_path / "run", 3)
    for url in urls.values():
        wait_for_a_reload(url, tmp_path)  # and see what is left
    launch(3, 3, 4, 5)
    for url in urls.values():
        points = wait_until_read(url, tmp_path / "run")["scalars"]["01_Training/Loss"]
        assert [(step, value) for step, _, value in points] == [(1, 0), (2, 0), (3, 3), (4, 3), (5, 3)]
