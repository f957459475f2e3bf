"""What a module of this package provides."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data.manifest import Manifest


@dataclass(frozen=True)
class ReadingOptions:
    """What the user said about how to read a data set."""

    signer_from_file_name: bool = False  # a folder's file names begin with the signer: alice_hello.mp4


@dataclass(frozen=True)
class DataFormat:
    """One layout of data sets."""

    name: str  # as DATA_FORMAT calls it
    title: str  # for people: "How2Sign"
    looks_like: str  # what there must be, for people: "a folder with WLASL_v0.3.json"
    # Says why a path looks like this format, for people: "it holds how2sign_realigned_train.csv"; None if it does not.
    # Cheap, and never raises.
    recognise: Callable[[Path], str | None]
    # Reads the whole data set without opening a clip. Raises UserError where it cannot be read at all; what is wrong
    # with a single clip becomes a SkippedRow.
    read: Callable[[Path, ReadingOptions], Manifest]
