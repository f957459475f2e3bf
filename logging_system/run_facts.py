"""Constants of the run that several categories need."""

from logging_system.records import RunInformation


def number_of_timesteps(run: RunInformation) -> int:
    """Return NUM_TRAIN_TIMESTEPS.

    Raises:
        KeyError: the run's configuration lacks it.
        TypeError: it is not a whole number.
    """
    value = run.config["NUM_TRAIN_TIMESTEPS"]
    if not isinstance(value, int):
        raise TypeError(f"NUM_TRAIN_TIMESTEPS must be a whole number, got {value!r}")
    return value


def first_step(run: RunInformation) -> int:
    """Return the step at which what belongs to the launch as a whole is written: 0, or the first step after a resume.

    Not the step resumed from: a second resume from the same checkpoint takes back what came after it, and would find
    that step's points a second time.
    """
    return run.start_step + 1 if run.start_step else 0
