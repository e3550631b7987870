"""Tagging schemes: entities from the tags of any of them, and which one a file was written in."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scanner_jax.tags import entities_from_tags
from scanner_jax.types import Entity

PREFIXES = ("B", "I", "E", "S", "L", "U")
"""Of BIOES and its parts, and BILOU's own names for E and S."""

_BEGINS = ("B", "S", "U")
_ENDS = ("E", "S", "L", "U")


class _Prefixes(NamedTuple):
    """What a scheme writes at an entity's only word, and at its first, inner and last ones."""

    only: str
    first: str
    inner: str
    last: str


SCHEMES = {
    "IOB2": _Prefixes("B", "B", "I", "I"),
    "IOB1": _Prefixes("I", "I", "I", "I"),  # and B where an entity follows another of its type
    "BIOES": _Prefixes("S", "B", "I", "E"),
    "BILOU": _Prefixes("U", "B", "I", "L"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class TagScheme:
    """The scheme that a split's tags follow, or come nearest to.

    Attributes:
        name: a key of `SCHEMES`; "" where no word is tagged.
        exceptions: tags that this scheme would not have written; they were read leniently.
        first: id of the first sentence with one, "" where there is none.
    """

    name: str
    exceptions: int = 0
    first: str = ""

    def __str__(self) -> str:
        if not self.name:
            return "O alone"
        if not self.exceptions:
            return self.name
        tags = "tag" if self.exceptions == 1 else "tags"
        return f"lenient (nearest {self.name}; {self.exceptions:,} {tags} break it, the first in {self.first})"


def read_tags(tags: Sequence[str]) -> tuple[Entity, ...]:
    """Read typed entities from tags of any scheme, or of several mixed, leniently (seqeval's default mode).

    An entity begins at B or S, and at any other tag that cannot go on with the one before: after O, after another
    type, after E or S. It ends before the next such place. L and U read as E and S. Where the tags are valid IOB1,
    IOB2, BIOES or BILOU, this is what they mean.

    Args:
        tags: one tag a word: O, or one of `PREFIXES`, a hyphen, and a type.

    Returns:
        The entities, sorted by start, non-overlapping.

    Raises:
        ValueError: a tag of another form.
    """
    bio = []
    ended = False
    for tag in tags:
        prefix, hyphen, kind = tag.partition("-")
        if hyphen and prefix in PREFIXES:
            bio.append(f"{'B' if ended or prefix in _BEGINS else 'I'}-{kind}")
        else:
            bio.append(tag)  # O, or what entities_from_tags refuses
        ended = prefix in _ENDS
    return entities_from_tags(bio)


def write_tags(scheme: str, length: int, entities: Iterable[Entity]) -> list[str]:
    """Write non-overlapping entities, sorted by start, as a scheme's tags for a sentence of `length` words."""
    tags = ["O"] * length
    prefixes, before = SCHEMES[scheme], Entity(-1, -1, "")
    for entity in entities:
        touches = (before.end, before.type) == (entity.start, entity.type)
        size = entity.end - entity.start
        longer = [prefixes.first, *[prefixes.inner] * (size - 2), prefixes.last]
        row = longer if size > 1 else [prefixes.only]
        if scheme == "IOB1" and touches:
            row[0] = "B"
        tags[entity.start : entity.end] = [f"{prefix}-{entity.type}" for prefix in row]
        before = entity
    return tags


def name_scheme(sentences: Iterable[tuple[str, Sequence[str], Sequence[Entity]]]) -> TagScheme:
    """Find the scheme that would have written the tags of a split, or the one with the fewest exceptions.

    Args:
        sentences: each sentence's id, its tags, and the entities that `read_tags` read from them.
    """
    exceptions = dict.fromkeys(SCHEMES, 0)
    first = dict.fromkeys(SCHEMES, "")
    tagged = False
    for identity, tags, entities in sentences:
        tagged = tagged or bool(entities)
        for scheme in SCHEMES if entities else ():
            written = write_tags(scheme, len(tags), entities)
            differing = sum(tag != other for tag, other in zip(tags, written, strict=True))
            exceptions[scheme] += differing
            first[scheme] = first[scheme] or (identity if differing else "")
    best = min(SCHEMES, key=exceptions.__getitem__)
    return TagScheme(best, exceptions[best], first[best]) if tagged else TagScheme("")
