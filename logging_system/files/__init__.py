"""What is written to disk and read back: event files, `metrics.jsonl`, videos.

Not here: what the values mean (`logging_system.categories`).
"""
