"""The dashboard of a model that is divided over several processes: it looks at copies, which these put together."""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from logging_system.cadence import Cadence
from logging_system.records import CheckpointRecord, EpochRecord, StepRecord, ValidationRecord
from training.processes import Processes
from training.run_log import RunLog
from training.sharded_gathering import gather_tensors


class PlainCopy:
    """A whole network on the main process's device, which has memory only while somebody looks at it.

    It is one object for the whole run. While nobody looks, its weights read as NaN.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """`model` is not divided yet; it stays as it is, and its weights are not copied."""
        self._nothing = torch.full((), torch.nan, device=device)
        # What is in the memo takes the place of what would be copied.
        self.module = copy.deepcopy(model, {id(each): self._empty(each) for each in model.parameters()})

    def clear(self) -> None:
        """Let go of weights and gradients."""
        for parameter in self.module.parameters():
            parameter.grad = None
            parameter.data = self._nothing.expand(parameter.shape)

    def _empty(self, parameter: nn.Parameter) -> nn.Parameter:
        return nn.Parameter(self._nothing.expand(parameter.shape), requires_grad=parameter.requires_grad)


class Copies:
    """What the processes put together for the main one. Each method is to be called by all of them."""

    def __init__(
        self,
        model: nn.Module,
        averaged: nn.Module,
        plain: tuple[PlainCopy, PlainCopy] | None,
        processes: Processes,
    ) -> None:
        """Make it.

        Args:
            model: the divided network.
            averaged: the divided average.
            plain: the main process's copies of the two; None on all others.
            processes: that train together.
        """
        self._model = model
        self._averaged = averaged
        self._plain_model = None if plain is None else plain[0]
        self._plain_averaged = None if plain is None else plain[1]
        self._processes = processes

    @contextmanager
    def of_model(self, *, with_gradients: bool = False) -> Iterator[None]:
        """Have the weights within."""
        with self._filled(self._plain_model, self._model, with_gradients=with_gradients):
            yield

    @contextmanager
    def of_both(self) -> Iterator[None]:
        """Have weights and averaged weights within."""
        with self.of_model(), self._filled(self._plain_averaged, self._averaged, with_gradients=False):
            yield

    @contextmanager
    def _filled(self, plain: PlainCopy | None, divided: nn.Module, *, with_gradients: bool) -> Iterator[None]:
        self._processes.wait()  # for a main process that was long busy with something else: only this may take long
        try:
            parameters = dict(divided.named_parameters())
            for name, weight in gather_tensors(parameters):
                if plain is not None:
                    plain.module.get_parameter(name).data = weight.detach()
            gradients = {name: each.grad for name, each in parameters.items() if each.grad is not None}
            for name, gradient in gather_tensors(gradients if with_gradients else {}):
                if plain is not None:
                    plain.module.get_parameter(name).grad = gradient
            yield
        finally:
            if plain is not None:
                plain.clear()


class ShardedRunLog:
    """Tells a log what it is told, with the copies at hand that the main process's log looks at then."""

    def __init__(self, log: RunLog, copies: Copies, cadence: Cadence) -> None:
        """Make it.

        Args:
            log: the dashboard of the main process; of all others, one that writes nothing.
            copies: that are put together.
            cadence: of the dashboard. It tells all processes at which steps.
        """
        self._log = log
        self._copies = copies
        self._cadence = cadence

    def on_start(self) -> None:
        with self._copies.of_model():
            self._log.on_start()

    def before_step(self, step: int, *, is_first: bool, is_last: bool) -> None:
        due = self._cadence.due(step, is_first=is_first, is_last=is_last)
        with self._if_due(due.diagnostics, self._copies.of_model):
            self._log.before_step(step, is_first=is_first, is_last=is_last)

    def on_step(self, record: StepRecord) -> None:
        due = self._cadence.due(record.step, is_first=record.is_first, is_last=record.is_last)
        is_due = due.diagnostics and not record.is_interrupted
        with self._if_due(is_due, lambda: self._copies.of_model(with_gradients=True)):
            self._log.on_step(record)

    def samples_are_due(self, record: StepRecord) -> bool:
        return self._log.samples_are_due(record)

    def on_samples(self, record: StepRecord) -> None:
        with self._copies.of_both():
            self._log.on_samples(record)

    def on_validation(self, record: ValidationRecord) -> None:
        self._log.on_validation(record)

    def on_epoch(self, record: EpochRecord) -> None:
        with self._if_due(self._cadence.epoch_due(record.epoch, is_last=record.is_last), self._copies.of_model):
            self._log.on_epoch(record)

    def on_checkpoint(self, record: CheckpointRecord) -> None:
        self._log.on_checkpoint(record)

    def on_end(self) -> None:
        self._log.on_end()

    def flush(self) -> None:
        self._log.flush()

    def close(self, is_hurried: Callable[[], bool]) -> None:
        self._log.close(is_hurried)

    @staticmethod
    def _if_due(is_due: bool, copies: Callable[[], AbstractContextManager[None]]) -> AbstractContextManager[None]:
        return copies() if is_due else nullcontext()
