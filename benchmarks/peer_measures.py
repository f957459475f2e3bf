"""Training step, prediction and memory of each network in one cell of benchmarks.peers, measured in turn."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import psutil
import torch

from benchmarks.allocation import Allocation, keeps_freed_memory
from benchmarks.limited_process import MEMORY_LIMIT_GIB, LimitedProcess, LimitError, MemoryLimitError, TimeLimitError
from benchmarks.machine import GIBIBYTE
from benchmarks.networks import NetworkName
from benchmarks.peer_figures import Bound, Cell, CellResult, Measurement, Skip

STEP_LIMIT_SECONDS = 60.0
COLD_FACTOR = 2  # as much longer may the very first step of a process take
COUNT_LIMIT_SECONDS = 300.0  # one clip, forward and in a step, with each operation looked at
START_LIMIT_SECONDS = 300.0  # imports, the search for widths, initial weights
SPARE_GIB = 1.0
MATRIX_SIDE = 2048
MATRIX_PRODUCTS = 5


@dataclass(frozen=True)
class Plan:
    """How to measure.

    Attributes:
        alternations: turns of each network.
        turn_seconds: a turn has as many steps as fit, and at least one.
        threads: of PyTorch, in each network's process.
        allocation: whose freed memory is kept.
    """

    alternations: int
    turn_seconds: float
    threads: int
    allocation: Allocation


class Worker:
    """A network in its process, built and warmed up."""

    def __init__(self, network: NetworkName, cell: Cell, plan: Plan) -> None:
        """Start it.

        Raises:
            LimitError: it needs too much memory or time, or fails.
        """
        command = [sys.executable, "-m", "benchmarks.network_worker", network]
        sizes = {"image-size": cell.image_size, "frames": cell.frames, "batch-size": cell.batch_size}
        sizes |= {"parameters": cell.parameters, "threads": plan.threads}
        command += [f"--{name}={value}" for name, value in sizes.items()]
        command += ["--keep-freed-memory"] if keeps_freed_memory(network, plan.allocation) else []
        self._process = LimitedProcess(command, memory_gib=MEMORY_LIMIT_GIB)
        self._turn_seconds = plan.turn_seconds
        self._is_cold = True
        self._repeats = {"step": 1, "forward": 1}  # a turn
        try:
            self._warm_up()
        except BaseException:
            self.stop()
            raise

    def time(self, what: Literal["step", "forward"]) -> float:
        """Return the mean seconds of a turn of training steps or predictions.

        Raises:
            LimitError: as for the start.
        """
        repeats = self._repeats[what]
        limit = STEP_LIMIT_SECONDS * (COLD_FACTOR if self._is_cold else 1)
        try:
            answer = self._process.ask(f"{what} {repeats}", seconds=limit * repeats)
        except TimeLimitError as error:
            raise TimeLimitError(f"more than {limit:g} s {'the first' if self._is_cold else 'a'} {what}") from error
        self._is_cold = False
        seconds = _number(answer, "seconds")
        self._repeats[what] = max(1, round(self._turn_seconds / seconds))
        return seconds

    def peak_gib(self) -> float:
        """Return the largest resident set so far.

        Raises:
            LimitError: it was past the limit, too shortly to be noticed, or the process is gone.
        """
        peak = _number(self._process.ask("memory", seconds=STEP_LIMIT_SECONDS), "peak_gib")
        if peak > MEMORY_LIMIT_GIB:
            raise MemoryLimitError(f"more than {MEMORY_LIMIT_GIB:g} GiB")
        return peak

    def clip_flops(self) -> tuple[int, int]:
        """Count the operations of a clip, forward and in a whole step; the peak of memory is no step's afterwards.

        Raises:
            LimitError: as for the start.
        """
        answer = self._process.ask("flops", seconds=COUNT_LIMIT_SECONDS)
        return int(_number(answer, "forward")), int(_number(answer, "step"))

    def memory_gib(self) -> float:
        """Return the resident set now."""
        return self._process.memory_gib()

    def stop(self) -> None:
        """End the process."""
        self._process.stop()

    def _warm_up(self) -> None:
        try:
            about = self._process.answer(seconds=START_LIMIT_SECONDS)
        except TimeLimitError as error:  # of the machine's making: the bound on seconds is one on steps
            raise LimitError(f"{error} to be built") from error
        self.parameters = int(_number(about, "parameters"))
        self.imported_gib = _number(about, "imported_gib")
        for _ in range(2):  # the very first is slow, and would make the turns of a fast network too short
            self.time("step")
            self.time("forward")
            if self._repeats["step"] == 1:
                break


class _Lane:
    """A network's part in a cell: its process, as long as there is room for it, and its figures so far."""

    def __init__(self, network: NetworkName, cell: Cell, plan: Plan) -> None:
        self.network = network
        self.worker: Worker | None = None
        self.skip: Skip | None = None
        self.peak_gib = 0.0  # 0: not known yet
        self._cell = cell
        self._plan = plan
        self._step_seconds: list[float] = []
        self._forward_seconds: list[float] = []
        self._clip_flops = (0, 0)

    def start(self) -> Worker:
        """Return the process, started anew where there is none."""
        if self.worker is None:
            self.worker = Worker(self.network, self._cell, self._plan)
            self.peak_gib = max(self.peak_gib, self.worker.peak_gib())
        return self.worker

    def turn(self, *, is_last: bool) -> None:
        """Measure once; the last turn counts the operations too."""
        worker = self.start()
        step_seconds, forward_seconds = worker.time("step"), worker.time("forward")
        self._step_seconds.append(step_seconds)
        self._forward_seconds.append(forward_seconds)
        self.peak_gib = max(self.peak_gib, worker.peak_gib())
        if is_last:
            self._clip_flops = worker.clip_flops()
            self._parameters, self._imported_gib = worker.parameters, worker.imported_gib

    def stop(self) -> None:
        """End the process if there is one."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def measurement(self) -> Measurement:
        """Return the figures, after the last turn."""
        forward, step = self._clip_flops
        return Measurement(
            network=self.network,
            parameters=self._parameters,
            step_seconds=tuple(self._step_seconds),
            forward_seconds=tuple(self._forward_seconds),
            step_flops=step * self._cell.batch_size,
            forward_flops=forward * self._cell.batch_size,
            peak_gib=self.peak_gib,
            imported_gib=self._imported_gib,
        )


def measure_cell(cell: Cell, networks: Sequence[NetworkName], skips: Sequence[Skip], plan: Plan) -> CellResult:
    """Start every network in a process of its own, then time them in turn.

    Processes stay for the next turn, unless the memory that they hold while they wait is needed by another.

    Args:
        cell: what they are given.
        networks: those to measure.
        skips: those of the cell that are known to be past a bound; they are passed on.
        plan: how to measure; the matrix products take the threads that this process has.
    """
    lanes = [_Lane(network, cell, plan) for network in networks]
    matmul: list[float] = []
    try:
        for lane in lanes:
            _attempt(lane, lanes, _Lane.start)
        for number in range(plan.alternations):
            matmul.append(matmul_flops_per_second())
            for lane in lanes:
                _attempt(lane, lanes, partial(_Lane.turn, is_last=number == plan.alternations - 1))
    finally:
        for lane in lanes:
            lane.stop()
    return CellResult(
        cell=cell,
        matmul_flops_per_second=tuple(matmul),
        measurements=tuple(lane.measurement() for lane in lanes if lane.skip is None),
        skips=(*skips, *(lane.skip for lane in lanes if lane.skip is not None)),
    )


def matmul_flops_per_second() -> float:
    """Return the speed of the fastest of a few products of large float32 matrices."""
    left, right = torch.rand(2, MATRIX_SIDE, MATRIX_SIDE).unbind()
    seconds = []
    for _ in range(MATRIX_PRODUCTS):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * MATRIX_SIDE**3 / min(seconds)


def _attempt(lane: _Lane, lanes: Sequence[_Lane], action: Callable[[_Lane], object]) -> None:
    """Do something with a network that is still in the race; past a limit, it is out of it."""
    if lane.skip is not None:
        return
    _make_room(lane, lanes)
    try:
        action(lane)
    except LimitError as error:
        bounds: dict[type[LimitError], Bound] = {TimeLimitError: "seconds", MemoryLimitError: "memory"}
        lane.skip = Skip(lane.network, str(error), bounds.get(type(error)))
        lane.stop()


def _make_room(lane: _Lane, lanes: Sequence[_Lane]) -> None:
    """End waiting processes until the memory that `lane` may take is there, or none is left."""
    needed = (lane.peak_gib or MEMORY_LIMIT_GIB) + SPARE_GIB
    if lane.worker is not None:
        needed -= lane.worker.memory_gib()
    for other in lanes:
        if psutil.virtual_memory().available / GIBIBYTE >= needed:
            return
        if other is not lane:
            other.stop()


def _number(answer: Mapping[str, object], key: str) -> float:
    value = answer[key]
    if not isinstance(value, int | float):
        raise TypeError(f"{key} of {answer} is not a number")
    return value
