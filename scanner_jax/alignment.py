"""Predictions by id, put in the order of a split's examples, with what does not fit counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scanner_jax.types import Entity, Example


class EvaluationError(ValueError):
    """A split that cannot be scored with these predictions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned:
    """Predictions in the order of a split's examples, and what was noticed on the way.

    Attributes:
        entities: those of each example, one for each span, out-of-range ones included.
        with_line: how many examples have a line.
        missing_ids: ids of examples without a line.
        unknown_ids: ids of lines that are no example's.
        duplicate_spans: `id start-end` of each prediction that a later one replaced.
        spans_out_of_range: `id start-end` of each.
        unknown_types: how many entities have each type that is not the corpus's.
        given: those of each example as they were given, spans that come again included.
    """

    entities: list[Sequence[Entity]]
    with_line: int
    missing_ids: list[str]
    unknown_ids: list[str]
    duplicate_spans: list[str]
    spans_out_of_range: list[str]
    unknown_types: dict[str, int]
    given: list[Sequence[Entity]]

    def counts(self) -> dict[str, Any]:
        """What was predicted and noticed, as numbers."""
        return {
            "sentences": self.with_line,
            "entities": sum(map(len, self.entities)),
            "missing_ids": len(self.missing_ids),
            "unknown_ids": len(self.unknown_ids),
            "duplicate_spans": len(self.duplicate_spans),
            "spans_out_of_range": len(self.spans_out_of_range),
            "unknown_types": self.unknown_types,
        }


def align(examples: Sequence[Example], predictions: Mapping[str, Sequence[Entity]], *, types: Sequence[str]) -> Aligned:
    """Put predictions in the order of a split's examples; what does not fit is counted, as the command's help defines.

    Args:
        examples: the split.
        predictions: each id's entities, as they were given.
        types: the corpus's entity types.

    Raises:
        EvaluationError: no id of the split is among the predictions.
    """
    missing = [example.id for example in examples if example.id not in predictions]
    with_line = len(examples) - len(missing)
    if not with_line:
        shown = ", ".join(repr(example.id) for example in examples[:3])
        raise EvaluationError(
            f"not one of the {len(predictions):,} ids of the predictions is one of the split's ({shown}, ...); "
            "another split's file? --write-gold writes all ids"
        )
    known = {example.id for example in examples} if with_line < len(predictions) else predictions.keys()
    entities: list[Sequence[Entity]] = []
    duplicates, outside = [], []
    for example in examples:
        last: dict[tuple[int, int], Entity] = {}
        given = predictions.get(example.id, ())
        for entity in given:
            span = (entity.start, entity.end)
            duplicates += [_place(example, entity)] if span in last else []
            last[span] = entity
        entities.append(given if len(given) == len(last) else list(last.values()))
        words = len(example.words)
        outside += [_place(example, entity) for entity in last.values() if not 0 <= entity.start < entity.end <= words]
    unknown_types = Counter(entity.type for found in entities for entity in found if entity.type not in types)
    return Aligned(
        entities=entities,
        with_line=with_line,
        missing_ids=missing,
        unknown_ids=[identity for identity in predictions if identity not in known],
        duplicate_spans=duplicates,
        spans_out_of_range=outside,
        unknown_types=dict(sorted(unknown_types.items())),
        given=[predictions.get(example.id, ()) for example in examples],
    )


def _place(example: Example, entity: Entity) -> str:
    return f"{example.id} {entity.start}-{entity.end}"
