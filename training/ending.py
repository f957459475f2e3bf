"""Why a run ends."""

import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Ending:
    """A limit that was reached, or a signal that asked for it.

    Attributes:
        reason: for the console, as the end of a sentence.
        signal_number: the signal, or None for a limit.
    """

    reason: str
    signal_number: int | None = None

    @property
    def is_interruption(self) -> bool:
        """Whoever sends a signal wants an end within seconds: no closing round of samples and diagnostics."""
        return self.signal_number is not None

    @property
    def exit_code(self) -> int:
        """0 for a finished job; 128 + the signal's number, as shells report it."""
        return 0 if self.signal_number is None else 128 + self.signal_number


def ending_for_signal(number: int) -> Ending:
    """Say why a run ends for which a signal came."""
    return Ending(f"{signal.Signals(number).name} asked for it; --resume goes on from here", number)
