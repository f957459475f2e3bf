"""Nothing of ours can be reached from another machine unless it was asked for, and only the dashboard from this one."""

import functools
import inspect
import ipaddress
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ports import free_port
from tests.reliability.launch import TINY, launch, train
from tests.waiting import HANGS_AFTER_SECONDS

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.02
LOOKS_WHILE_SERVING = 20


def note_sockets(path: str) -> None:
    """Have Python note what it is asked to open from now on, here and in what is forked.

    A look at the sockets now and then may miss one that is open for a moment.
    """
    import sys

    def note(event: str, arguments: tuple) -> None:
        is_network = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto")
        if event in ("socket.bind", "socket.connect"):
            is_network = isinstance(arguments[1], tuple)  # else it is a Unix domain socket: a file of this machine
        if is_network:
            with open(path, "a") as file:
                file.write(f"{event}\n")

    sys.addaudithook(note)


@dataclass
class Seen:
    """What a program and all its descendants had open, in all looks together."""

    looks: int = 0
    processes: set[int] = field(default_factory=set)
    connections: set[Any] = field(default_factory=set)

    def look(self, program: psutil.Process) -> None:
        """Look at TCP and UDP, of IPv4 and IPv6."""
        try:
            family = [program, *program.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        self.looks += 1
        for process in family:
            try:
                found = process.net_connections(kind="inet")
            except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has ended, or is a zombie
                continue
            self.processes.add(process.pid)
            self.connections.update((each.type, each.status, each.laddr, each.raddr) for each in found)

    @property
    def own_addresses(self) -> set[str]:
        """Where it listened or was bound to."""
        return {local.ip for _, _, local, _ in self.connections}

    @property
    def ports_listened_at(self) -> set[int]:
        return {local.port for _, status, local, _ in self.connections if status == psutil.CONN_LISTEN}


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("exposure"), "--recogniser-steps=2", "--max-steps=2").run


