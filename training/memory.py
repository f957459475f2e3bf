"""Running out of memory: how to tell, and what helps."""

import torch

SMALLER_CLIP = "NUM_FRAMES, IMAGE_SIZE or MODEL_CHANNELS"
SMALLER_BATCH = "BATCH_SIZE (and raise GRADIENT_ACCUMULATION_STEPS, for as many clips a step)"
_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an allocation failed. CUDA's error has a class of its own, those of the CPU and MPS have not."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def first_line(error: BaseException) -> str:
    """Return what an error says in a line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def out_of_memory_advice(error: BaseException) -> str:
    """Say which constants to lower."""
    return (
        f"the memory is too small ({first_line(error)}). Set ACTIVATION_CHECKPOINTING, or lower {SMALLER_BATCH}, "
        f"{SMALLER_CLIP}. ACTIVATION_CHECKPOINTING and the batch can be changed with --resume; MODEL_CHANNELS, "
        f"IMAGE_SIZE and NUM_FRAMES need a new run."
    )
