"""Whether a store's notes give the gold labels away.

A language model that writes notes on a tweet names the same entities as the corpus, so many gold surfaces, and some
surfaces with their type, stand in honest notes too. What gives a leak away is a split that stands out: the published
scores are of test, and no model may have been shown its labels. Three things are looked for, each verbatim and with
no letter or digit right before or after it:

- surface: the gold entity's words, joined by single spaces, in the same case;
- pair: the surface, and close to it its type, be it as the corpus spells it (`ORG`, also as `B-ORG`) or as the
  English word (organization; person; location; other, miscellaneous), as in `Reds: ORG`, `Reds (company,
  organization)`, `organization: Reds`, `<ORG>Reds</ORG>` or, word by word, `Nova B-ORG Bank I-ORG`. Close is at
  most 30 characters behind the surface or 15 before it, with no line break, full stop, semicolon or closing bracket
  between, so that `Ada (person) 2. Oslo` says nothing of Oslo;
- label: such a pair with the type as the corpus spells it. Honest notes are prose and hardly have any.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence

from scanner_jax.types import Entity, Example

NAMES = {
    "PER": ("person",),
    "LOC": ("location",),
    "ORG": ("organization", "organisation"),
    "OTHER": ("other", "miscellaneous", "misc"),
    "MISC": ("other", "miscellaneous", "misc"),
}
"""English words for the types of the published corpora; another type goes by its own name."""

LEAST_POINTS = {"surface": 3.0, "pair": 3.0, "label": 0.5}
"""Percentage points by which a share must exceed train's to stand out ..."""

LEAST_ERRORS = 4.0
"""... and standard errors of the difference: chance alone exceeds this about once in 30,000."""

WORDS = {"surface": "the surface", "pair": "surface and type", "label": "surface and the corpus's own label"}

_BEHIND = r"[^\n.;)\]}]{0,30}?"
_BEFORE = r"[^\n.;)\]}]{0,15}?"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """How many of a split's examples have notes, and of its gold entities, how many are found in them, and how."""

    examples: int
    with_notes: int
    entities: int
    surface: int
    pair: int
    label: int

    def percent(self, what: str) -> float:
        """The share of `surface`, `pair` or `label`, in percent."""
        return 100 * getattr(self, what) / self.entities if self.entities else 0.0


def find_labels(examples: Sequence[Example], notes: Callable[[str], str | None]) -> Found:
    """Look for a split's gold entities in the notes of their own example.

    Args:
        examples: the split with its gold entities.
        notes: an example's notes by its id; without any, its entities are not found.
    """
    texts = [notes(example.id) or "" for example in examples]
    found = [
        _found(example, entity, text)
        for example, text in zip(examples, texts, strict=True)
        for entity in example.entities
    ]
    surface, pair, label = (sum(row[place] for row in found) for place in range(3))
    return Found(len(examples), sum(map(bool, texts)), len(found), surface, pair, label)


def leak_table(splits: Mapping[str, Found]) -> str:
    """Counts and shares of each split as text."""
    rows = [["split", "sentences", "with notes", "entities", *WORDS]]
    for split, found in splits.items():
        counts = [f"{n:,}" for n in (found.examples, found.with_notes, found.entities)]
        shares = [f"{getattr(found, what):,} ({found.percent(what):.2f} %)" for what in WORDS]
        rows.append([split, *counts, *shares])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def leak_warnings(splits: Mapping[str, Found]) -> list[str]:
    """Say in words which splits stand out against train; empty where none does.

    **Assumption:** a split stands out where a share exceeds train's by 4 standard errors and by 3 points, or half a
    point of the corpus's own labels.
    """
    train = splits.get("train")
    if train is None:
        return ["the corpus has no training split, so nothing tells which shares are usual"]
    return [
        f"{split} stands out: {WORDS[what]} of {found.percent(what):.2f} % of its gold entities in the notes, and of "
        f"{train.percent(what):.2f} % in train; look at its notes before a score with them is believed"
        for split, found in splits.items()
        for what in WORDS
        if split != "train" and _stands_out(found, train, what)
    ]


def _stands_out(found: Found, train: Found, what: str) -> bool:
    if not found.entities or not train.entities:
        return False
    gap = found.percent(what) - train.percent(what)
    share = (getattr(found, what) + getattr(train, what)) / (found.entities + train.entities)
    error = 100 * math.sqrt(share * (1 - share) * (1 / found.entities + 1 / train.entities))
    return gap >= LEAST_POINTS[what] and gap >= LEAST_ERRORS * error


def _found(example: Example, entity: Entity, text: str) -> tuple[bool, bool, bool]:
    """Whether surface, pair and label stand in a text."""
    words = example.words[entity.start : entity.end]
    if not all(word in text for word in words):  # spares most of the work
        return False, False, False
    surface = re.search(_whole(re.escape(" ".join(words))), text) is not None
    label = _near(words, _labels(entity.type), text)
    return surface, label or _near(words, _names(entity.type), text), label


def _near(words: Sequence[str], type_pattern: str, text: str) -> bool:
    """Whether the words, each with a BIO tag behind it or none, stand close to what the type's pattern matches."""
    surface = _whole(r"\s+(?:[BIES]-\w+\s+)?".join(map(re.escape, words)))
    return re.search(f"{surface}{_BEHIND}{type_pattern}|{type_pattern}{_BEFORE}{surface}", text) is not None


@functools.cache
def _labels(kind: str) -> str:
    return _whole(f"(?:[BIES]-)?{re.escape(kind)}")


@functools.cache
def _names(kind: str) -> str:
    names = NAMES.get(kind.upper(), (kind.replace("_", " "),))
    return f"(?i:{_whole('|'.join(map(re.escape, names)))})"


def _whole(pattern: str) -> str:
    return rf"(?<!\w)(?:{pattern})(?!\w)"
