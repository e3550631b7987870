"""Every error of a split, sorted by how frequent its confusion is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from scanner_jax.grounding import is_region, region_of
from scanner_jax.types import Entity, Example

KINDS = ("missed", "spurious", "boundary", "type")
"""What may be wrong with spans and types."""

BOX_KINDS = ("box missing", "box spurious", "box wrong")
"""What may be wrong with the region of an entity whose span is right."""

Pair = tuple[Entity | None, Entity | None]
"""A gold entity and what was predicted in its place; one of the two may be missing."""


def errors_of(
    examples: Sequence[Example], predicted: Sequence[Sequence[Entity]], *, grounded: bool = False
) -> list[dict[str, Any]]:
    """List what is wrong with a split's predictions.

    An error has one of four kinds: `type` (the gold span with another type), `boundary` (another span that overlaps
    the gold one, whatever its type), `missed` (gold without either) and `spurious` (predicted without either). A gold
    or predicted entity takes part in one error at most: equal spans are paired first, then those that share the most
    words. So recall lost `missed + boundary + type`, and precision `spurious + boundary + type`.

    Where the span is right the region may be wrong, whatever the type: `box missing` (none for an entity that has one),
    `box spurious` (one for an entity that has none), `box wrong`. That is an error of its own.

    Args:
        examples: the split, with its gold entities.
        predicted: the predicted entities of each example; of equal spans the last stands.
        grounded: whether predictions are to have boxes.

    Returns:
        For each error `kind`, `id`, `gold` and `predicted` (`start`, `end`, `type`, `text`, or None; where grounded
        also `boxes`) and `sentence`. The most frequent confusion of kind, gold type and predicted type comes first,
        and in it the split's order.
    """
    errors = [
        {
            "kind": kind,
            "id": example.id,
            "gold": _described(example, gold, grounded=grounded),
            "predicted": _described(example, guess, grounded=grounded),
            "sentence": example.text,
        }
        for example, entities in zip(examples, predicted, strict=True)
        for gold, guess in pairs_of(example.entities, entities)
        for kind in (error_kind(gold, guess), box_error(gold, guess) if grounded else None)
        if kind
    ]
    frequency = Counter(map(_confusion, errors))
    return sorted(errors, key=lambda error: (-frequency[_confusion(error)], _confusion(error)))


def errors_table(errors: Sequence[Mapping[str, Any]], *, grounded: bool = False) -> str:
    """How many errors there are of each kind, and of each confusion of types, as text."""
    kinds = Counter(error["kind"] for error in errors)
    listed = (*KINDS, *BOX_KINDS) if grounded else KINDS
    width = max(map(len, listed)) + 1
    confusions = Counter(map(_confusion, errors))
    lines = [f"{len(errors):>7,}  errors"]
    lines += [f"{kinds[kind]:>7,}  {kind}" for kind in listed]
    lines += ["", f"{'count':>7}  {'kind':<{width}} gold -> predicted"]
    for (kind, gold, guess), count in sorted(confusions.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"{count:>7,}  {kind:<{width}} {gold or 'nothing'} -> {guess or 'nothing'}")
    return "".join(f"{line}\n" for line in lines)


def pairs_of(gold: Sequence[Entity], predicted: Sequence[Entity]) -> list[Pair]:
    """Pair a sentence's gold and predicted entities as `errors_of` does, right ones too; each stands in one pair.

    Returns:
        The pairs in the sentence's order.
    """
    wanted = {entity.span: entity for entity in gold}
    found = {entity.span: entity for entity in predicted}
    pairs: list[Pair] = [(wanted.pop(span), found.pop(span)) for span in wanted.keys() & found.keys()]
    overlaps = sorted(
        (-_common(first, second), first.span, second.span)
        for first in wanted.values()
        for second in found.values()
        if _common(first, second) > 0
    )
    for _, first, second in overlaps:
        if first in wanted and second in found:
            pairs.append((wanted.pop(first), found.pop(second)))
    pairs += [(entity, None) for entity in wanted.values()]
    pairs += [(None, entity) for entity in found.values()]
    return sorted(pairs, key=_place)


def error_kind(gold: Entity | None, guess: Entity | None) -> str | None:
    """Which of `KINDS` a pair is; None where span and type are right."""
    if gold is None or guess is None:
        return "spurious" if gold is None else "missed"
    if gold.span != guess.span:
        return "boundary"
    return None if gold.type == guess.type else "type"


def box_error(gold: Entity | None, guess: Entity | None) -> str | None:
    """Which of `BOX_KINDS` a pair is; None where the region is right, or the span is not, so that there is none."""
    if gold is None or guess is None or gold.span != guess.span or is_region(region_of(guess), gold.boxes):
        return None
    if not guess.boxes:
        return "box missing"
    return "box wrong" if gold.boxes else "box spurious"


def _common(first: Entity, second: Entity) -> int:
    """How many words two spans share; 0 or less where none."""
    return min(first.end, second.end) - max(first.start, second.start)


def _described(example: Example, entity: Entity | None, *, grounded: bool) -> dict[str, Any] | None:
    if entity is None:
        return None
    own = {"start": entity.start, "end": entity.end, "type": entity.type, "text": example.surface(entity)}
    return {**own, "boxes": [list(box) for box in entity.boxes]} if grounded else own


def _place(pair: Pair) -> list[tuple[int, int]]:
    return sorted((entity.start, entity.end) for entity in pair if entity is not None)


def _confusion(error: Mapping[str, Any]) -> tuple[str, str, str]:
    """Kind, gold type and predicted type; an empty type stands for nothing."""
    return error["kind"], *((error[side] or {"type": ""})["type"] for side in ("gold", "predicted"))
