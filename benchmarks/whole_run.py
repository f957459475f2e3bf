"""A training in this process, from its options to its last step."""

from collections.abc import Sequence
from contextlib import ExitStack

from common.errors import UserError
from common.settings import load_settings
from compute.device import choose_device
from config import PRESETS, Config
from distributed.processes import Processes
from training.build import build_training
from training.stopping import StopRequest


def train_whole(arguments: Sequence[str]) -> None:
    """Train a new run as main.py would.

    Raises:
        UserError: it cannot be built, or a signal ended it.
    """
    loaded = load_settings(Config, PRESETS, arguments, program="main.py")
    compute = choose_device(loaded.config.DEVICE, loaded.config.MIXED_PRECISION)
    with StopRequest() as stop, ExitStack() as held:
        loop = build_training(loaded, ["benchmark"], stop, Processes(), compute, held)
        assert loop is not None  # the folder is new, so there are steps to do
        if loop.run() != 0:
            raise UserError("a signal ended the run before its figures were complete")
