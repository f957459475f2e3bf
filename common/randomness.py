"""All randomness of a run, as pure functions of (seed, purpose, indices).

Nothing here keeps state, so there is no random-number state to checkpoint: code that needs noise for step 1207
asks for it by name and gets the same numbers on every machine, in every order, before and after a resume.
"""

import hashlib

import numpy
import torch


def derive_seed(seed: int, purpose: str, *indices: int) -> int:
    """Return a 63-bit seed that depends on all arguments and on nothing else.

    Args:
        seed: the run's seed.
        purpose: what the randomness is for, such as ``"training_noise"``. Two purposes never share a stream.
        indices: step, epoch, clip number and the like.
    """
    text = "/".join([str(seed), purpose, *map(str, indices)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def torch_generator(seed: int, purpose: str, *indices: int) -> torch.Generator:
    """Return a CPU generator. Draw on the CPU and move: CUDA, MPS and CPU then see the same numbers."""
    return torch.Generator("cpu").manual_seed(derive_seed(seed, purpose, *indices))


def numpy_generator(seed: int, purpose: str, *indices: int) -> numpy.random.Generator:
    """Return a numpy generator for the same kind of stream as :func:`torch_generator`."""
    return numpy.random.default_rng(derive_seed(seed, purpose, *indices))
