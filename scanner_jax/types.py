"""The frozen records that travel through the project."""

from __future__ import annotations

import dataclasses

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels of the original image."""

BIO = ("O", "B", "I")
"""The detector's classes, in logit order: it finds spans and leaves their type to the recognizer."""

NON_ENTITY = "non-entity"
"""The recognizer's extra class for a candidate that stage 1 proposed by mistake (paper, section 3.2)."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Span:
    """Words `start` to `end` of a sentence, end exclusive."""

    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """A typed span of words, end exclusive; `boxes` are its gold boxes in the image, if any."""

    start: int
    end: int
    type: str
    boxes: tuple[Box, ...] = ()

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One sentence or tweet with its gold entities, sorted by start."""

    id: str
    words: tuple[str, ...]
    entities: tuple[Entity, ...] = ()
    image_id: str | None = None

    @property
    def text(self) -> str:
        """The words joined by single spaces."""
        return " ".join(self.words)

    def surface(self, span: Span | Entity) -> str:
        """The words of a span joined by single spaces."""
        return " ".join(self.words[span.start : span.end])

    def characters(self, span: Span | Entity) -> tuple[int, int]:
        """Start and end (exclusive) of a span in `text`, in characters."""
        start = sum(len(word) + 1 for word in self.words[: span.start])
        return start, start + len(self.surface(span))


@dataclasses.dataclass(frozen=True, slots=True)
class ImageObject:
    """One detected object: its box, the detector's label and score, and the caption of its region."""

    box: Box
    label: str
    score: float
    caption: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Knowledge:
    """What one candidate span was given besides its sentence; empty means not found or switched off.

    Two fields are no part of the prompt: `wikipedia_how` tells how the Wikipedia text was found, and `object_order`
    what the objects stand in order of.
    """

    wikipedia: str = ""
    notes: str = ""
    caption: str = ""
    objects: tuple[ImageObject, ...] = ()
    wikipedia_how: str = ""
    object_order: str = ""
