"""What benchmarks.scaling varies: one thing at a time, the rest as in the default preset."""

from dataclasses import dataclass

from config import PRESETS, Config

SPATIAL_ATTENTION_SIDE = 8
HEAD_CHANNELS = 16
"""The narrowest head that divides the channels at every width; the preset's own would not divide half of 96."""


@dataclass(frozen=True)
class Setting:
    """One point of an axis.

    Attributes:
        label: what a table calls it.
        size: the quantity that times and memory are fitted against.
        options: of main.py.
    """

    label: str
    size: float
    options: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One quantity that is varied, from its smallest value to its largest."""

    name: str
    quantity: str  # what `size` is, for people
    settings: tuple[Setting, ...]


def frames_axis(frames: tuple[int, ...], base: tuple[str, ...]) -> Axis:
    """Vary the frames of a clip."""
    settings = (Setting(str(count), count, (*base, f"--num-frames={count}")) for count in frames)
    return Axis("frames", "frames", tuple(settings))


def pixels_axis(sides: tuple[int, ...], base: tuple[str, ...]) -> Axis:
    """Vary the pixels of a frame; `size` is their number.

    The preset attends over space where a level is 8 pixels wide. So does every size that has such a level; one that
    has none (128: 64, 32 and 16) attends at its coarsest. Attention at a fixed share of the image would grow with the
    square of the pixels, which is not how larger presets are made either.
    """
    settings = (
        Setting(f"{side} x {side}", side**2, (*base, f"--image-size={side}", _attention_option(side))) for side in sides
    )
    return Axis("pixels", "pixels of a frame", tuple(settings))


def batch_axis(clips: tuple[int, ...], base: tuple[str, ...]) -> Axis:
    """Vary the clips of a batch."""
    settings = (Setting(str(count), count, (*base, f"--batch-size={count}")) for count in clips)
    return Axis("batch", "clips of a batch", tuple(settings))


def channels_axis(factors: tuple[float, ...], base: tuple[str, ...]) -> Axis:
    """Vary the channels of all levels; attention heads have 16 channels at every width."""
    default = Config().MODEL_CHANNELS
    return Axis("channels", "times the channels", tuple(_width(default, factor, base) for factor in factors))


def _width(default: tuple[int, ...], factor: float, base: tuple[str, ...]) -> Setting:
    channels = ",".join(str(round(width * factor)) for width in default)
    options = (*base, f"--model-channels={channels}", f"--attention-head-channels={HEAD_CHANNELS}")
    return Setting(f"x {factor:g}", factor, options)


def _attention_option(side: int) -> str:
    config = Config()
    levels = [side // (config.PATCH_SIZE * 2**level) for level in range(len(config.MODEL_CHANNELS))]
    chosen = SPATIAL_ATTENTION_SIDE if SPATIAL_ATTENTION_SIDE in levels else levels[-1]
    return f"--spatial-attention-sizes={chosen}"


DEFAULT_PRESET = next(iter(PRESETS))
_PRESET = (f"--preset={DEFAULT_PRESET}", "--device=cpu")
FULL_AXES = (
    frames_axis((8, 16, 32, 64), _PRESET),
    pixels_axis((16, 32, 64, 128), _PRESET),
    batch_axis((1, 2, 4, 8, 16), _PRESET),
    channels_axis((0.5, 1.0, 1.5, 2.0), _PRESET),
)
QUICK_FRAMES = 4
_SMALL = (*_PRESET, f"--num-frames={QUICK_FRAMES}", "--batch-size=1")
QUICK_AXES = (
    frames_axis((QUICK_FRAMES, 8), _SMALL),
    pixels_axis((16, 32), _SMALL),
    batch_axis((1, 2), _SMALL),
    channels_axis((0.5, 1.0), _SMALL),
)
AXIS_NAMES = tuple(axis.name for axis in FULL_AXES)


def profile_options(side: int | None, *, quick: bool) -> tuple[str, ...]:
    """Return the options of the default preset, or of it at another image size; `quick` for a single short clip."""
    base = _SMALL if quick else _PRESET
    return base if side is None else (*base, f"--image-size={side}", _attention_option(side))
