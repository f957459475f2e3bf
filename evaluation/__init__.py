"""Measures of what a model does: whether it uses its text, whether its clips move."""
