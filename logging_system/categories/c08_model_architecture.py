"""08_Model_Architecture: how large the network is and where its parameters sit. Written once a launch.

There is no graph: tracing a 3D UNet takes seconds and a second forward pass, breaks on data-dependent code, and ends
in a drawing of hundreds of nodes that nobody reads. The table gives every module, its shape and its share.
"""

from collections import Counter

from torch import nn

from logging_system.category import START, Category, Tag
from logging_system.files.summaries import table

DIRECT = "own_parameters"

TAGS = {
    "Total_Parameters": Tag("Number of values in the network, trained or not."),
    "Trainable_Parameters": Tag("Number of values that training changes."),
    "Parameter_Efficiency": Tag("Trainable parameters divided by all parameters; 1 when nothing is frozen."),
    "Model_Size_MB": Tag(
        "Size of parameters and buffers as they are held for training, in 10^6 bytes; optimizer state and EMA not "
        "counted."
    ),
    "Forward_GFLOPs": Tag(
        "Arithmetic of one forward pass over one clip of MAX_FRAMES in 10^9 operations, a multiply-add counted as two.",
        absent_when="it could not be counted",
    ),
    "Parameters_By_Block/{block}": Tag("Number of values in one top-level part of the network."),
    "Summary": Tag("Every part that holds parameters: kind, shapes, number and share."),
}


class ModelArchitecture(Category):
    """Counts and a table, from the modules alone: no forward pass."""

    name = "08_Model_Architecture"
    cadence = START
    tags = TAGS

    def on_start(self) -> None:
        parameters = list(self.view.model.parameters())
        total = sum(parameter.numel() for parameter in parameters)
        trainable = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        tensors = [*parameters, *self.view.model.buffers()]
        step = self.view.run.first_step
        values: dict[str, float] = {
            "Total_Parameters": total,
            "Trainable_Parameters": trainable,
            "Model_Size_MB": sum(t.numel() * t.element_size() for t in tensors) / 1e6,
        }
        if total:
            values["Parameter_Efficiency"] = trainable / total
        if self.view.run.forward_flops is not None:
            values["Forward_GFLOPs"] = self.view.run.forward_flops / 1e9
        self.scalars(values, step)
        for block, count in parameters_by_block(self.view.model).items():
            self.scalars({"Parameters_By_Block/{block}": count}, step, block=block)
        self.write(self.writer.text, "Summary", self._summary(self.view.model, total), step)

    def _summary(self, model: nn.Module, total: int) -> str:
        modules = dict(model.named_modules())
        rows = []
        for layer in self.layer_plan.layers:
            module = modules.get(layer.name, model)
            shapes = ", ".join("×".join(map(str, parameter.shape)) for parameter in layer.parameters[:4])
            rest = f" and {len(layer.parameters) - 4} more" if len(layer.parameters) > 4 else ""
            share = f"{100 * layer.size / total:.1f} %"
            rows.append((layer.name, type(module).__name__, shapes + rest, f"{layer.size:,}", share))
        rows.append(("all", type(model).__name__, "", f"{total:,}", "100 %"))
        return table(("layer", "kind", "shapes", "parameters", "share"), rows)


def parameters_by_block(model: nn.Module) -> dict[str, int]:
    """Return the number of values under each child of the network; parameters of its own come under one name."""
    counts: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        counts[name.split(".")[0] if "." in name else DIRECT] += parameter.numel()
    return counts
