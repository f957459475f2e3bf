"""A training in this process, from its options to its last step."""

from collections.abc import Sequence
from contextlib import ExitStack

from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from training.build import build_training
from training.signals import StopRequest


def train_whole(arguments: Sequence[str]) -> None:
    """Train a new run as main.py would.

    Raises:
        UserError: it cannot be built, or a signal ended it.
    """
    with StopRequest() as stop, ExitStack() as held:
        loop = build_training(load_settings(Config, PRESETS, arguments, program="main.py"), ["benchmark"], stop, held)
        assert loop is not None  # the folder is new, so there are steps to do
        if loop.run() != 0:
            raise UserError("a signal ended the run before its figures were complete")
