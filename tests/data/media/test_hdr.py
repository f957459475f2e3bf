"""Colours of ordinary pictures, encoded here with the formulas of ITU-R BT.2100 and BT.2087, come back."""

import av
import numpy
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from data.media.decode import decode_media
from data.media.hdr import sdr_pixels
from data.rows import Media
from tests.shapes import stretched

HLG, PQ, SDR = ColorTrc.ARIB_STD_B67, ColorTrc.SMPTE2084, ColorTrc.BT709
COLOURS = [(220, 30, 30), (30, 200, 40), (40, 60, 210), (230, 230, 230), (128, 128, 128), (12, 20, 28), (0, 0, 0)]
BT709_TO_BT2020 = numpy.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def light(colour):
    """Linear light of an sRGB colour, 1 is white."""
    value = numpy.array(colour) / 255
    return numpy.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def hlg(scene):
    """HLG's signal, of light where 0.265 is the white of an ordinary picture: its signal is 75 %."""
    bright = 0.17883277 * numpy.log(numpy.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return numpy.where(scene <= 1 / 12, numpy.sqrt(3 * scene), bright)


def pq(nits):
    power = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def signal(linear, transfer):
    return hlg(0.26496 * linear) if transfer == HLG else pq(203 * linear)


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_colours_of_ordinary_pictures_come_back_and_white_nearly(transfer):
    wide = signal(light(COLOURS) @ BT709_TO_BT2020.T, transfer)
    shown = sdr_pixels((wide[None] * 65535).round().astype(numpy.uint16), transfer, is_wide=True)
    assert shown[0] == pytest.approx(numpy.array(COLOURS), abs=2)
    white = numpy.full((1, 1, 3), signal(1.0, transfer) * 65535).astype(numpy.uint16)
    assert 247 <= sdr_pixels(white, transfer, is_wide=True).min() <= 250


@pytest.mark.parametrize("transfer", [HLG, PQ])
def test_what_is_brighter_than_white_keeps_its_order_and_its_hue(transfer):
    brighter = signal(numpy.array([1.0, 1.5, 2.5, 3.7]), transfer) * 65535
    greys = numpy.repeat(brighter[None, :, None], 3, axis=2).astype(numpy.uint16)
    shades = sdr_pixels(greys, transfer, is_wide=False)[0, :, 0].tolist()
    assert sorted(set(shades)) == shades
    orange = signal(numpy.array([2.0, 1.0, 0.2]), transfer) * 65535
    red, green, blue = light(sdr_pixels(orange.astype(numpy.uint16)[None, None], transfer, is_wide=False)[0, 0])
    assert red / green == pytest.approx(2, rel=0.03)
    assert red / blue == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mov", "libx264"), ("a.mkv", "ffv1")])
@pytest.mark.parametrize("transfer", [HLG, PQ, SDR])
def test_red_of_a_video_comes_back(tmp_path, name, codec, transfer):
    """As telephones record it: 10 bits, with the wide colours and the matrix of BT.2020. SDR may have them too."""
    linear = light((220, 30, 30)) @ BT709_TO_BT2020.T
    encoded = 1.055 * linear ** (1 / 2.4) - 0.055 if transfer == SDR else signal(linear, transfer)
    red, _, blue = encoded
    luma = encoded @ numpy.array([0.2627, 0.6780, 0.0593])
    values = (64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "4"} if codec == "libx264" else {})
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p10le"
        frame = av.VideoFrame(32, 32, "yuv420p10le")
        for plane, value in zip(frame.planes, values, strict=True):
            plane.update(numpy.full(plane.buffer_size // 2, round(value), "<u2").tobytes())
        for tagged in (frame, stream.codec_context):
            tagged.colorspace, tagged.color_range = 9, 1  # BT.2020, not the full range
            tagged.color_trc, tagged.color_primaries = transfer, ColorPrimaries.BT2020
        for frame.pts in range(2):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = decode_media(tmp_path, Media("video", name), stretched(2, 16))
    assert clip.pixels_THWC.mean((0, 1, 2)) == pytest.approx([220, 30, 30], abs=4)
    assert clip.facts.changes == (() if transfer == SDR else ("tone-mapped",))
