"""python -m evaluation: does a trained run spell what it is told? Clips, their words, and the report."""
