"""From the recognizer's logits to entities: a type or non-entity, and one of the prompt's objects or None.

**Assumption:** the paper gives no threshold of the overlap score below which the answer is None; the one that is best
on dev is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scanner_jax.candidates import Candidate
from scanner_jax.grounding import is_region
from scanner_jax.predictions import Predicted
from scanner_jax.types import NON_ENTITY, Box, Entity, Example, Span

TypeLogits = Float[np.ndarray, "n c"]
"""One row per candidate: the entity types in order, then non-entity."""

DEFAULT_THRESHOLD = 0.5
"""**Assumption:** what an overlap score must exceed to give a box where there is no dev split to choose it on."""


class Judgement(NamedTuple):
    """What the recognizer says of each candidate: logits of its type, and of every object's overlap with it.

    Objects stand in the prompt's order; -inf where the prompt has no more of them.
    """

    types: TypeLogits
    overlaps: Float[np.ndarray, "n o"]


def decode(
    classes: Sequence[str],
    examples: Sequence[Example],
    candidates: Sequence[Candidate],
    judgement: Judgement,
    *,
    boxes: Sequence[Sequence[Box]] | None,
) -> list[list[Predicted]]:
    """Each example's entities with the probability of their type; candidates judged non-entities are left out.

    Where boxes are given, every entity whose prompt had an object gets the box of the one with the highest overlap
    score, the first of equals; `above` takes those away that score too low. A span that is a candidate twice is one
    entity, its last. Candidates that overlap are judged each for itself, and may all be entities.

    Args:
        classes: the types in logit order, then non-entity.
        examples: of the candidates, and in the order of the result.
        candidates: what was asked about.
        judgement: a row for each.
        boxes: of the objects in each candidate's prompt; None leaves boxes alone.
    """
    probabilities = np.exp(judgement.types - judgement.types.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    found: dict[str, dict[Span, Predicted]] = {example.id: {} for example in examples}
    for index, (example, span) in enumerate(candidates):
        own, row = found[example.id], probabilities[index]
        own.pop(span, None)
        best = int(row.argmax())
        if classes[best] == NON_ENTITY:
            continue
        entity, box_score = Entity(span.start, span.end, classes[best]), None
        if boxes is not None and boxes[index]:
            overlaps = judgement.overlaps[index, : len(boxes[index])]
            chosen = int(overlaps.argmax())
            entity = dataclasses.replace(entity, boxes=(boxes[index][chosen],))
            box_score = float(np.exp(-np.logaddexp(0, -np.float64(overlaps[chosen]))))
        own[span] = Predicted(entity, float(row[best]), box_score)
    return [list(found[example.id].values()) for example in examples]


def above(decoded: Sequence[Sequence[Predicted]], threshold: float) -> list[list[Predicted]]:
    """Keep the boxes whose overlap score is above the threshold; the other entities' answer is None."""
    return [
        [item if item.box_score is None or item.box_score > threshold else _without_box(item) for item in found]
        for found in decoded
    ]


def best_threshold(gold: Sequence[Sequence[Entity]], decoded: Sequence[Sequence[Predicted]]) -> float:
    """The threshold for `above` that gives the highest GMNER F1.

    Neither the number of predictions nor that of gold entities depends on it, so the highest F1 is where most regions
    are right. It lies in the middle between two scores, or is 0 (all boxes) or 1 (none); of equally good ones the one
    nearest to 0.5 is taken.

    Args:
        gold: the gold entities of each sentence.
        decoded: what `decode` made of them, with all boxes.
    """
    scores, gains = [], []
    for wanted, found in zip(gold, decoded, strict=True):
        by_span = {entity.span: entity for entity in wanted}
        for entity, _, box_score in found:
            real = by_span.get(entity.span)
            if real is not None and real.type == entity.type and box_score is not None:
                scores.append(box_score)
                gains.append(int(is_region(None, real.boxes)) - int(is_region(entity.boxes[0], real.boxes)))
    if not scores:
        return DEFAULT_THRESHOLD
    # Raised past a score, a threshold turns that entity's box into None, and wins or loses what that is worth.
    distinct, places = np.unique(scores, return_inverse=True)
    won = np.concatenate([[0], np.cumsum(np.bincount(places, weights=gains, minlength=len(distinct)))])
    thresholds = np.concatenate([[0.0], (distinct[:-1] + distinct[1:]) / 2, [1.0]])
    best = thresholds[won == won.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def entities_of(decoded: Sequence[Sequence[Predicted]]) -> list[list[Entity]]:
    """The entities alone, without their scores."""
    return [[item.entity for item in found] for found in decoded]


def _without_box(item: Predicted) -> Predicted:
    return item._replace(entity=dataclasses.replace(item.entity, boxes=()))
