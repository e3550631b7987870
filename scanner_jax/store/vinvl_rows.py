"""What either form of VinVL's output says of an image, and which of its objects are any."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scanner_jax.types import Box, ImageObject

LABELS = ("attr_obj", "objects")
"""What an object's label may be: its class with its attributes (`red car`), or alone (`car`)."""

LONGEST_SIDE = 20_000
"""Pixels; a coordinate beyond it is none of an image's."""

_SLACK = 1.0  # pixels that a box may reach beyond its image

_LEAST_ATTRIBUTE, _LEAST_COMMON_ATTRIBUTE = 0.01, 0.1
_COMMON_ATTRIBUTES = frozenset(
    """white black blue green red brown yellow small large silver wooden wood orange gray grey metal pink tall long dark
    purple""".split()
)
_SAME_ATTRIBUTE = {"blonde": "blond"}


class Row(NamedTuple):
    """One image: its id, the file (and line) it was read from, and its objects.

    Its sides are in pixels, None where they are not known; `without_attributes` says that attributes were asked for,
    and that an object had none, not even an empty list.
    """

    image: str
    place: str
    objects: tuple[tuple[Box, str, float], ...]
    width: float | None = None
    height: float | None = None
    without_attributes: bool = False


def with_attributes(name: str, attributes: Sequence[str], scores: Sequence[float]) -> str:
    """A class's name behind the attributes that VinVL's demo would show: the likely ones, the likeliest last."""
    likely: defaultdict[str, float] = defaultdict(float)
    for attribute, score in zip(attributes, scores, strict=True):
        if score > (_LEAST_COMMON_ATTRIBUTE if attribute in _COMMON_ATTRIBUTES else _LEAST_ATTRIBUTE):
            likely[_SAME_ATTRIBUTE.get(attribute, attribute)] += score
    shown = ",".join(sorted(likely, key=lambda attribute: likely[attribute]))
    return " ".join(filter(None, [shown, name]))


def valid_objects(row: Row) -> tuple[tuple[ImageObject, ...], list[str]]:
    """The objects that are valid, best first and equal ones in their order, and what was dropped and why."""
    width, height = (side if side and 0 < side <= LONGEST_SIDE else LONGEST_SIDE for side in (row.width, row.height))
    objects: list[ImageObject] = []
    dropped: list[str] = []
    for number, (box, label, score) in enumerate(row.objects):
        if reason := _fault(box, label, score, width, height):
            dropped.append(f"{Path(row.place).name} object {number} ({reason})")
        else:
            objects.append(ImageObject(box, label.strip(), score))
    return tuple(sorted(objects, key=lambda item: -item.score)), dropped


def _fault(box: Box, label: str, score: float, width: float, height: float) -> str:
    x1, y1, x2, y2 = box
    if not all(map(math.isfinite, (*box, score))):
        return "not finite"
    if not (x1 < x2 and y1 < y2):
        return "no area"
    if min(x1, y1) < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
        return "outside the image"
    if not 0 <= score <= 1:
        return "score outside 0 to 1"
    return "" if label.strip() else "empty label"
