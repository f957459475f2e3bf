"""Open the dashboard: ``python launch_tensorboard.py [--logdir DIR] [--port N] [--host H] [--no-browser]``."""

import argparse
import signal
import socket
import sys
import webbrowser
from pathlib import Path

from common.errors import UserError
from config import Config
from logging_system.dashboard_server import FIRST_PORT, choose_port, find_runs, is_loopback, tensorboard_server


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    logdir = Config.model_fields["LOG_DIR"].default
    parser = argparse.ArgumentParser(description="Open the dashboard of all runs in a browser. Ctrl-C ends it.")
    parser.add_argument("--logdir", type=Path, default=logdir, help=f"folder that holds the runs (default: {logdir})")
    parser.add_argument("--port", type=int, help=f"port to serve at (default: the first free one from {FIRST_PORT})")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    return parser.parse_args()


def serve(logdir: Path, host: str, port: int | None, *, open_browser: bool) -> None:
    """Serve until the process is interrupted.

    Raises:
        UserError: the folder is a file, or TensorBoard cannot serve.
    """
    if runs := find_runs(logdir):
        others = f" (and {len(runs) - 1} older in {logdir})" if len(runs) > 1 else ""
        print(f"Newest run: {runs[0]}{others}", flush=True)
    else:
        print(f"Waiting for the first run in {logdir.resolve()}: the page shows it within seconds of its start.")
        print("To start one: python main.py. To show runs of another folder: --logdir.", flush=True)
    if not is_loopback(host):
        print(f"Warning: --host {host} shows the dashboard to anyone who can reach this machine.", flush=True)
    port = choose_port(host, port)
    with tensorboard_server(logdir, host, port) as process:
        url = f"http://{'localhost' if is_loopback(host) else socket.gethostname()}:{port}"
        print(f"TensorBoard: {url} (Ctrl-C to stop)", flush=True)
        if open_browser:
            webbrowser.open(url)
        process.wait()


def main() -> int:
    """Run the program and return its exit code: 0 after Ctrl-C, 1 after an error, 143 after SIGTERM."""
    # Set even where the shell told background programs to ignore it, so that an interrupt always stops the server.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    arguments = parse_arguments()
    try:
        serve(arguments.logdir, arguments.host, arguments.port, open_browser=not arguments.no_browser)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
