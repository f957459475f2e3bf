"""A real browser on a real TensorBoard."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from logging_system.dashboard_server import tensorboard_server
from tests.ports import free_port

SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MILLISECONDS = 60_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a window; one for all tests."""
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def chromium_page(chromium: Browser) -> Iterator[Page]:
    """A fresh page, wide enough for TensorBoard's side bars. Waiting for something has a minute."""
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    yield page
    page.close()


@pytest.fixture(scope="session")
def tensorboard_url() -> Iterator[Callable[[Path], str]]:
    """Serve a folder of runs, as launch_tensorboard.py does, and return the address; one server a folder."""
    addresses: dict[Path, str] = {}
    with ExitStack() as servers:

        def serve(logdir: Path) -> str:
            if logdir not in addresses:
                port = free_port()
                servers.enter_context(tensorboard_server(logdir, "127.0.0.1", port))
                addresses[logdir] = f"http://127.0.0.1:{port}"
            return addresses[logdir]

        yield serve
