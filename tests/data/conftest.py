"""Fixtures shared by the tests of the data package."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.video_encoding import video_frame
from config import Config
from data.cache import ClipCache
from data.fingerspelling import open_fingerspelling
from data.records import DataSplits


@pytest.fixture
def cache(tmp_path: Path) -> ClipCache:
    return ClipCache(tmp_path / "cache", 50_000_000)


@pytest.fixture
def tokenize() -> Callable[[Sequence[str]], Tensor]:
    """Character codes, padded with 0."""

    def encode(captions: Sequence[str]) -> Tensor:
        length = max(map(len, captions))
        return torch.tensor([[ord(c) for c in caption] + [0] * (length - len(caption)) for caption in captions])

    return encode


@pytest.fixture
def open_words(cache: ClipCache) -> Callable[..., DataSplits]:
    """Open the embedded data, small; keyword arguments override."""

    def open_(**changes: object) -> DataSplits:
        constants: dict[str, object] = {
            "SIGNED_LANGUAGE": ("ase",),
            "MAX_FRAMES": 16,
            "IMAGE_SIZE": (16, 16),
            "MAX_WORD_LETTERS": 3,
            "EPOCH_SIZE": 40,
            "HELD_OUT_WORD_FRACTION": 0.2,
            "HELD_OUT_BIGRAM_FRACTION": 0.1,
            "VALIDATION_CLIPS": 6,
            "SEED": 0,
        }
        constants |= {name.upper(): value for name, value in changes.items()}
        return open_fingerspelling(Config.model_construct(**constants), cache)  # type: ignore[arg-type]

    return open_


@pytest.fixture
def write_video() -> Callable[..., None]:
    """Write uint8 [T, H, W, 3] as a video file; the extension chooses the codec."""

    def write(path: Path, video: numpy.ndarray, rate: int = 10, rotation: int | None = None) -> None:
        if path.suffix == ".gif":
            images = [Image.fromarray(frame) for frame in video]
            images[0].save(path, save_all=True, append_images=images[1:], duration=1000 // rate, loop=0)
            return
        codec = {".webm": "libvpx", ".avi": "mpeg4"}.get(path.suffix, "libx264")
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = video.shape[1:3]
            stream.pix_fmt = "yuv420p"
            if rotation is not None:
                stream.set_display_rotation(rotation)
            for image in video:
                container.mux(stream.encode(video_frame(image, "yuv420p")))
            container.mux(stream.encode())

    return write


@pytest.fixture
def brightening_video() -> numpy.ndarray:
    """Ten frames of 32 x 48, grey, each brighter than the one before: 0, 25, 50 ..."""
    return numpy.stack([numpy.full((32, 48, 3), 25 * frame, numpy.uint8) for frame in range(10)])
