"""Reads the boxes of a corpus: a Pascal VOC file an image, `xml/<image id>.xml`, whose objects bear entities' names."""

from __future__ import annotations

import collections
import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from scanner_jax.corpora.problems import Problem
from scanner_jax.types import Box, Example

FOLDER = "xml"
"""Of a corpus's folder."""

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_BOX = f"<bndbox> with {', '.join(f'<{corner}>' for corner in _CORNERS)}, each one number of pixels"


@dataclasses.dataclass(frozen=True, slots=True)
class Annotation:
    """What one XML file says.

    Attributes:
        objects: name and box of each object, in the file's order; boxes without an area are not among them.
        size: width and height of the image in pixels, as stated; None where the file states none.
        odd: what is wrong with boxes that can be told and passed over, in words.
    """

    objects: tuple[tuple[str, Box], ...] = ()
    size: tuple[int, int] | None = None
    odd: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Orphan:
    """A name in an XML file that is no entity's of the image's tweets; `near` is the most similar one that is."""

    image_id: str
    name: str
    near: str = ""

    def __str__(self) -> str:
        return f"{self.image_id} {self.name!r}" + (f" (perhaps {self.near!r})" if self.near else "")


def read_annotations(folder: Path, problems: list[Problem]) -> dict[str, Annotation]:
    """Read every XML file of a corpus's `xml/` folder.

    A file's own name gives the image id, since the `<filename>` in it is wrong in many. The XML is parsed without
    entities and external references.

    Args:
        folder: of the corpus.
        problems: receives what cannot be read: broken XML, an object without a name or with a box that is no box.

    Returns:
        Image id -> what its file says, sorted by id; empty where there is no `xml/`.
    """
    return {path.stem: _read(path, problems) for path in sorted((folder / FOLDER).glob("*.xml"))}


def with_boxes(example: Example, annotations: Mapping[str, Annotation]) -> Example:
    """Give entities the boxes of the objects that bear their surface, in the file's order.

    Equal mentions of a tweet share their boxes. An entity whose surface is no object's name, or whose image has no
    file, is not groundable and has no box.
    """
    annotation = annotations.get(example.image_id or "")
    if annotation is None or not example.entities:
        return example
    boxes: dict[str, list[Box]] = collections.defaultdict(list)
    for name, box in annotation.objects:
        boxes[name].append(box)
    entities = tuple(
        dataclasses.replace(entity, boxes=tuple(boxes.get(example.surface(entity), ()))) for entity in example.entities
    )
    return dataclasses.replace(example, entities=entities)


def find_orphans(examples: Iterable[Example], annotations: Mapping[str, Annotation]) -> list[Orphan]:
    """Names that match no entity: case counts, and so does every space.

    Args:
        examples: of all splits, since an image's file speaks for all its tweets.
        annotations: by image id; a file of an image that no tweet has makes no orphans.
    """
    surfaces: dict[str, set[str]] = collections.defaultdict(set)
    images = set()
    for example in examples:
        image = example.image_id or ""
        images.add(image)
        surfaces[image].update(map(example.surface, example.entities))
    return [
        Orphan(image, name, next(iter(difflib.get_close_matches(name, sorted(surfaces[image]), n=1)), ""))
        for image, annotation in annotations.items()
        if image in images
        for name in dict.fromkeys(name for name, _ in annotation.objects)
        if name not in surfaces[image]
    ]


def _read(path: Path, problems: list[Problem]) -> Annotation:
    try:
        root = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except (ParseError, DefusedXmlException, ValueError) as error:
        found = f"XML that cannot be read ({error or type(error).__name__})"
        problems.append(Problem(str(path), None, found, "a Pascal VOC file without a DTD"))
        return Annotation()
    except OSError as error:
        problems.append(Problem(str(path), None, f"can't be read ({error.strerror})", "a readable file"))
        return Annotation()
    size = _size(root)
    objects, odd = [], []
    for number, item in enumerate(root.findall("object"), start=1):
        name, box = _name(item), _box(item)
        if not name:
            problems.append(
                Problem(str(path), None, f"object {number} without a name", "<name> with an entity's words")
            )
        elif box is None:
            problems.append(Problem(str(path), None, f"object {number}, {name!r}: no box", _BOX))
        elif box[0] >= box[2] or box[1] >= box[3]:
            odd.append(f"{path.stem} {name!r}: {_shown(box)} has no area, left out")
        else:
            objects.append((name, box))
            if size and (min(box[:2]) < 0 or box[2] > size[0] or box[3] > size[1]):
                odd.append(f"{path.stem} {name!r}: {_shown(box)} reaches out of {size[0]} x {size[1]}, kept as it is")
    return Annotation(tuple(objects), size, tuple(odd))


def _name(item: Element) -> str:
    """An object's name; XML's own white space is one blank, a no-break space is part of a word."""
    return re.sub("[ \t\r\n]+", " ", item.findtext("name") or "").strip(" ")


def _box(item: Element) -> Box | None:
    """An object's only box, None where it has none, several, or one that is not four finite numbers."""
    boxes = item.findall("bndbox")
    corners = [[found.text or "" for found in box.findall(corner)] for box in boxes for corner in _CORNERS]
    try:
        ((x1,), (y1,), (x2,), (y2,)) = [[float(text) for text in texts] for texts in corners]
    except ValueError:
        return None
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def _size(root: Element) -> tuple[int, int] | None:
    """Width and height as stated; some tools write zeros where they do not know."""
    try:
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _shown(box: Box) -> str:
    return "[" + ", ".join(f"{corner:g}" for corner in box) + "]"
