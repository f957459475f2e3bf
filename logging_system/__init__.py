"""Fifteen TensorBoard categories: typed records go in, event files, metrics.jsonl and videos come out.

This package knows nothing of the trainer. `records` says what it is told, `view` what it may look at, and
`categories/` holds one small class a category.
"""
