"""Training labels that a teacher doubts (paper, Table 2): those with the lowest alpha.

Alpha is the teacher's probability of the gold class, which Trust Your Teacher takes as its trust in the label.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from scanner_jax.tags import bio_labels
from scanner_jax.types import BIO, NON_ENTITY, Example, Span


class Judged(NamedTuple):
    """One training label with the teacher's view of it."""

    alpha: float
    teacher: str
    example: Example
    span: Span
    label: str
    opinion: str
    opinion_probability: float

    def record(self) -> dict[str, Any]:
        """The label as one line of suspect_labels.jsonl."""
        return {
            "teacher": self.teacher,
            "id": self.example.id,
            "start": self.span.start,
            "end": self.span.end,
            "text": self.example.surface(self.span),
            "label": self.label,
            "alpha": float(f"{self.alpha:.6g}"),
            "opinion": self.opinion,
            "opinion_probability": float(f"{self.opinion_probability:.6g}"),
            "sentence": self.example.text,
        }


def judged_words(examples: Sequence[Example], logits: Sequence[Float[np.ndarray, "w c"]]) -> Iterator[Judged]:
    """Each word's gold tag (B, I or O) with the detector teacher's view of it.

    Args:
        examples: the training sentences with their gold entities.
        logits: the teacher's for each sentence: one row over `BIO` per word.
    """
    for example, rows in zip(examples, logits, strict=True):
        labels = bio_labels(len(example.words), example.entities)
        for word, (label, row) in enumerate(zip(labels, probabilities(rows), strict=True)):
            yield _judged("detector", example, Span(word, word + 1), BIO, label, row)


def judged_candidates(
    candidates: Sequence[tuple[Example, Span]], logits: Float[np.ndarray, "n c"], *, types: Sequence[str]
) -> Iterator[Judged]:
    """Each training candidate's gold class with the recognizer teacher's view of it.

    Args:
        candidates: gold entities and mined non-entities, each with its sentence.
        logits: the teacher's: one row per candidate over the types in order, then *non-entity*.
        types: the entity types.
    """
    classes = (*types, NON_ENTITY)
    for (example, span), row in zip(candidates, probabilities(logits), strict=True):
        gold = {entity.span: entity.type for entity in example.entities}.get(span, NON_ENTITY)
        yield _judged("recognizer", example, span, classes, classes.index(gold), row)


def lowest_alpha(judged: Iterable[Judged], *, keep: int) -> list[Judged]:
    """The `keep` labels with the lowest alpha, lowest first; equal ones in the order in which they came."""
    return heapq.nsmallest(keep, judged, key=lambda item: item.alpha)


def probabilities(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
    """The softmax of each row, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _judged(
    teacher: str, example: Example, span: Span, classes: Sequence[str], label: int, row: Float[np.ndarray, " c"]
) -> Judged:
    best = int(row.argmax())
    return Judged(float(row[label]), teacher, example, span, classes[label], classes[best], float(row[best]))
