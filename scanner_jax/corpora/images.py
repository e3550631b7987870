"""Compares the sizes that a corpus's XML files state with the images themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from scanner_jax.corpora.annotations import Annotation
from scanner_jax.images import UnreadableImage, find_images, image_size

FOLDER = "images"
"""Where a corpus may keep its images, below its own folder."""


def own_images(corpus: str | Path) -> Path | None:
    """The folder of images in a corpus's own folder, None where there is none."""
    folder = Path(corpus) / FOLDER
    return folder if folder.is_dir() else None


@dataclasses.dataclass(frozen=True, slots=True)
class ImageCheck:
    """How many images have the size that their XML file states, and which have not.

    Attributes:
        equal: how many.
        other: id, size and stated size of each that differs: its boxes do not fit it.
        missing: ids without a file.
        unreadable: ids whose file is no image, or one too large to be opened safely.
    """

    equal: int
    other: tuple[str, ...]
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]


def check_images(annotations: Mapping[str, Annotation], folder: Path) -> ImageCheck:
    """Compare each annotated image's size with what its XML file states, where that states one.

    Only the head of each file is read; a `.jpg` may be a PNG.

    Args:
        annotations: by image id.
        folder: of images, as `images.find_images` takes it.

    Raises:
        ImagesError: that cannot be used as a folder of images.
    """
    files = find_images(folder)
    equal, other, missing, unreadable = 0, [], [], []
    for image, annotation in annotations.items():
        if annotation.size is None:
            continue
        if image not in files:
            missing.append(image)
            continue
        try:
            size, stated = image_size(files[image]), annotation.size
        except UnreadableImage:
            unreadable.append(image)
            continue
        if size == stated:
            equal += 1
        else:
            other.append(f"{image} {size[0]} x {size[1]}, stated {stated[0]} x {stated[1]}")
    return ImageCheck(equal, tuple(other), tuple(missing), tuple(unreadable))
