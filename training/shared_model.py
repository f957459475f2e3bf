"""The model as a training step calls it: by one process, or by several whose gradients become one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from training.compiled import Forward, compile_network


class SharedModel:
    """The model of one process alone. What several share has the same weights and keys under another forward pass."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._network = model  # what a step calls
        self._forward: Forward = model

    def __call__(self, video_BCTHW: Tensor, timestep_B: Tensor, tokens_BL: Tensor, drop_caption_B: Tensor) -> Tensor:
        """Predict as `models.text_to_video.TextToVideoModel` does."""
        return self._forward(video_BCTHW, timestep_B, tokens_BL, drop_caption_B)

    def compile(self) -> None:
        """Let the forward and backward passes of training steps run through torch.compile from now on."""
        self._forward = compile_network(self._network)

    @contextmanager
    def gradients_stay_here(self) -> Iterator[None]:
        """Within, neither forward nor backward passes send gradients: more of the same step follow."""
        yield


class ReplicatedModel(SharedModel):
    """Each process has all weights, and the mean of the gradients over all of them after the backward pass.

    Li et al. 2020 (PyTorch Distributed, arXiv 2006.15704): gradients travel in buckets while the backward pass goes on.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        replicated = DistributedDataParallel(
            model,
            device_ids=None if device.type == "cpu" else [device],
            gradient_as_bucket_view=True,
        )
        self._network = self._forward = self._replicated = replicated

    @contextmanager
    def gradients_stay_here(self) -> Iterator[None]:
        with self._replicated.no_sync():
            yield
