"""A clock for tests of what is measured in seconds."""


class HeldClock:
    """Replaces the `time` module in one of the product's modules; it moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0  # seconds

    def perf_counter(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now
