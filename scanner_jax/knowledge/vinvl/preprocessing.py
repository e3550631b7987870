"""A picture to the network's input: resized by Pillow, then blue, green, red from 0 to 255 less the mean."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN_BGR = (103.530, 116.280, 123.675)

SHORT, LONG = 600, 1000
"""Pixels of the shorter side, and of the longer one at most."""


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A resized image.

    Attributes:
        pixels: (height, width, 3), RGB, uint8: float32 would take four times the memory while it waits.
        original: width and height of the image before.
    """

    pixels: np.ndarray
    original: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]


def resized(width: int, height: int, short: int = SHORT, long: int = LONG) -> tuple[int, int]:
    """Width and height that VinVL gives an image: the shorter side `short`, less where the longer would exceed `long`.

    The longer side is cut off to whole pixels, so that it may be one less than `long`.
    """
    least, most = min(width, height), max(width, height)
    if most / least * short > long:
        short = round(long * least / most)
    if least == short:
        return width, height
    return (short, int(short * height / width)) if width < height else (int(short * width / height), short)


def prepare(image: Image.Image, short: int = SHORT, long: int = LONG) -> Prepared:
    """Resize an RGB image.

    Raises:
        ValueError: it is so narrow that a side would have no pixel.
    """
    size = resized(*image.size, short, long)
    if not min(size):
        raise ValueError(f"an image of {image.width} x {image.height} pixels cannot be resized to {size}")
    smaller = image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)
    return Prepared(np.array(smaller), image.size)


def pixels_to_input(pixels: np.ndarray, device: torch.device) -> Tensor:
    """(height, width, 3) to (3, height, width), in float32, blue first."""
    rgb = torch.from_numpy(pixels).to(device).permute(2, 0, 1).float()
    mean = torch.tensor(MEAN_BGR, device=device)
    # Through 0 to 1 and back, which rounds, as VinVL does.
    return (rgb / 255).flip(0) * 255 - mean[:, None, None]
