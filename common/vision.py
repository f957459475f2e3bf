"""The two parts of torchvision that are used, importable with a PyTorch without CUDA too.

The torchvision wheels on PyPI are built for CUDA. With a CPU build of PyTorch their compiled operators do not
load, and the import then fails with "operator torchvision::nms does not exist", although nothing here needs an
operator. Declaring the two names that torchvision describes unconditionally lets its Python parts load.
"""

import sys

import torch


def _import_torchvision() -> None:
    try:
        import torchvision
    except RuntimeError as error:
        if "does not exist" not in str(error) or "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_operator_names"] = library  # the declarations live as long as this object
        import torchvision  # noqa: F401


_import_torchvision()

from torchvision.transforms import v2  # noqa: E402
from torchvision.utils import make_grid  # noqa: E402

__all__ = ["make_grid", "v2"]
