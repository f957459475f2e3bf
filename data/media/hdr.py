"""Pictures of high dynamic range (HLG, PQ) or of BT.2020's wide colours, as an ordinary screen shows them."""

import functools

import numpy
from av.video.reformatter import ColorTrc

HDR_TRANSFERS = (ColorTrc.ARIB_STD_B67, ColorTrc.SMPTE2084)  # HLG and PQ
# Where ITU-R BT.2408 puts the white of an ordinary picture: at 75 % of HLG's signal, and at 203 cd/m2.
_HLG_WHITE_SIGNAL, _PQ_WHITE = 0.75, 203.0
_KNEE = 0.9  # of that white, in linear light: what is darker stays as it is, what is brighter is compressed
_ROWS_AT_ONCE = 64  # as numbers of 32 bits, a large picture would take hundreds of megabytes
_MOST = (1 << 16) - 1  # of 16 bits
_BT2020_TO_BT709 = numpy.array(  # ITU-R BT.2087, linear light
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], numpy.float32
)


def sdr_pixels(pixels: numpy.ndarray, transfer: int, *, is_wide: bool) -> numpy.ndarray:
    """Convert a picture to sRGB.

    Colours that an ordinary picture can hold come back as they were, up to 90 % of white's light. White becomes 249 of
    255. What is brighter lies above, with its hue.

    Args:
        pixels: uint16 [H, W, 3], the signal; the result is uint8 [H, W, 3].
        transfer: how the signal stands for light, as FFmpeg numbers it; sRGB unless it is one of HDR_TRANSFERS.
        is_wide: whether the colours are those of BT.2020, not of BT.709.
    """
    light, signal = _light(transfer), _signal()
    result = numpy.empty(pixels.shape, numpy.uint8)
    for top in range(0, len(pixels), _ROWS_AT_ONCE):
        rows = light[pixels[top : top + _ROWS_AT_ONCE]]
        if is_wide:
            rows = rows @ _BT2020_TO_BT709.T
        if transfer in HDR_TRANSFERS and rows.max() > _KNEE:
            brightest = functools.reduce(numpy.maximum, numpy.moveaxis(rows, 2, 0))[:, :, None]
            over = (brightest - _KNEE).clip(0) / (1 - _KNEE)
            rows *= (brightest.clip(0, _KNEE) + (1 - _KNEE) * over / (1 + over)) / brightest.clip(1e-6)
        result[top : top + _ROWS_AT_ONCE] = signal[(rows.clip(0, 1) * _MOST).astype(numpy.uint16)]
    return result


@functools.cache
def _light(transfer: int) -> numpy.ndarray:
    """Return the linear light of every 16-bit signal, where 1 is the white of an ordinary picture: float32 [65536].

    HLG describes the scene. It is taken as it is, without the gamma of a bright screen, as a camera for ordinary
    pictures would have recorded it (the scene-referred mapping of BT.2408). The formulas are those of ITU-R BT.2100.
    """
    signal = numpy.arange(_MOST + 1) / _MOST
    if transfer == ColorTrc.ARIB_STD_B67:
        light = _hlg_light(signal) / _hlg_light(numpy.array(_HLG_WHITE_SIGNAL))
    elif transfer == ColorTrc.SMPTE2084:
        root = signal ** (32 / 2523)
        light = 10_000 / _PQ_WHITE * ((root - 107 / 128).clip(0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
    else:
        light = numpy.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    return light.astype(numpy.float32)


def _hlg_light(signal: numpy.ndarray) -> numpy.ndarray:
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return numpy.where(signal <= 0.5, signal**2 / 3, (numpy.exp((signal - c) / a) + b) / 12)


@functools.cache
def _signal() -> numpy.ndarray:
    """Return the sRGB signal of light from 0 to 1, in 65536 steps: uint8 [65536]."""
    light = numpy.arange(_MOST + 1) / _MOST
    signal = numpy.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (signal * 255).round().astype(numpy.uint8)
