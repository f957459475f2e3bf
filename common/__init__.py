"""What every other package may use: settings, seeds, safe file writing, pictures and videos, console and signals."""
