"""`python -m evaluation`: what a trained run generates, measured against real clips, and the report.

Not here: the measures themselves (`measures`) and opening a run (`sampling`).
"""