@contextmanager
def dashboard(logdir: Path, *arguments: str) -> Iterator[tuple[psutil.Process, int, list[str]]]:
    """Serve a run; give the process, its port and the lines that it has printed, from when it answers."""
    # A port of its own: other tests, which run beside this one, may look for the first free one.
    options = [f"--logdir={logdir}", f"--port={free_port()}", "--no-browser", *arguments]
    process = subprocess.Popen(
        [sys.executable, "launch_tensorboard.py", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("TensorBoard: "):
                yield psutil.Process(process.pid), int(line.split()[1].rsplit(":", 1)[1]), lines
                return
        pytest.fail("\n".join(lines))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(HANGS_AFTER_SECONDS)
        process.stdout.close()


def look_while_serving(program: psutil.Process, port: int) -> Seen:
    seen = Seen()
    for _ in range(LOOKS_WHILE_SERVING):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/data/runs", timeout=HANGS_AFTER_SECONDS) as answer:
            seen.look(program)
            answer.read()
    return seen


def test_the_dashboard_is_on_loopback_alone(run: Path) -> None:
    with dashboard(run.parent) as (program, port, lines):
        seen = look_while_serving(program, port)
        assert not any("Warning" in line for line in lines)
    assert seen.looks == LOOKS_WHILE_SERVING
    assert len(seen.processes) >= 2  # the launcher and TensorBoard, which may have a data server of its own
    assert port in seen.ports_listened_at
    assert {address for address in seen.own_addresses if not is_loopback(address)} == set()
    assert {remote.ip for *_, remote in seen.connections if remote and not is_loopback(remote.ip)} == set()


@pytest.mark.slow
def test_asked_for_another_address_the_dashboard_is_there_and_warns(run: Path) -> None:
    """It also shows that the looks above would have seen it."""
    with dashboard(run.parent, "--host=0.0.0.0") as (program, port, lines):
        seen = look_while_serving(program, port)
        assert "Warning: --host 0.0.0.0 shows the dashboard to anyone who can reach this machine." in lines
    assert port in seen.ports_listened_at
    assert {address for address in seen.own_addresses if not is_loopback(address)} == {"0.0.0.0"}


def watch(process: "subprocess.Popen[bytes] | Any", after_look: Callable[[], None] = lambda: None) -> Seen:
    """Look at a process until it ends; it must end well."""
    seen, program = Seen(), psutil.Process(process.pid)
    while (process.poll() if isinstance(process, subprocess.Popen) else process.exitcode) is None:
        seen.look(program)
        after_look()
        time.sleep(POLL_SECONDS)
    return seen


def run_watched(
    folder: Path, *command: str, after_look: Callable[[], None] = lambda: None
) -> tuple[Seen, list[str], str]:
    """Start Python; return what was open during its whole life, what it was asked to open, and the output."""
    folder.mkdir()
    asked, output = folder / "sockets_noted", folder / "output"
    # Python imports this before anything else.
    (folder / "sitecustomize.py").write_text(f"{inspect.getsource(note_sockets)}\nnote_sockets({str(asked)!r})")
    asked.touch()
    with open(output, "wb") as file:
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=file)
        seen = watch(process, after_look)
    assert process.returncode == 0, output.read_text()
    return seen, asked.read_text().splitlines(), output.read_text()


@pytest.mark.slow
def test_a_training_with_loader_workers_opens_no_socket(tmp_path: Path) -> None:
    folders = (f"--log-dir={tmp_path / 'logs'}", f"--cache-dir={tmp_path / 'cache'}")
    seen, asked, output = run_watched(
        tmp_path / "watched", "main.py", *TINY, *folders, "--num-workers=2", "--max-steps=3", "--recogniser-steps=1"
    )
    assert "Stopped at step 3" in output
    assert len(seen.processes) >= 3
    assert seen.looks >= 20
    assert (seen.connections, asked) == (set(), [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "output"),
    [("generate", ["--text=A"], "A.gif"), ("evaluation.__main__", ["--samples-per-word=1"], "report.json")],
)
def test_sampling_from_a_run_opens_no_socket(
    run: Path, tmp_path: Path, program: str, arguments: list[str], output: str
) -> None:
    asked = tmp_path / "sockets_noted"
    asked.touch()
    options = [f"--run={run}", f"--output={tmp_path / output}", "--steps=1", "--device=cpu"]
    faults = [functools.partial(note_sockets, str(asked))]
    launched = launch(tmp_path, *options, *arguments, program=program, faults=faults)
    seen = watch(launched.process)
    assert launched.end() == 0, launched.said
    assert (tmp_path / output).stat().st_size > 0
    assert seen.looks >= 5
    assert (seen.connections, asked.read_text()) == (set(), "")


CONVERSATION = """
import pathlib, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
bound.bind(("127.0.0.1", 0))
folder = pathlib.Path(sys.argv[1])
(folder / "open").touch()
while not (folder / "looked_at").exists():
    time.sleep(0.01)
"""


def test_the_watch_sees_a_server_its_client_and_a_bound_udp_socket(tmp_path: Path) -> None:
    looks_at_all = []

    def after_look() -> None:
        if looks_at_all:
            (tmp_path / "looked_at").touch()
        if (tmp_path / "open").exists():  # from now on, a look sees all
            looks_at_all.append(1)

    seen, asked, _ = run_watched(tmp_path / "watched", "-c", CONVERSATION, str(tmp_path), after_look=after_look)
    kinds = {(kind.name, status) for kind, status, _, _ in seen.connections}
    expected = {("SOCK_STREAM", psutil.CONN_LISTEN), ("SOCK_STREAM", psutil.CONN_ESTABLISHED)}
    assert kinds == expected | {("SOCK_DGRAM", psutil.CONN_NONE)}
    assert asked == ["socket.bind", "socket.getaddrinfo", "socket.connect", "socket.bind"]
