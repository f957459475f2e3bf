"""One module a dashboard category, `c01_training.py` for the tags that begin with ``01_Training/``, and so on."""
