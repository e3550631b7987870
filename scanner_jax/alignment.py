"""Predictions by id, put in the order of a split's examples, with what does not fit counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scanner_jax.spill import SpilledList, SpilledSet
from scanner_jax.types import Entity, Example


class EvaluationError(ValueError):
    """A split that cannot be scored with these predictions."""


class Aligned(NamedTuple):
    """Predictions in the order of some examples.

    Attributes:
        entities: those of each example, one for each span, out-of-range ones included.
        given: those of each example as they were given, spans that come again included.
    """

    entities: list[Sequence[Entity]]
    given: list[Sequence[Entity]]


@dataclasses.dataclass(slots=True)
class Noticed:
    """What was noticed while predictions were put in order.

    Attributes:
        with_line: how many examples have a line.
        entities: how many are scored.
        missing_ids: ids of examples without a line.
        unknown_ids: ids of lines that are no example's.
        duplicate_spans: `id start-end` of each prediction that a later one replaced.
        spans_out_of_range: `id start-end` of each.
        unknown_types: how many entities have each type that is not the corpus's.
    """

    with_line: int = 0
    entities: int = 0
    missing_ids: SpilledList[str] = dataclasses.field(default_factory=SpilledList[str])
    unknown_ids: SpilledList[str] = dataclasses.field(default_factory=SpilledList[str])
    duplicate_spans: SpilledList[str] = dataclasses.field(default_factory=SpilledList[str])
    spans_out_of_range: SpilledList[str] = dataclasses.field(default_factory=SpilledList[str])
    unknown_types: Counter[str] = dataclasses.field(default_factory=Counter[str])

    def counts(self) -> dict[str, Any]:
        """What was predicted and noticed, as numbers."""
        return {
            "sentences": self.with_line,
            "entities": self.entities,
            "missing_ids": len(self.missing_ids),
            "unknown_ids": len(self.unknown_ids),
            "duplicate_spans": len(self.duplicate_spans),
            "spans_out_of_range": len(self.spans_out_of_range),
            "unknown_types": dict(sorted(self.unknown_types.items())),
        }


def check_ids(examples: Sequence[Example], predictions: Mapping[str, Sequence[Entity]]) -> None:
    """See that predictions are of a split at all.

    Raises:
        EvaluationError: no id of the split is among the predictions.
    """
    if not any(example.id in predictions for example in examples):
        shown = ", ".join(repr(example.id) for example in examples[:3])
        raise EvaluationError(
            f"not one of the {len(predictions):,} ids of the predictions is one of the split's ({shown}, ...); "
            "another split's file? --write-gold writes all ids"
        )


def align(
    examples: Sequence[Example],
    predictions: Mapping[str, Sequence[Entity]],
    *,
    types: Sequence[str] = (),
    noticed: Noticed | None = None,
) -> Aligned:
    """Put predictions in the order of examples; what does not fit is counted, as the command's help defines.

    Args:
        examples: some of a split's, or all.
        predictions: each id's entities, as they were given.
        types: the corpus's entity types.
        noticed: receives what does not fit; of ids only the missing ones.
    """
    noticed = noticed or Noticed()
    aligned = Aligned([], [])
    for example in examples:
        given = predictions.get(example.id)
        if given is None:
            noticed.missing_ids.append(example.id)
            given = ()
        else:
            noticed.with_line += 1
        last: dict[tuple[int, int], Entity] = {}
        for entity in given:
            span = (entity.start, entity.end)
            if span in last:
                noticed.duplicate_spans.append(_place(example, entity))
            last[span] = entity
        for entity in last.values():
            if not 0 <= entity.start < entity.end <= len(example.words):
                noticed.spans_out_of_range.append(_place(example, entity))
            if entity.type not in types:
                noticed.unknown_types[entity.type] += 1
        noticed.entities += len(last)
        aligned.entities.append(given if len(given) == len(last) else list(last.values()))
        aligned.given.append(given)
    return aligned


def note_unknown_ids(
    examples: Sequence[Example], predictions: Mapping[str, Sequence[Entity]], noticed: Noticed
) -> None:
    """Note which ids are none of a whole split's, once its examples are aligned."""
    if noticed.with_line < len(predictions):
        known = SpilledSet(example.id for example in examples)
        for identity in predictions:
            if identity not in known:
                noticed.unknown_ids.append(identity)


def _place(example: Example, entity: Entity) -> str:
    return f"{example.id} {entity.start}-{entity.end}"
