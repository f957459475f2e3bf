"""Are the colours as strong as in real clips?"""

from torch import Tensor


def chroma(video_NCTHW: Tensor) -> Tensor:
    """Return each clip's mean chroma, the largest minus the smallest of red, green and blue of a pixel: [N] float32.

    Strong guidance raises it above that of real clips (Saharia et al. 2022, section 2.3). Chroma is that of the
    hexcone model (Smith 1978); grey has 0.

    Args:
        video_NCTHW: RGB in [-1, 1].
    """
    video = video_NCTHW.float()
    return (video.amax(dim=1) - video.amin(dim=1)).flatten(1).mean(dim=1)
