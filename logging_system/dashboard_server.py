"""TensorBoard as a child process: which runs there are, which port to take, starting and stopping."""

import importlib.util
import ipaddress
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from common.errors import UserError

FIRST_PORT = 6006
PORTS_TO_TRY = 100
START_SECONDS = 120
SERVING = b" at http"  # "TensorBoard 2.20.0 at http://127.0.0.1:6006/ (Press CTRL+C to quit)"
# How many points a tag keeps. TensorBoard's own choice for images, 10, hides the early samples of a run; 0 shows none.
SAMPLES_PER_PLUGIN = "scalars=10000,images=200,histograms=200,text=100"


def find_runs(logdir: Path) -> list[str]:
    """Return the names of the runs in ``logdir``, the one that wrote last first; none where it does not exist yet.

    Raises:
        UserError: it is a file.
    """
    if logdir.is_file():
        raise UserError(f"--logdir {logdir}: this is a file. Name the folder of your runs.")
    files = [file for pattern in ("*tfevents*", "*/*tfevents*") for file in logdir.glob(pattern)]
    files.sort(key=lambda file: file.stat().st_mtime, reverse=True)
    return list(dict.fromkeys(file.parent.name for file in files))


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_port(host: str, asked: int | None) -> int:
    """Return the port that was asked for, or the first free one from 6006.

    Raises:
        UserError: the port that was asked for is taken or impossible, none is free, or the host has no address.
    """
    if asked is not None and not 1 <= asked <= 65535:
        raise UserError(f"--port {asked}: a port is a number from 1 to 65535. Leave it out to take the first free one.")
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"--host {host}: no such address ({error}). Leave it out to serve this machine alone."
        ) from error
    candidates = range(FIRST_PORT, FIRST_PORT + PORTS_TO_TRY) if asked is None else [asked]
    problem = ""
    for port in candidates:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if sys.platform != "win32":  # a port that was in use a moment ago counts as free; more on Windows
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return port
        except OSError as error:
            problem = str(error).rstrip(".")
    raise UserError(
        f"TensorBoard cannot listen on {host} port {'-'.join(map(str, dict.fromkeys([candidates[0], candidates[-1]])))}"
        f": {problem}. Name another port with --port, or leave it out to take the first free one from {FIRST_PORT}."
    )


@contextmanager
def tensorboard_server(
    logdir: Path, host: str, port: int, more_options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run TensorBoard while the ``with`` block lasts; the block begins when it answers.

    Raises:
        UserError: TensorBoard is not installed, or ended, or did not answer in two minutes.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed. Run: python -m pip install -r requirements.txt")
    options = ["--logdir", str(logdir), "--host", host, "--port", str(port), "--samples_per_plugin", SAMPLES_PER_PLUGIN]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "tensorboard.log"
        # A session of its own: Ctrl-C in the terminal reaches the launcher alone, which then stops TensorBoard.
        command = [sys.executable, "-m", "tensorboard.main", *options, *more_options]
        with open(log, "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            _wait_until_serving(process, log, host, port)
            yield process
            if process.poll() is not None:
                raise UserError(f"TensorBoard ended by itself. Its last words:\n{_tail(log)}")
        except TimeoutError as error:
            raise UserError(f"TensorBoard did not start. Its last words:\n{_tail(log)}") from error
        finally:
            _stop(process)


def _wait_until_serving(process: subprocess.Popen[bytes], log: Path, host: str, port: int) -> None:
    """Wait until this very TensorBoard serves: another program may have taken the port meanwhile, and would answer."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if SERVING in log.read_bytes() and _answers(target, port):
            return
        time.sleep(0.1)
    raise TimeoutError


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def _tail(log: Path) -> str:
    return log.read_bytes()[-2000:].decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
