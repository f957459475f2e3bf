"""The launcher as a user runs it: real processes, a real TensorBoard."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy
import psutil
import pytest

import launch_tensorboard
from common.errors import UserError
from logging_system import dashboard_server
from logging_system.dashboard_server import FIRST_PORT, choose_port, find_runs, is_loopback
from logging_system.doctor.diagnosis import diagnose
from logging_system.files.scalar_history import read_history
from logging_system.files.writer import Writer
from tests.waiting import HANGS_AFTER_SECONDS, wait_until

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """Two runs; "newer" wrote last although "older" has the later name."""
    folder = tmp_path_factory.mktemp("logs")
    for age, name in enumerate(["newer", "older"]):
        writer = Writer(folder / name)
        for step in range(30):
            writer.scalar("01_Training/Loss", 1 / (step + 1), step, "Loss of a step.")
            writer.image("12_Generated_Samples/Grid", numpy.full((4, 4, 3), step, numpy.uint8), step)
        writer.close()
        for path in (folder / name).iterdir():
            os.utime(path, (1e9 - age * 100,) * 2)
    return folder


def run(*options, **keywords):
    command = [sys.executable, "launch_tensorboard.py", "--no-browser", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **keywords)


class Launched:
    """A running launcher and where it serves."""

    def __init__(self, *options, environment=None):
        command = [sys.executable, "launch_tensorboard.py", *map(str, options)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith("TensorBoard: "):
                self.url = line.split()[1]
                self.port = int(self.url.rsplit(":", 1)[1])
                break
        else:
            raise AssertionError("\n".join(self.lines))

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=HANGS_AFTER_SECONDS) as answer:
            return json.load(answer)

    def descendants(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def end(self, number):
        children = self.descendants()
        self.process.send_signal(number)
        code = self.process.wait(timeout=HANGS_AFTER_SECONDS)
        self.process.stdout.close()
        _, alive = psutil.wait_procs(children, timeout=HANGS_AFTER_SECONDS)
        return code, alive


@pytest.fixture(scope="module")
def launched(logdir, tmp_path_factory):
    """The launcher at its defaults, with a "browser" that writes down what it is asked to open."""
    opened = tmp_path_factory.mktemp("browser") / "opened"
    browser = opened.with_name("browser.sh")
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    server = Launched("--logdir", logdir, environment={"BROWSER": f"{browser} %s"})
    server.opened = opened
    yield server
    if server.process.poll() is None:
        server.end(signal.SIGTERM)


def test_serves_every_run_and_names_the_newest_first(launched):
    assert launched.lines[0].startswith("Newest run: newer (and 1 older in ")
    assert launched.url == f"http://localhost:{launched.port}"
    assert FIRST_PORT <= launched.port < FIRST_PORT + 100
    wait_until(lambda: sorted(launched.get("/data/runs")) == ["newer", "older"])


def test_shows_all_points_and_images_with_their_descriptions(launched):
    tags = wait_until(lambda: launched.get("/data/plugin/scalars/tags").get("newer"))
    assert tags["01_Training/Loss"]["description"] == "<p>Loss of a step.</p>"

    def points():
        return launched.get("/data/plugin/scalars/scalars?run=newer&tag=01_Training/Loss")

    def images():
        return launched.get("/data/plugin/images/images?run=newer&tag=12_Generated_Samples/Grid&sample=0")

    wait_until(lambda: [step for _, step, _ in points()] == list(range(30)), points)
    wait_until(lambda: launched.get("/data/plugin/images/tags").get("newer"))
    wait_until(lambda: [image["step"] for image in images()] == list(range(30)), images)


def test_listens_on_loopback_alone(launched):
    listening = [
        connection.laddr
        for process in launched.descendants()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert launched.port in [address.port for address in listening]
    assert {address.ip for address in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in browser is a shell script")
def test_opens_the_browser(launched):
    assert wait_until(lambda: launched.opened.exists() and launched.opened.read_text().strip()) == launched.url


def test_taken_port_that_was_asked_for_is_an_error(launched, logdir):
    result = run("--logdir", logdir, "--port", launched.port)
    assert result.returncode == 1
    assert f"127.0.0.1 port {launched.port}" in result.stderr
    assert "in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_default_port_moves_on_when_it_is_taken(launched):
    assert choose_port("127.0.0.1", None) != launched.port


def test_interrupt_ends_everything_with_exit_code_0(launched):
    """The last test of the shared server."""
    assert len(launched.descendants()) >= 1
    assert launched.end(signal.SIGINT) == (0, [])


@pytest.mark.slow
def test_sigterm_ends_everything_too(logdir):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Launched("--logdir", logdir, "--port", port, "--host", "0.0.0.0", "--no-browser")
    assert server.port == port
    assert any(line.startswith("Warning: --host 0.0.0.0 shows the dashboard to anyone") for line in server.lines)
    assert server.end(signal.SIGTERM) == (143, [])


@pytest.mark.parametrize("exists", [True, False])
def test_without_a_run_it_serves_all_the_same_and_says_what_it_waits_for(tmp_path, monkeypatch, capsys, exists):
    logdir = tmp_path / "logs"
    if exists:
        (logdir / "run").mkdir(parents=True)  # its first file is not there yet
    served = []

    @contextmanager
    def server(*arguments):
        served.append(arguments)
        yield SimpleNamespace(wait=lambda: None)

    monkeypatch.setattr(launch_tensorboard, "tensorboard_server", server)
    launch_tensorboard.serve(logdir, "127.0.0.1", None, open_browser=False)
    said = capsys.readouterr().out
    assert said.startswith(f"Waiting for the first run in {logdir}: the page shows it within seconds of its start.\n")
    assert "python main.py" in said
    assert "TensorBoard: http://localhost:" in said
    assert [arguments[:2] for arguments in served] == [(logdir, "127.0.0.1")]


@pytest.mark.slow
def test_who_watches_from_the_beginning_sees_the_loss_before_log_every_steps(tmp_path, small_arguments):
    """Two points are there although neither points nor flushes are due in the next billion steps."""
    never = ("--log-every-steps=1000000000", "--tensorboard-flush-every-steps=1000000000")
    arguments = small_arguments("--experiment-name=run", "--max-steps=1000000", "--max-minutes=none", *never)
    server = Launched("--logdir", tmp_path / "logs", "--no-browser")
    training = subprocess.Popen([sys.executable, "main.py", *arguments], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:

        def points():
            tags = server.get("/data/plugin/scalars/tags").get("run", ())
            if "01_Training/Loss" not in tags:
                return []
            return server.get("/data/plugin/scalars/scalars?run=run&tag=01_Training/Loss")

        wait_until(lambda: len(points()) >= 2)
        assert training.poll() is None
        assert points()[0][1] == 1
        history = read_history(tmp_path / "logs" / "run" / "metrics.jsonl").history
        assert "Diverged" in [opinion.rule for opinion in diagnose(history, {}).healthy]
    finally:
        training.terminate()
        training.wait(timeout=HANGS_AFTER_SECONDS)
        server.end(signal.SIGTERM)


def test_a_file_is_no_folder_of_runs(tmp_path):
    path = tmp_path / "events"
    path.touch()
    with pytest.raises(UserError, match=r"--logdir .*events: this is a file"):
        find_runs(path)


def test_missing_tensorboard(logdir, monkeypatch):
    monkeypatch.setattr(dashboard_server.importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(UserError, match=r"not installed.*pip install"),
        dashboard_server.tensorboard_server(logdir, "127.0.0.1", 0),
    ):
        pass


def test_tensorboard_that_ends_at_once_says_why(logdir):
    port = choose_port("127.0.0.1", None)
    with (
        pytest.raises(UserError, match=r"did not start. Its last words:\n[\s\S]*(not known|resolution)"),
        dashboard_server.tensorboard_server(logdir, "no-such-host.invalid", port),
    ):
        pass


def test_run_folder_itself_may_be_named(logdir):
    assert find_runs(logdir / "older") == ["older"]


@pytest.mark.parametrize("port", [-1, 70_000])
def test_impossible_port(port):
    with pytest.raises(UserError, match=f"port {port}"):
        choose_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.5", False),
        ("pc", False),
    ],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


@pytest.mark.parametrize(("host", "port", "message"), [
    ("127.0.0.1", 0, "--port 0"),
    ("127.0.0.1", -1, "--port -1"),
    ("127.0.0.1", 65536, "--port 65536"),
    ("no such host", None, "--host no such host: no such address"),
])  # fmt: skip
def test_impossible_ports_and_hosts_are_named_at_once(host: str, port: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_port(host, port)
