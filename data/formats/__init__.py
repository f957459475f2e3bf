"""What a data set lists: one small module for each format, which turns a path into rows (`data.rows`).

Not here: what is in a clip's file (`data.media`).
"""
