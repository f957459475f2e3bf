"""What several tests of the benchmarks need."""

import pytest


@pytest.fixture
def full_disk(monkeypatch):
    """Let every file of figures fail to be written."""

    def write(path, content):
        raise OSError("the disk is full")

    monkeypatch.setattr("benchmarks.runner.write_atomically", write)
