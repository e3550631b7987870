"""BIO tags <-> spans, and words <-> sub-words."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from scanner_jax.types import BIO, Entity, Span


def entities_from_tags(tags: Sequence[str]) -> tuple[Entity, ...]:
    """Read typed entities from IOB1 or IOB2 tags, leniently, as published scores do.

    An entity begins at `B-`, and also at an `I-` that follows `O` or another type (seqeval's default
    mode, conlleval). The same reading is right for IOB1, IOB2 and for tags that are neither.

    Args:
        tags: one tag a word: `O`, `B-TYPE` or `I-TYPE`.

    Returns:
        The entities, sorted by start, non-overlapping.

    Raises:
        ValueError: a tag of another form.
    """
    entities: list[Entity] = []
    start, current = 0, ""
    for index, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not kind):
            raise ValueError(f"tag {tag!r} at word {index}: expected O, B-TYPE or I-TYPE")
        if current and (prefix != "I" or kind != current):
            entities.append(Entity(start, index, sys.intern(current)))  # a type is one string in memory
            current = ""
        if kind and not current:
            start, current = index, kind
    return tuple(entities)


def tags_from_entities(length: int, entities: Iterable[Entity]) -> list[str]:
    """Write non-overlapping entities as IOB2 tags for a sentence of `length` words."""
    tags = ["O"] * length
    for entity in entities:
        tags[entity.start] = f"B-{entity.type}"
        tags[entity.start + 1 : entity.end] = [f"I-{entity.type}"] * (entity.end - entity.start - 1)
    return tags


def bio_labels(length: int, spans: Iterable[Span | Entity]) -> list[int]:
    """The detector's gold: one index into `BIO` per word, types dropped."""
    outside, begin, inside = range(len(BIO))
    labels = [outside] * length
    for span in spans:
        labels[span.start] = begin
        labels[span.start + 1 : span.end] = [inside] * (span.end - span.start - 1)
    return labels


def spans_from_bio(labels: Sequence[int]) -> tuple[Span, ...]:
    """Decode one `BIO` index per word; an `I` without a `B` before it begins a span."""
    tags = ["O" if label == 0 else f"{BIO[label]}-X" for label in labels]
    return tuple(entity.span for entity in entities_from_tags(tags))
