"""Find a folder's images, and open one whatever it really is."""

from __future__ import annotations

import contextlib
import math
import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from scanner_jax.types import Box

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
"""What the name of an image may end in; its content may be of another format."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")
"""What the content may be; none of these decoders starts a program or reads another file."""

PIXEL_LIMIT = 64 * 2**20
"""Pixels of the largest image that is decoded, 8,192 x 8,192: 512 MiB while it is converted."""

BYTE_LIMIT = 256 * 2**20
"""Bytes of the largest file; a photo that needs more is beyond `PIXEL_LIMIT` as well."""

LISTED = 20
"""Problems that an error lists."""


class ImagesError(ValueError):
    """A folder of images that can't be used as one; the message lists every problem."""


class UnreadableImage(ValueError):
    """An image that gives no pixels; the message is one of few texts, which failures are counted by."""


def find_images(folder: Path) -> dict[str, Path]:
    """Image id -> file, sorted by id, of all images in a folder and the folders in it.

    An image is a file whose name ends as an image's does; its id is the name without that ending. Hidden files are
    left out, and links to folders are not followed.

    Raises:
        ImagesError: no such folder, no image in it, or several files with one id.
    """
    if not folder.is_dir():
        what = "is a file; give the folder it is in" if folder.exists() else "does not exist"
        raise ImagesError(f"{folder} {what}")
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for place, _, names in os.walk(folder):
        for name in names:
            image_id = without_extension(name)
            if image_id and not name.startswith("."):
                found[image_id].append(Path(place, name))
    if not found:
        raise ImagesError(f"{folder} holds no file that is named like an image, such as 17_06_4705.jpg")
    problems = [
        f"  {image_id}: {', '.join(str(path.relative_to(folder)) for path in sorted(paths))}"
        for image_id, paths in sorted(found.items())
        if len(paths) > 1
    ]
    problems += [f"  {key!r}: not UTF-8; rename it" for key in found if key.encode(errors="replace").decode() != key]
    if problems:
        shown = problems[:LISTED] + [f"  and {len(problems) - LISTED:,} more"] * (len(problems) > LISTED)
        listed = "\n".join(shown)
        raise ImagesError(
            f"{folder}: an image's id is its file's name without the ending; change these names:\n{listed}"
        )
    return {image_id: found[image_id][0] for image_id in sorted(found)}


def without_extension(name: str) -> str:
    """An image's file name without its extension; "" where that is not an image's."""
    stem, dot, extension = name.rpartition(".")
    return stem if f"{dot}{extension}".lower() in EXTENSIONS else ""


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB, 8 bit; of an animation the first frame.

    The content decides the format, not the name. Transparency is dropped, as OpenCV does; CMYK, palettes, grey and
    16 bit are converted. A rotation noted in EXIF is not applied: boxes count pixels of the file as it is stored.

    Raises:
        UnreadableImage: missing, empty, no image, more than `PIXEL_LIMIT` pixels (told from the header, before
            anything is decoded), cut short or damaged.
    """
    with _opened(path) as image:
        try:
            image.load()
            return _rgb(image)
        except Exception as error:
            raise UnreadableImage("cut short or damaged") from error


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as its head states them; what is inside is not decoded.

    Raises:
        UnreadableImage: as `read_image`, but for what only decoding tells.
    """
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image whose head was read, small enough to be decoded."""
    try:
        size = path.stat().st_size
        if not size:
            raise UnreadableImage("empty file")
        if size > BYTE_LIMIT:
            raise UnreadableImage(f"file of more than {BYTE_LIMIT // 2**20} MiB")
        with path.open("rb") as file, _with_head(file) as image:
            yield image
    except FileNotFoundError:
        raise UnreadableImage("missing file") from None
    except OSError as error:
        raise UnreadableImage(f"cannot be read ({error.strerror or 'no reason given'})") from error


def _with_head(file: IO[bytes]) -> Image.Image:
    # Decoders raise all kinds of errors on damaged files, from struct.error to SyntaxError.
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnreadableImage("not an image") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(_too_large()) from None
    except Exception as error:
        raise UnreadableImage("damaged") from error
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise UnreadableImage(_too_large())
    if not width or not height:
        raise UnreadableImage("no pixels")
    return image


def _too_large() -> str:
    return f"more than {PIXEL_LIMIT:,} pixels"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bit grey, which convert() would cut off at 255
        image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # it is dropped, and converting would warn of it
    return image.convert("RGB")


def crop(image: Image.Image, box: Box) -> Image.Image | None:
    """The region of a box, cut to whole pixels outwards and to the image; None where less than a pixel is left."""
    x1, y1, x2, y2 = box
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image.width), min(y2, image.height)
    if not (x2 - x1 >= 1 and y2 - y1 >= 1):
        return None
    return image.crop((math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)))
