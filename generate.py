"""Generate clips from a trained run: python generate.py --run logs/NAME --text CAB --output cab.mp4"""

import argparse
import sys
from pathlib import Path

from common.errors import UserError
from compute.memory import keep_freed_memory
from sampling.generation import GenerationRequest, generate


def parse(arguments: list[str]) -> GenerationRequest:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Turn text into sign videos with a trained run.")
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, such as logs/my_run")
    parser.add_argument("--text", nargs="+", required=True, help="what to sign; several texts make several videos")
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        help="file ending in .mp4 or .gif for one text; folder for several (each becomes TEXT.mp4). "
        "Default: TEXT.mp4 in the current folder",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the initial noise (default 0)")
    parser.add_argument("--steps", type=int, default=None, help="sampling steps (default: the run's SAMPLING_STEPS)")
    parser.add_argument("--guidance-scale", type=float, default=None, help="default: the run's GUIDANCE_SCALE")
    parser.add_argument("--sampler", default=None, help="default: the run's SAMPLER")
    parser.add_argument("--scale", type=int, default=8, help="enlarge each pixel to this many (default 8)")
    parser.add_argument(
        "--contact-sheet", type=Path, default=None, help="also draw all clips on one PNG, real ones above"
    )
    parser.add_argument("--raw-weights", action="store_true", help="use the last weights in place of their average")
    parser.add_argument(
        "--checkpoint", default="newest", help="newest, best (by validation loss) or a step (default: newest)"
    )
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda", "mps"))
    return GenerationRequest(**vars(parser.parse_args(arguments)))


def main(arguments: list[str]) -> int:
    """Generate; return the exit code."""
    keep_freed_memory()
    try:
        for path in generate(parse(arguments)):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
