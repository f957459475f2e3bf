"""Still pictures to pixels."""

import numpy
from PIL import Image

BACKGROUND = (255, 255, 255)  # behind what is transparent: as most pages show it


def rgb_pixels(image: Image.Image) -> numpy.ndarray:
    """Return a picture of any mode as uint8 [H, W, 3]; what is transparent becomes white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return numpy.asarray(Image.alpha_composite(ground, layer).convert("RGB"))
    if image.mode.startswith("I") or image.mode == "F":  # more than 8 bits a pixel: convert() would cut, not scale
        values = numpy.asarray(image, dtype=numpy.float64)
        grey = (values / max(float(values.max()), 255.0) * 255).round().astype(numpy.uint8)
        return numpy.repeat(grey[:, :, None], 3, axis=2)
    return numpy.asarray(image.convert("RGB"))
