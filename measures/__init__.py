"""Measures of clips: are they legible, sharp, in motion, copies, guided by their text? With the networks that judge.

Not here: when they are measured (`training.validation`, `training.showcase`) and the report (`evaluation`).
"""
