"""The memory that a process can have: of the machine, of the container, and shared with the others of its run."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from compute import memory as memory_module


@pytest.mark.parametrize(
    ("limit", "used", "left"), [("max", "5", None), ("7000", "5000", 2000), ("7000", "8000", 0), (None, None, None)]
)
def test_a_container_may_have_less_memory_than_the_machine(
    limit: str | None, used: str | None, left: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("memory.max", limit), ("memory.current", used)):
        if value is not None:
            (tmp_path / name).write_text(value + "\n")
    (tmp_path / "memory.stat").write_text("active_file 7\n")
    monkeypatch.setattr(memory_module, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(memory_module, "OWN_CONTROL_GROUP", tmp_path / "none")
    monkeypatch.setattr(memory_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=10**9))
    memory = memory_module.memory_in_use(torch.device("cpu"))
    assert memory.limit - memory.here == (10**9 if left is None else left)
    shared = memory_module.memory_in_use(torch.device("cpu"), 4)  # four processes have no more than one
    assert shared.limit - shared.here == (10**9 if left is None else left) // 4


def test_files_in_memory_make_room_and_a_limit_above_the_own_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "job_7" / "step_0"
    own.mkdir(parents=True)
    for group, limit, used, files in ((own, "max", "500", "0"), (own.parent, "1000", "900", "300")):
        for name, text in (("memory.max", limit), ("memory.current", used), ("memory.stat", f"inactive_file {files}")):
            (group / name).write_text(text + "\n")
    (tmp_path / "self").write_text("0::/job_7/step_0\n")
    monkeypatch.setattr(memory_module, "CONTROL_GROUP", tmp_path)
    monkeypatch.setattr(memory_module, "OWN_CONTROL_GROUP", tmp_path / "self")
    memory = memory_module.memory_in_use(torch.device("cpu"))
    assert memory.limit - memory.here == 400
