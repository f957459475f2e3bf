"""Fixtures shared by the tests of hostile clips."""

from pathlib import Path

import pytest

from tests.data.media.hostile_folder import CLIP, add


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with one clip that is as it should be, beside a secret that is not part of it."""
    folder = tmp_path / "clips"
    folder.mkdir()
    add(folder, "good.gif")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.gif").write_bytes(CLIP)
    return folder
