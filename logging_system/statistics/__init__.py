"""Numbers about tensors, layers and the machine, computed without waiting for the device.

Not here: tags (`logging_system.categories`).
"""
