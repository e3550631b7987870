"""Scores of entities with their boxes, by the rule of the paper and of GMNER's authors.

A prediction is right where its span, its type and its region are. The region of an entity without a gold box is None;
that of another is any box whose IoU with one of its gold boxes is above 0.5. There is one region a mention: further
gold boxes are other right answers, not other things to find. Gold that no candidate box covers stays in recall.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypedDict, TypeVar

from scanner_jax.boxes import intersection_over_union
from scanner_jax.metrics import PRF, Counts, Tally, entity_counts, scores_of, span_counts
from scanner_jax.types import Box, Entity

LEAST_IOU = 0.5
"""A box is an entity's where its IoU with a gold box is above this."""

Key = TypeVar("Key", bound=Hashable)


class GroundedScores(TypedDict):
    """What stands in metrics.json beside the scores of spans and types, where entities are grounded.

    Attributes:
        gmner: span, type and region.
        mner: span and type.
        eeg: span and region.
        span: the span alone.
        always_none: gmner, had no entity been given a box.
        gmner_per_type: gmner of each type.
        groundable: gmner of gold entities with a box, and of predictions with one.
        ungroundable: gmner of those without; the counts of the two add up to gmner's.
    """

    gmner: PRF
    mner: PRF
    eeg: PRF
    span: PRF
    always_none: PRF
    gmner_per_type: dict[str, PRF]
    groundable: PRF
    ungroundable: PRF


class CandidateRecall(TypedDict):
    """Of how many groundable entities, in percent, one of the candidate boxes is theirs; and their number."""

    recall: float
    support: int


def region_of(entity: Entity) -> Box | None:
    """A prediction's one box, None where it has none."""
    return entity.boxes[0] if entity.boxes else None


def is_region(box: Box | None, gold: Sequence[Box]) -> bool:
    """Whether a region is that of an entity with these gold boxes: None where there are none."""
    if box is None or not gold:
        return box is None and not gold
    return bool(intersection_over_union([box], gold).max() > LEAST_IOU)


def grounded_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Counts:
    """Count entities whose span, type and region are right (GMNER).

    Every gold entity counts, proposed by stage 1 or not. A span predicted more than once counts once: its last
    prediction stands.

    Args:
        gold: the gold entities of each sentence, with all their boxes.
        predicted: the predicted ones, in the same order of sentences, with one box or none.

    Raises:
        ValueError: the two have different numbers of sentences.
    """
    return sum(_counts_by(_type, gold, predicted).values(), Counts())


def eeg_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Counts:
    """Count entities whose span and region are right, whatever the type (entity extraction and grounding)."""
    return grounded_counts(*([[_untyped(entity) for entity in found] for found in side] for side in (gold, predicted)))


def without_boxes(predicted: Sequence[Sequence[Entity]]) -> list[list[Entity]]:
    """The same predictions, none of them with a box."""
    return [[dataclasses.replace(entity, boxes=()) for entity in found] for found in predicted]


def grounded_scores(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> GroundedScores:
    """All scores of a split's grounded entities; arguments and errors as in `grounded_counts`."""
    scores: GroundedScores = scores_of(grounded_tally(gold, predicted))  # type: ignore[assignment]
    return scores


def grounded_tally(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Tally:
    """The counts behind `grounded_scores`; those of two parts of a split may be added."""
    per_type = _counts_by(_type, gold, predicted)
    groundable = _counts_by(_groundable, gold, predicted)
    return {
        "gmner": grounded_counts(gold, predicted),
        "mner": entity_counts(gold, predicted),
        "eeg": eeg_counts(gold, predicted),
        "span": span_counts(gold, predicted),
        "always_none": grounded_counts(gold, without_boxes(predicted)),
        "gmner_per_type": dict(sorted(per_type.items())),
        "groundable": groundable.get(True, Counts()),
        "ungroundable": groundable.get(False, Counts()),
    }


def candidate_recall(pairs: Iterable[tuple[Sequence[Box], Sequence[Box]]]) -> CandidateRecall:
    """How often one of the candidate boxes is the entity's: what no choice among them can exceed.

    Args:
        pairs: of each entity the gold boxes and the candidate boxes; entities without gold boxes do not count.
    """
    return recall_of(covered_counts(pairs))


def covered_counts(pairs: Iterable[tuple[Sequence[Box], Sequence[Box]]]) -> Counts:
    """The counts behind `candidate_recall`: groundable entities, and those that a candidate covers."""
    covered = [any(is_region(box, gold) for box in candidates) for gold, candidates in pairs if gold]
    return Counts(true_positives=sum(covered), gold=len(covered))


def recall_of(covered: Counts) -> CandidateRecall:
    """The recall of candidate boxes as reports give it."""
    return CandidateRecall(recall=round(covered.recall, 2), support=covered.gold)


class _Judged(NamedTuple):
    """One sentence: its gold entities, the predictions that stand, and those of them that are right."""

    gold: list[Entity]
    predicted: list[Entity]
    right: list[Entity]


def _judged(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Iterator[_Judged]:
    if len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} sentences of gold entities but {len(predicted)} of predicted ones")
    for wanted, found in zip(gold, predicted, strict=True):
        by_span = {entity.span: entity for entity in wanted}
        last = {entity.span: entity for entity in found}
        right = [entity for span, entity in last.items() if span in by_span and _is_right(entity, by_span[span])]
        yield _Judged(list(by_span.values()), list(last.values()), right)


def _is_right(entity: Entity, gold: Entity) -> bool:
    return entity.type == gold.type and is_region(region_of(entity), gold.boxes)


def _counts_by(
    key: Callable[[Entity], Key], gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> dict[Key, Counts]:
    """Split `grounded_counts` by a key that a right prediction shares with its gold entity."""
    rights, guesses, golds = Counter[Key](), Counter[Key](), Counter[Key]()
    for judged in _judged(gold, predicted):
        golds.update(map(key, judged.gold))
        guesses.update(map(key, judged.predicted))
        rights.update(map(key, judged.right))
    return {name: Counts(rights[name], guesses[name], golds[name]) for name in guesses | golds}


def _type(entity: Entity) -> str:
    return entity.type


def _groundable(entity: Entity) -> bool:
    return bool(entity.boxes)


def _untyped(entity: Entity) -> Entity:
    return dataclasses.replace(entity, type="")
