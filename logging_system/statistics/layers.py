"""Which parts of the network get a set of tags of their own, within a budget."""

from collections import Counter
from dataclasses import dataclass

from torch import nn

ROOT_NAME = "model"  # for parameters that hang on the network itself, and what is merged into it


@dataclass(frozen=True)
class Layer:
    """Parameters that are reported together, such as a convolution's weight and bias."""

    name: str  # dotted path of the module
    parameters: tuple[nn.Parameter, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return sum(parameter.numel() for parameter in self.parameters)


@dataclass(frozen=True)
class LayerPlan:
    """The layers to report, in the network's own order."""

    layers: tuple[Layer, ...]
    modules: int  # modules with parameters of their own; more than layers when some were merged

    def explanation(self, maximum: int) -> str | None:
        """One sentence for the console when layers were merged, else None."""
        if self.modules == len(self.layers):
            return None
        return (
            f"Per-layer tags: {self.modules} modules hold parameters and PARAMETER_TRACKING_MAX_LAYERS is {maximum}, "
            f"so the deepest were merged into their parents, which leaves {len(self.layers)} layers."
        )


def plan_layers(model: nn.Module, maximum: int) -> LayerPlan:
    """Group parameters by the module that owns them, merging the deepest modules until at most `maximum` are left.

    Of the deepest modules, those whose parent holds the fewest values are merged first, so that large layers keep
    their own curves. A parameter that several modules share counts for the first of them.

    Raises:
        ValueError: `maximum` is below 1.
    """
    if maximum < 1:
        raise ValueError(f"the number of layers must be at least 1, got {maximum}")
    groups: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(name.rpartition(".")[0], []).append(parameter)
    modules = len(groups)
    while len(groups) > maximum and max(_depth(name) for name in groups) > 1:
        groups = _merge_one_parent(groups)
    if len(groups) > maximum:
        groups = _keep_largest(groups, maximum)
    return LayerPlan(tuple(Layer(name or ROOT_NAME, tuple(group)) for name, group in groups.items()), modules)


def _merge_one_parent(groups: dict[str, list[nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
    """Join the children of one parent of the deepest level with each other and with the parent's own parameters."""
    deepest = max(_depth(name) for name in groups)
    sizes: Counter[str] = Counter()
    for name, group in groups.items():
        if _depth(name) == deepest:
            sizes[name.rpartition(".")[0]] += sum(parameter.numel() for parameter in group)
    chosen = min(sizes, key=lambda parent: sizes[parent])
    merged: dict[str, list[nn.Parameter]] = {}
    for name, group in groups.items():
        is_child = _depth(name) == deepest and name.rpartition(".")[0] == chosen
        merged.setdefault(chosen if is_child else name, []).extend(group)
    return merged


def _keep_largest(groups: dict[str, list[nn.Parameter]], maximum: int) -> dict[str, list[nn.Parameter]]:
    """Join all but the largest parts of the network, where even the top level has more than the budget allows."""
    sizes = {name: sum(parameter.numel() for parameter in group) for name, group in groups.items() if name}
    kept = set(sorted(sizes, key=lambda name: sizes[name], reverse=True)[: maximum - 1])
    merged: dict[str, list[nn.Parameter]] = {}
    for name, group in groups.items():
        merged.setdefault(name if name in kept else "", []).extend(group)
    return merged


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0
