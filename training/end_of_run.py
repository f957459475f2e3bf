"""After which step a run ends: on all of its processes after the same."""

import time

from torch import Tensor

from training.device import ComputeDevice
from training.ending import Ending, ending_for_signal
from training.late_numbers import LateNumbers
from training.processes import Processes
from training.progress import StoppingLimits
from training.signals import StopRequest

GO_ON, OUT_OF_TIME = 0, 1  # what else processes tell each other is the number of a signal, plus this
_SIGNAL = 1


class EndOfRun:
    """Looks at limits and signals.

    A process alone ends after the step in which a signal comes. Of several, each tells the others with its next step
    that it was asked to end, and all end when they learn it: after that step, or on GPUs two steps later
    (`late_numbers`). That costs no message of its own, and nobody waits.
    """

    def __init__(self, limits: StoppingLimits, stop: StopRequest, processes: Processes, compute: ComputeDevice) -> None:
        self._limits = limits
        self._stop = stop
        self._processes = processes
        self._late: LateNumbers[None] = LateNumbers(compute)
        self._started = time.perf_counter()

    def start(self, step: int) -> Ending | None:
        """Begin to count the minutes; say why not one step is to be done after `step`, or return None."""
        self._started = time.perf_counter()
        if self._processes.are_several:
            return self._limits.steps_are_done(step)
        return self._reached(step)

    def request(self) -> int:
        """Return what the others are to be told with the next step."""
        if self._stop.signal_number is not None:
            return _SIGNAL + self._stop.signal_number
        is_over = self._processes.is_main and self._limits.time_is_over(self._started)
        return OUT_OF_TIME if is_over else GO_ON

    def after(self, step: int, request_of_all: Tensor) -> Ending | None:
        """Say why the run ends after `step`, or return None.

        Args:
            request_of_all: scalar on the device, the largest request that a process sent with this step.
        """
        if not self._processes.are_several:
            return self._stop.ending or self._reached(step)
        request = max((int(number) for _, number in self._late.put(None, request_of_all)), default=GO_ON)
        done = self._limits.steps_are_done(step)
        if request > OUT_OF_TIME:
            return ending_for_signal(request - _SIGNAL)
        if done is None and request == OUT_OF_TIME:
            return self._limits.out_of_time(step)
        return done

    def between_steps(self) -> Ending | None:
        """Say why the run ends before the next step; several processes end after one alone."""
        return None if self._processes.are_several else self._stop.ending

    def _reached(self, step: int) -> Ending | None:
        done = self._limits.steps_are_done(step)
        if done is None and self._limits.time_is_over(self._started):
            return self._limits.out_of_time(step)
        return done
