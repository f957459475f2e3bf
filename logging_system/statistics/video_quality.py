"""How good the training clips themselves are: four numbers that expose grey, blurred or frozen data."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


GREY_LEVEL = 2 / 255  # one step of an 8-bit picture in the range -1 to 1


def video_quality(video_BCTHW: Tensor) -> dict[str, Tensor]:
    """Return scalars on the device: contrast, sharpness and, for two frames and more, motion_energy and frozen_share.

    Args:
        video_BCTHW: RGB in [-1, 1], any float dtype. Clips with a non-finite value are the caller's to leave out.

    contrast is the standard deviation of a frame's brightness, sharpness the mean absolute difference of neighbouring
    pixels, motion_energy the mean absolute change from frame to frame, all in units of brightness (range -1 to 1).
    frozen_share is the share of frame pairs in which no pixel changes by more than one grey level.
    """
    brightness_BTHW = brightness(video_BCTHW)
    quality = {
        "contrast": brightness_BTHW.flatten(2).std(dim=2, correction=0).mean(),
        "sharpness": sharpness(brightness_BTHW).mean(),
    }
    if brightness_BTHW.shape[1] > 1:
        change_BTHW = (brightness_BTHW[:, 1:] - brightness_BTHW[:, :-1]).abs()
        quality["motion_energy"] = change_BTHW.mean()
        quality["frozen_share"] = (change_BTHW.amax(dim=(2, 3)) <= GREY_LEVEL).float().mean()
    return quality


def brightness(video_BCTHW: Tensor) -> Tensor:
    """Return the brightness of every pixel: [B, T, H, W] float32, on the device."""
    weights = torch.tensor(LUMA, device=video_BCTHW.device)
    return torch.einsum("bcthw,c->bthw", video_BCTHW.detach().float(), weights)


def sharpness(brightness_BTHW: Tensor) -> Tensor:
    """Return the mean absolute difference of neighbouring pixels of each clip: [B] float32, on the device."""
    horizontal = (brightness_BTHW[..., 1:] - brightness_BTHW[..., :-1]).abs().flatten(1).mean(dim=1)
    vertical = (brightness_BTHW[..., 1:, :] - brightness_BTHW[..., :-1, :]).abs().flatten(1).mean(dim=1)
    return (horizontal + vertical) / 2
