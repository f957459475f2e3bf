"""A verdict on a run in plain language: ``python -m logging_system.doctor logs/NAME``.

`rules_*.py` hold one function a rule, each with its thresholds and the reason for them; `diagnosis` applies them all
and `report` puts the result into words. Rules see scalars and constants alone, so the command and the dashboard's card
agree, but for faults of logging that are counted after the last card.
"""
