"""From files that may be damaged, mislabelled or hostile to a few small square frames."""
