"""Clips and captions: the embedded finger-spelling, other people's clips, and the batches made of them.

Not here: tokens (`models.tokens`) and measures of clips (`measures`).
"""
