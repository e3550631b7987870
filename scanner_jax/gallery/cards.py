"""What the gallery says of each tweet: its entities, right or wrong, and what other runs made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from scanner_jax.analysis import box_error, error_kind, pairs_of
from scanner_jax.boxes import intersection_over_union
from scanner_jax.gallery.reported import Reported, Told
from scanner_jax.grounding import LEAST_IOU, region_of
from scanner_jax.types import Box, Entity, Example, ImageObject, Span


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A gold entity and what was predicted in its place; one of the two may be missing.

    Attributes:
        kinds: the errors, of `analysis.KINDS` and, where the run grounds, `analysis.BOX_KINDS`; none where it is right.
        iou: of the predicted box with the best gold box; None without either, or where the spans differ.
        reach: of the best object in the prompt with the best gold box; None where the span was no candidate, where it
            has no gold box, or its prompt no object.
        score: the probability of the predicted type.
        box_score: the overlap score of the best object.
    """

    gold: Entity | None
    predicted: Entity | None
    kinds: tuple[str, ...] = ()
    iou: float | None = None
    reach: float | None = None
    score: float | None = None
    box_score: float | None = None

    @property
    def in_reach(self) -> bool:
        """Whether an object in the prompt is the gold entity's."""
        return self.reach is not None and self.reach > LEAST_IOU


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What another run made of the same tweet.

    Attributes:
        label: what that run is without.
        rows: as the card's.
        right: whether it has no error.
        compared: whether the card's run has none, judged as this one.
        by_types: whether both are judged by spans and types alone, because this run gives no boxes.
    """

    label: str
    rows: tuple[Row, ...]
    right: bool
    compared: bool
    by_types: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One tweet; `scored` is False where its gold is not known."""

    example: Example
    scored: bool
    rows: tuple[Row, ...]
    told: tuple[Told, ...] = ()
    others: tuple[Other, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of all its errors, each once."""
        return tuple(dict.fromkeys(kind for row in self.rows for kind in row.kinds))

    @property
    def right(self) -> bool:
        return not self.kinds

    @property
    def objects(self) -> tuple[ImageObject, ...]:
        """Those that any of its prompts held."""
        return tuple(dict.fromkeys(item for told in self.told for item in told.knowledge.objects))

    @property
    def out_of_reach(self) -> bool:
        """Whether no object in its prompt covers a gold entity that was a candidate and had objects."""
        return any(row.reach is not None and not row.in_reach for row in self.rows)


def make_cards(
    examples: Sequence[Example], run: Reported, *, scored: bool, without: Mapping[str, Reported]
) -> list[Card]:
    """Judge every tweet; those with an error come first, each part in the examples' order.

    Args:
        examples: test.
        run: the run to show.
        scored: whether the examples have gold.
        without: runs to compare it with, each by what it is without.
    """
    cards = [_card(example, run, scored=scored, without=without) for example in examples]
    return sorted(cards, key=lambda card: card.right)


def _card(example: Example, run: Reported, *, scored: bool, without: Mapping[str, Reported]) -> Card:
    rows = _rows(example, run, scored=scored, grounded=run.grounded)
    others = []
    for label, other in without.items():
        found = tuple(_rows(example, other, scored=scored, grounded=run.grounded and other.grounded))
        alike = rows if other.grounded else _rows(example, run, scored=scored, grounded=False)
        right, compared = (not any(row.kinds for row in judged) for judged in (found, alike))
        by_types = run.grounded and not other.grounded
        others.append(Other(label=label, rows=found, right=right, compared=compared, by_types=by_types))
    told = (run.prompts or {}).get(example.id, ())
    return Card(example=example, scored=scored, rows=tuple(rows), told=tuple(told), others=tuple(others))


def _rows(example: Example, run: Reported, *, scored: bool, grounded: bool) -> list[Row]:
    predicted = run.entities[example.id]
    told = {item.span: item for item in (run.prompts or {}).get(example.id, ())}
    pairs = pairs_of(example.entities if scored else (), predicted)
    return [_row(example, run, gold, guess, told, scored=scored, grounded=grounded) for gold, guess in pairs]


def _row(
    example: Example,
    run: Reported,
    gold: Entity | None,
    guess: Entity | None,
    told: Mapping[Span, Told],
    *,
    scored: bool,
    grounded: bool,
) -> Row:
    kinds = (error_kind(gold, guess), box_error(gold, guess) if grounded else None) if scored else ()
    own = told.get(guess.span) if guess else None
    objects = [item.box for item in told[gold.span].knowledge.objects] if gold and gold.span in told else []
    box = region_of(guess) if guess and gold and guess.span == gold.span else None
    return Row(
        gold=gold,
        predicted=guess,
        kinds=tuple(filter(None, kinds)),
        iou=_best([box] if box else [], gold),
        reach=_best(objects, gold),
        score=own.probabilities.get(own.predicted) if own else None,
        box_score=run.box_scores.get((example.id, guess.start, guess.end)) if guess else None,
    )


def _best(boxes: Sequence[Box], gold: Entity | None) -> float | None:
    if not boxes or gold is None or not gold.boxes:
        return None
    return float(intersection_over_union(boxes, gold.boxes).max())


Piece = tuple[str, Entity | None]
"""A part of a sentence, and the entity that it is."""


def pieces(example: Example, entities: Sequence[Entity]) -> Iterator[Piece]:
    """Cut a sentence at its entities; of those that overlap the first one stands, and none that is out of range."""
    place = 0
    for entity in sorted(entities, key=lambda entity: (entity.start, -entity.end)):
        if not place <= entity.start < entity.end <= len(example.words):
            continue
        if place < entity.start:
            yield " ".join(example.words[place : entity.start]), None
        yield example.surface(entity), entity
        place = entity.end
    if place < len(example.words):
        yield " ".join(example.words[place:]), None
