"""Clips and captions: the embedded finger-spelling data, folders of videos, and the batches made of them."""
