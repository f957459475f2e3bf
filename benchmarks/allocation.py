"""Whose freed memory is kept for its next step: everybody's, or only that of the network whose trainer sees to it."""

from typing import Literal, get_args

from benchmarks.machine import MEMORY_NOTE
from benchmarks.networks import OURS, NetworkName

Allocation = Literal["same", "shipped"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)
ALLOCATION_HELP = (
    '"same": every network keeps the memory that a step frees, as a run of main.py does (default); "shipped": only '
    "text2sign does, and the other libraries leave the C library's allocator as it is"
)
_NOTES: dict[Allocation, str] = {
    "same": MEMORY_NOTE,
    "shipped": "text2sign keeps the memory that a step frees, as main.py does; the others leave the allocator alone.",
}


def keeps_freed_memory(network: NetworkName, allocation: Allocation) -> bool:
    """Say whether a network's process calls `compute.memory.keep_freed_memory`."""
    return allocation == "same" or network == OURS


def allocation_note(allocation: Allocation) -> str:
    """Return the sentence that a report needs."""
    return _NOTES[allocation]
