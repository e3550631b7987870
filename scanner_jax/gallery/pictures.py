"""Images small enough for a page, as data URIs."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

from PIL import Image

from scanner_jax.images import read_image

LONGEST_SIDE = 480
"""Pixels in a gallery; a larger image is made smaller."""

QUALITY = 80
"""JPEG's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Picture:
    """An image with its real size, in whose pixels boxes count, and that at which it is shown."""

    uri: str
    width: int
    height: int
    shown_width: int
    shown_height: int


def read_picture(path: Path, *, longest_side: int = LONGEST_SIDE) -> Picture:
    """Read an image and make it small.

    Raises:
        UnreadableImage: as `images.read_image`.
    """
    image = read_image(path)
    small = image.copy()
    small.thumbnail((longest_side, longest_side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY, optimize=True)
    uri = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
    return Picture(uri, *image.size, *small.size)
