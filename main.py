"""Train: python main.py [--preset tiny|base|large] [--max-steps N] ...; python main.py --help lists every constant."""

import sys

from common.errors import UserError
from common.settings import load_settings
from config import PRESETS, Config
from training.allocator import keep_freed_memory
from training.build import build_training


def main(arguments: list[str]) -> int:
    """Train as config.py and the command line say; return the exit code, 0 only for a finished run."""
    keep_freed_memory()
    try:
        loaded = load_settings(Config, PRESETS, arguments, program="main.py")
        training = build_training(loaded, ["main.py", *arguments])
        return 0 if training is None else training.run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while building, or a second Ctrl-C
        print("interrupted; the last checkpoint, if there is one, is intact", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
