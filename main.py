"""Train: python main.py [--preset tiny|base|large] [--max-steps N] ...; python main.py --help lists every constant."""

import signal
import sys
from contextlib import ExitStack

from common.console import forgiving_output
from common.errors import UserError
from common.interruption import Interrupted
from common.settings import load_settings
from config import PRESETS, Config
from training.allocator import keep_freed_memory
from training.build import build_training
from training.memory import is_out_of_memory, out_of_memory_advice
from training.signals import StopRequest


def main(arguments: list[str]) -> int:
    """Train as config.py and the command line say; return the exit code, 0 only for a finished run."""
    keep_freed_memory()
    with forgiving_output():
        try:
            loaded = load_settings(Config, PRESETS, arguments, program="main.py")
            with StopRequest() as stop, ExitStack() as held:
                training = build_training(loaded, ["main.py", *arguments], stop, held)
                return 0 if training is None else training.run()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except Interrupted as interruption:
            name = signal.Signals(interruption.signal_number).name
            print(f"{name} came before the first step: no file of a run was changed", file=sys.stderr)
            return 128 + interruption.signal_number
        except KeyboardInterrupt:  # a second Ctrl-C, or one before any handler was set
            print("interrupted; the last checkpoint, if there is one, is intact", file=sys.stderr)
            return 130
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            print(f"error: {out_of_memory_advice(error)}", file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
