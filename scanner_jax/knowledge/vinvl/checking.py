"""Does a checkpoint find what published npz files say that VinVL found on the same images?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scanner_jax.images import find_images, read_image, without_extension
from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.detector import Detections, Detector, Options
from scanner_jax.knowledge.vinvl.formats import read_features
from scanner_jax.knowledge.vinvl.labels import Labels
from scanner_jax.knowledge.vinvl.preprocessing import prepare

SAME_BOX = 0.9
"""IoU from which two boxes are one: another version of a JPEG decoder moves them by parts of a pixel."""

ENOUGH = 0.95
"""Share of the published objects that must be found again."""


@dataclasses.dataclass(frozen=True, slots=True)
class Agreement:
    """What an image's objects have in common with the published ones.

    Attributes:
        image: its id.
        regression: as of `Options`.
        published: objects in the npz.
        boxes: of them, those with a box of ours.
        objects: of those, with a box of ours of the same class.
        score: median difference of these.
        feature: median cosine of these.
    """

    image: str
    regression: bool
    published: int
    boxes: int
    objects: int
    score: float
    feature: float


def compare(detector: Detector, labels: Labels, folder: Path) -> Iterator[Agreement]:
    """Run the detector over each image that a folder has an npz of, with and without regression, and compare.

    Args:
        detector: its options are set here.
        labels: names of its classes.
        folder: of `IMAGE.npz` or `IMAGE.jpg.npz` files, with the images there or in folders below.

    Raises:
        ModelError: no npz, or one without its image, or one that can't be read.
    """
    images = find_images(folder)
    paths = {without_extension(path.name[:-4]) or path.name[:-4]: path for path in sorted(folder.glob("*.npz"))}
    paths = {image: path for image, path in paths.items() if _has_boxes(path)}
    if not paths:
        raise ModelError(f"{folder} holds no .npz file with bounding_boxes; give a folder of VinVL's npz files")
    if missing := [image for image in paths if image not in images]:
        raise ModelError(f"{folder} holds no image for {', '.join(missing)}; put them beside the npz files, or below")
    for image, path in paths.items():
        held = read_features(path)
        prepared = prepare(read_image(images[image]))
        for regression in (True, False):
            detector.options = Options(regression=regression)
            (found,) = detector([prepared])
            yield agreement(image, regression, held, found, labels)


def agreement(
    image: str, regression: bool, held: dict[str, np.ndarray], found: Detections, labels: Labels
) -> Agreement:
    """Match each published object with our best-overlapping one of its class."""
    overlaps = iou(held["bounding_boxes"], found.boxes) >= SAME_BOX
    classes = np.array([labels.classes[number] for number in found.labels], np.str_)
    same = overlaps & (held["objects"][:, None] == classes[None])
    rows = same.any(1).nonzero()[0]
    ours = same[rows].argmax(1)
    scores = np.abs(held["scores"][rows] - found.scores[ours])
    a, b = held["box_features"][rows], found.features[ours]
    cosines = (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return Agreement(
        image,
        regression,
        len(overlaps),
        int(overlaps.any(1).sum()),
        len(rows),
        float(np.median(scores)) if len(rows) else float("nan"),
        float(np.median(cosines)) if len(rows) else float("nan"),
    )


def iou(a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of all pairs; 0 where neither box has area."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def _has_boxes(path: Path) -> bool:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "bounding_boxes" in arrays.files
    except (OSError, ValueError, EOFError):
        return True  # read_features says what is wrong
