"""Several processes that train one model: connecting them, replicated and divided models, gathering, failures.

Not here: what one process computes (`compute`, `training`).
"""
