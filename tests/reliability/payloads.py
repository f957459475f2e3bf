"""Files that run code when they are unpickled, and programs that are asked to read them."""

import functools
import hashlib
import importlib
import inspect
import io
import json
import os
import pickle
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch

from tests.reliability.faults import say
from tests.reliability.launch import Fault, launch


class Payload:
    """Makes a folder where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def _torch(marker: Path, *, as_zip: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer, _use_new_zipfile_serialization=as_zip)
    return buffer.getvalue()


def _numpy(marker: Path, save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, numpy.array([Payload(marker)], dtype=object))
    return buffer.getvalue()


KINDS: dict[str, Callable[[Path], bytes]] = {
    "pickle": lambda marker: pickle.dumps(Payload(marker)),
    "text_pickle": lambda marker: pickle.dumps(Payload(marker), protocol=0),  # plain ASCII
    "torch_zip": lambda marker: _torch(marker, as_zip=True),
    "torch_legacy": lambda marker: _torch(marker, as_zip=False),
    "npy": lambda marker: _numpy(marker, numpy.save),
    "npz": lambda marker: _numpy(marker, numpy.savez),
}


def open_carelessly(kind: str, content: bytes) -> None:
    """Read a payload as a program does that trusts its files."""
    file = io.BytesIO(content)
    if kind.startswith("torch"):
        torch.load(file, weights_only=False)
    elif kind.startswith("np"):
        loaded = numpy.load(file, allow_pickle=True)
        [loaded[name] for name in getattr(loaded, "files", [])]
    else:
        pickle.load(file)


def with_checksum(body: bytes) -> bytes:
    """Return what the clip cache would take for an entry of its own."""
    return body + zlib.crc32(body).to_bytes(4, "big")


def seal(checkpoint: Path) -> None:
    """Make the manifest of a checkpoint agree with its files, where there is one to be read."""
    manifest = json.loads((checkpoint / "manifest.json").read_text("utf-8"))
    for name in manifest["sha256"]:
        manifest["sha256"][name] = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    (checkpoint / "manifest.json").write_text(json.dumps(manifest), "utf-8")


@dataclass(frozen=True)
class Answer:
    """What a program made of its files."""

    exit_code: int
    said: str


def run_each(
    folder: Path, program: str, commands: Sequence[Sequence[str]], faults: Sequence[Fault] = ()
) -> list[Answer]:
    """Run a program with each of the command lines, one after the other in one process."""
    launched = launch(folder, faults=[*faults, functools.partial(_run_each, program, tuple(map(tuple, commands)))])
    assert launched.end() == 0, launched.said
    answers = re.findall(r"(.*?)\n==end of a command: (-?\d+)==\n", launched.said, re.DOTALL)
    assert len(answers) == len(commands), launched.said
    return [Answer(int(code), said) for said, code in answers]


def _run_each(program: str, commands: Sequence[Sequence[str]]) -> None:
    main = importlib.import_module(program).main
    for command in commands:
        sys.argv = [program, *command]
        try:
            code = main(list(command)) if inspect.signature(main).parameters else main()
        except Exception:  # noqa: BLE001  as Python would end it
            traceback.print_exc()
            code = 1
        sys.stdout.flush()
        sys.stderr.flush()
        say(f"\n==end of a command: {code}==")
    os._exit(0)
