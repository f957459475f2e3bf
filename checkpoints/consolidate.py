"""Turn a checkpoint that several processes wrote into one of the usual three files: python -m checkpoints.consolidate

The programs here read both kinds. For others, each of the three is a safetensors file of plain names.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from checkpoints.checkpoint import find_checkpoint, new_checkpoint
from checkpoints.run_folder import CHECKPOINTS, find_run, lock_run
from checkpoints.tensor_files import save_tensors
from common.console import program
from common.errors import UserError
from common.files import named_if_unwritable


@program
def main(arguments: Sequence[str]) -> None:
    """Consolidate and say so."""
    parser = argparse.ArgumentParser(
        prog="python -m checkpoints.consolidate",
        description="Replace a checkpoint that was written with CHECKPOINT_LAYOUT sharded by one of whole files, as "
        "CHECKPOINT_LAYOUT whole writes them. Takes memory for the weights and the optimizer's two moments.",
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a run, or of runs: then the newest one")
    parser.add_argument("--checkpoint", default="newest", help="newest (the default), best or a step")
    request = parser.parse_args(arguments)
    with named_if_unwritable(f"--run {request.run}"):
        print(consolidate(request.run, request.checkpoint))


def consolidate(run: Path, which: str) -> str:
    """Write the three files next to the parts, then replace the parts; return the message for the user.

    In place, because each step has one checkpoint: `--resume`, generate.py and retention find it as before.

    Raises:
        UserError: there is no such checkpoint, it is damaged, or a training goes on in the run.
        OSError: the disk is full or not writable; the checkpoint is as it was.
    """
    run = find_run(run)
    checkpoints = run / CHECKPOINTS
    with lock_run(run):
        checkpoint = find_checkpoint(checkpoints, which)
        if checkpoint is None:
            raise UserError(f"--run {run}: there is no checkpoint in {checkpoints}")
        if not checkpoint.is_sharded:
            return f"{checkpoint.folder} has whole files already"
        with new_checkpoint(checkpoints, checkpoint.state) as folder:
            save_tensors(folder / "model.safetensors", checkpoint.weights("model"))
            save_tensors(folder / "ema.safetensors", checkpoint.weights("ema"))
            save_tensors(folder / "optimizer.safetensors", checkpoint.weights("optimizer"))
    return f"{checkpoint.folder} has whole files now"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
