"""Colours of the pictures, told apart by the colour-blind too."""

from benchmarks.networks import NETWORK_NAMES

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000")
NETWORK_COLOURS = dict(zip(NETWORK_NAMES, PALETTE, strict=False))
