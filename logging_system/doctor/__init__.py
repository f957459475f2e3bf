"""A verdict on a run in plain language: ``python -m logging_system.doctor logs/NAME``.

`rules_*.py` hold one function a rule, each with its thresholds and the reason for them; `diagnosis` applies them all
and puts the result into words. Rules see only scalars and constants, so the command and the dashboard's card agree,
except for logging faults that are counted after the last card.
"""
