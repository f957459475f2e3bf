"""Numbers about tensors, layers and the machine, computed without waiting for the device."""
