"""The machine that computes: device, precision, memory, compilation, and a self-check of its kernels.

Not here: several processes (`distributed`).
"""
