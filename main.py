"""Train: python main.py [--preset tiny|speedrun|base|large] [--max-steps N] ...; --help lists every constant.

With several GPUs or machines: torchrun --nproc-per-node=N main.py ... (docs/scaling.md).
"""

import signal
import sys
from contextlib import ExitStack

from common.console import forgiving_output, quiet_output
from common.interruption import Interrupted
from common.settings import load_settings
from compute.device import build_device, place_of_this_process
from compute.memory import keep_freed_memory
from config import PRESETS, Config
from distributed.failure import ReportedFailure, report_failures
from distributed.processes import Processes, connected_processes
from training.announce import announce_place
from training.build import build_training
from training.stopping import StopRequest


def main(arguments: list[str]) -> int:
    """Train with the settings of config.py and the command line; return the exit code, 0 only for a finished run."""
    keep_freed_memory()
    place = place_of_this_process()
    with forgiving_output(), quiet_output(place.rank > 0):
        try:
            with report_failures(place, Processes()), ExitStack() as connection:
                loaded = load_settings(Config, PRESETS, arguments, program="main.py")
                compute = build_device(loaded.config, place)
                processes = connection.enter_context(connected_processes(place, compute.device))
                announce_place(place, processes)
                with (
                    StopRequest(is_quiet=place.rank > 0, is_one_of_several=processes.are_several) as stop,
                    report_failures(place, processes),  # while a signal from torchrun cannot kill this process
                    ExitStack() as held,
                ):
                    training = build_training(loaded, ["main.py", *arguments], stop, processes, compute, held)
                    return 0 if training is None else training.run()
        except ReportedFailure:
            return 1
        except Interrupted as interruption:
            name = signal.Signals(interruption.signal_number).name
            print(f"{name} came before the first step: no file of a run was changed", file=sys.stderr)
            return 128 + interruption.signal_number
        except KeyboardInterrupt:  # a second Ctrl-C, or one before any handler was set
            print("interrupted; the last checkpoint, if there is one, is intact", file=sys.stderr)
            return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
