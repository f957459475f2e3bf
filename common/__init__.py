"""What all rooms may use: settings, seeds, safe file writing, pictures and videos, console and signals.

Not here: what knows clips, networks or runs.
"""
