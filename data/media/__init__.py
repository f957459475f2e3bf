"""What is in a clip's file: GIFs, videos, folders of frames and poses, decoded within a budget.

Not here: which clips there are (`data.formats`).
"""
