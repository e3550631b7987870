"""An answer as HTML: Jinja escapes whatever is put into it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scanner_jax.app.answering import Answer
from scanner_jax.drawing import COLOURS
from scanner_jax.gallery.page import escaping_environment, shortened
from scanner_jax.questions import Entity, Prediction
from scanner_jax.types import Box, Knowledge

FOLDER = Path(__file__).parent

_TEMPLATES = escaping_environment(FOLDER)

NAMES = {"wikipedia": "Wikipedia", "notes": "notes", "caption": "caption", "objects": "objects"}
"""What the page calls the fields of `Knowledge`."""


class Row(NamedTuple):
    """An entity with its number on the page and its type's colour."""

    number: int
    entity: Entity
    colour: str


class Piece(NamedTuple):
    """A part of the text, and the entity that it is, if it is one."""

    text: str
    row: Row | None


class Line(NamedTuple):
    """One kind of what was known of a span: its name, how it was found, and what it is, or why there is none."""

    name: str
    how: str
    known: str | tuple[str, ...]
    missing: str


class Told(NamedTuple):
    """A span that the detector proposed, what the recognizer took it for (None: no entity), and what it was told."""

    text: str
    row: Row | None
    lines: tuple[Line, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A box over the picture, in its pixels."""

    row: Row
    x: float
    y: float
    width: float
    height: float


def render(answer: Answer, labels: Sequence[str]) -> str:
    """Write an answer as HTML.

    Args:
        answer: what was found.
        labels: the model's types, in whose order colours are given.
    """
    found = answer.prediction
    rows = rows_of(found, labels) if found else []
    return _TEMPLATES.get_template("answer.html.jinja").render(
        answer=answer,
        rows=rows,
        pieces=list(pieces(found.words.text, rows)) if found else [],
        frames=[_frame(row, row.entity.box) for row in rows if row.entity.box],
        told=told(answer, rows),
    )


def render_head(labels: Sequence[str], kinds: Sequence[str], name: str) -> str:
    """Write what stands above the page: the model's name, its types, and what it was trained with."""
    coloured = [(label, _colour(labels, label)) for label in labels]
    return _TEMPLATES.get_template("head.html.jinja").render(
        labels=coloured, kinds=[NAMES[kind] for kind in kinds], name=name
    )


def rows_of(prediction: Prediction, labels: Sequence[str]) -> list[Row]:
    """The entities, numbered in the text's order."""
    numbered = enumerate(prediction.entities, start=1)
    return [Row(number, entity, _colour(labels, entity.label)) for number, entity in numbered]


def pieces(text: str, rows: Sequence[Row]) -> Iterator[Piece]:
    """Cut a text at its entities; of those that overlap the first one stands."""
    place = 0
    for row in sorted(rows, key=lambda row: (row.entity.start, -row.entity.end)):
        start, end = row.entity.start, row.entity.end
        if start < place:
            continue
        if place < start:
            yield Piece(text[place:start], None)
        yield Piece(text[start:end], row)
        place = end
    if place < len(text):
        yield Piece(text[place:], None)


def told(answer: Answer, rows: Sequence[Row]) -> list[Told]:
    """What was known of every span, entity or not."""
    if answer.prediction is None:
        return []
    words, by_place = answer.prediction.words, {(row.entity.start, row.entity.end): row for row in rows}
    found = []
    for span, known in answer.prediction.knowledge.items():
        start, end = words.characters(span.start, span.end)
        lines = (_line(kind, known, missing) for kind, missing in answer.missing.items())
        found.append(Told(words.text[start:end], by_place.get((start, end)), tuple(lines)))
    return found


def _line(kind: str, known: Knowledge, missing: str) -> Line:
    value = getattr(known, kind)
    if kind == "objects":
        said = [f"{item.label} {item.score:.2f}" + (f": {item.caption}" if item.caption else "") for item in value]
        return Line(NAMES[kind], f"by {known.object_order}" if known.object_order else "", tuple(said), missing)
    return Line(NAMES[kind], known.wikipedia_how if kind == "wikipedia" else "", shortened(value), missing)


def _frame(row: Row, box: Box) -> Frame:
    x1, y1, x2, y2 = (round(side, 2) for side in box)
    return Frame(row, x1, y1, round(x2 - x1, 2), round(y2 - y1, 2))


def _colour(labels: Sequence[str], label: str) -> str:
    return COLOURS[labels.index(label) % len(COLOURS)]
