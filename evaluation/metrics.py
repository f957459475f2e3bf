"""Metrics that others publish or users write: functions from clips to figures, found by name."""

import importlib
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy

from common.errors import UserError
from data.clip_splits import caption_key
from evaluation.clips import Labelled, RealClips, next_of_each

REMEDY = "name MODULE:FUNCTION, where Python finds the module from here"


@dataclass(frozen=True)
class MetricClips:
    """What a metric receives. The i-th clip, real clip and caption belong together."""

    captions: tuple[str, ...]  # what each clip should show
    clips: tuple[numpy.ndarray, ...]  # uint8 [T, H, W, 3], 0 to 255: what is measured
    real: tuple[numpy.ndarray, ...]  # a real clip of each caption, other than the one that is measured
    frames_per_second: float
    weights: Path | None  # what stood behind the "=" of --metric


Metric = Callable[[MetricClips], Mapping[str, float]]


@dataclass(frozen=True)
class NamedMetric:
    """A metric as `--metric MODULE:FUNCTION[=WEIGHTS]` names it."""

    name: str
    function: Metric
    weights: Path | None

    def figures(self, clips: Sequence[Labelled], real: RealClips, rate: float) -> dict[str, float]:
        """Return its finite figures of those clips of whose caption there is a reference, beside that.

        Raises:
            UserError: it fails, which says where, or returns something other than figures by name.
        """
        chosen = real.comparable(clips)
        if not chosen:
            return {}
        captions = tuple(each.caption for each in chosen)
        # Copies: what a metric does to its clips must not reach the other figures.
        shown = tuple(each.clip.copy() for each in chosen)
        beside = tuple(real.by_caption[caption_key(caption)].copy() for caption in captions)
        try:
            found = self.function(MetricClips(captions, shown, beside, rate, self.weights))
        except (Exception, SystemExit) as error:  # another's code, which may raise anything
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise UserError(
                f"--metric {self.name}: failed in {place.filename}, line {place.lineno}: "
                f"{type(error).__name__}: {error}; mend it, or leave it out"
            ) from error
        try:
            figures = {str(name): float(value) for name, value in dict(found).items()}
        except (TypeError, ValueError) as error:
            raise UserError(
                f'--metric {self.name}: returns no figures by name, such as {{"fvd": 3.5}}: {error}; mend it, or leave '
                "it out"
            ) from error
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def find_metric(text: str) -> NamedMetric:
    """Return the metric of `MODULE:FUNCTION` or `MODULE:FUNCTION=WEIGHTS`.

    Raises:
        UserError: there is no such module, function or file of weights.
    """
    name, _, path = text.partition("=")
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise UserError(f"--metric {name}: no such metric; {REMEDY}")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except (Exception, SystemExit) as error:  # another's code, which may raise anything
        raise UserError(f"--metric {name}: {module_name} cannot be imported: {error}; {REMEDY}") from error
    if not callable(function):
        raise UserError(f"--metric {name}: {module_name} has no function {function_name}; {REMEDY}")
    weights = Path(path).expanduser() if path else None
    if weights is not None and not weights.exists():
        raise UserError(f"--metric {name}: {weights} does not exist; give the path of its weights after the =")
    return NamedMetric(name, function, weights)


def real_ceilings(metrics: Sequence[NamedMetric], real: RealClips, rate: float) -> list[dict[str, float]]:
    """Return each metric's figures of real clips in place of generated ones."""
    return [metric.figures(real.queries, real, rate) for metric in metrics]


def metric_figures(
    metrics: Sequence[NamedMetric],
    ceilings: Sequence[Mapping[str, float]],
    generated: Sequence[Labelled],
    real: RealClips,
    rate: float,
) -> tuple[dict[str, object], list[str]]:
    """Return for each metric, by name, each of its figures with its ceiling and its floor, and what failed.

    The floor is the figure of the same clips where each is compared as if another caption had been asked for: the
    next one of the list. A metric whose floor is its value does not see whether clips show their captions.

    Args:
        metrics: to apply.
        ceilings: from `real_ceilings`, of the same metrics.
        generated: the clips, with what they were asked to show.
        real: which each is compared with, one of its caption.
        rate: frames a second.
    """
    names = {caption_key(each.caption): each.caption for each in generated}
    others = next_of_each(names)
    shuffled = [Labelled(names[others[caption_key(each.caption)]], each.clip) for each in generated]
    figures: dict[str, object] = {}
    failures: list[str] = []
    for metric, ceiling in zip(metrics, ceilings, strict=True):
        try:
            values = metric.figures(generated, real, rate)
            floor = metric.figures(shuffled, real, rate) if len(names) > 1 else {}
        except UserError as error:  # it was right for real clips, and what else was found is not to be lost
            failures.append(str(error))
            continue
        if not values:
            failures.append(f"--metric {metric.name}: no figure of the generated clips is a finite number.")
        figures[metric.name] = {
            name: {
                "value": values.get(name),
                "real_ceiling": ceiling.get(name),
                "shuffled_floor": floor.get(name),
            }
            for name in dict.fromkeys([*values, *ceiling])
        }
    return figures, failures
