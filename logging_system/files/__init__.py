"""What is written to disk and read back: event files, `metrics.jsonl`, videos."""
