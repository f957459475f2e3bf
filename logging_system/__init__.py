"""Fifteen TensorBoard categories: typed records go in, event files, metrics.jsonl and videos come out.

A tag's way from the training loop to the disk: `dispatcher` decides what is due, a class in `categories/` computes the
value, `category` adds the tag's name and description, and `files/writer` writes it through `files/append_log`.
This package knows nothing of the trainer: `records` has what it is told and what it may look at.

Not here: what makes the records (`training`) and measures of clips (`measures`).
"""
