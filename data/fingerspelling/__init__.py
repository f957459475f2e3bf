"""The embedded data set: finger-spelled words, composed from motion capture of real letters and drawn."""

from data.fingerspelling.source import FingerspellingSplits, open_fingerspelling

__all__ = ["FingerspellingSplits", "open_fingerspelling"]
