"""Grounded scores by the paper's rule: cases by hand, and an oracle that counts one entity at a time."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.grounding import (
    candidate_recall,
    eeg_counts,
    grounded_counts,
    grounded_scores,
    is_region,
    without_boxes,
)
from scanner_jax.metrics import Counts, entity_counts, span_counts
from scanner_jax.types import Box, Entity

FACE, HAND = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 70.0)
HALF_FACE = (0.0, 0.0, 10.0, 5.0)
"""IoU with the face is 0.5 exactly."""


def entity(start: int, kind: str, *boxes: Box) -> Entity:
    return Entity(start, start + 1, kind, boxes)


@pytest.mark.parametrize(
    ("box", "gold", "right"),
    [
        (None, (), True),
        (None, (FACE,), False),
        (FACE, (), False),
        (FACE, (FACE,), True),
        (HAND, (FACE, HAND), True),  # any of them
        (HAND, (FACE,), False),
        (HALF_FACE, (FACE,), False),  # above 0.5, not at it
        ((0.0, 0.0, 10.0, 5.1), (FACE,), True),
        ((3.0, 3.0, 3.0, 3.0), (FACE,), False),  # no area
    ],
)
def test_regions(box: Box | None, gold: tuple[Box, ...], right: bool) -> None:
    assert is_region(box, gold) is right


def test_scores_by_hand() -> None:
    gold = [
        [entity(0, "PER", FACE, HAND), entity(1, "LOC"), entity(2, "ORG", HAND)],
        [entity(0, "PER", FACE)],
        [],
    ]
    predicted = [
        [
            entity(0, "PER", HAND),  # right
            entity(1, "LOC", FACE),  # a box too many
            entity(2, "LOC", HAND),  # the type is wrong
        ],
        [entity(0, "PER", FACE), entity(0, "PER")],  # the last one stands
        [entity(5, "PER")],  # no such entity
    ]
    scores = grounded_scores(gold, predicted)
    assert scores["gmner"] == Counts(1, 5, 4).prf()
    assert scores["mner"] == Counts(3, 5, 4).prf()
    assert scores["eeg"] == Counts(2, 5, 4).prf()
    assert scores["span"] == Counts(4, 5, 4).prf()
    assert scores["always_none"] == Counts(1, 5, 4).prf()  # the LOC
    assert scores["groundable"] == Counts(1, 3, 3).prf()
    assert scores["ungroundable"] == Counts(0, 2, 1).prf()
    assert scores["gmner_per_type"] == {
        "LOC": Counts(0, 2, 1).prf(),
        "ORG": Counts(0, 0, 1).prf(),
        "PER": Counts(1, 3, 2).prf(),
    }


def test_numbers_of_sentences_must_agree() -> None:
    with pytest.raises(ValueError, match="1 sentences of gold entities but 2"):
        grounded_counts([[]], [[], []])


def test_candidate_recall() -> None:
    pairs = [((FACE,), (HAND, FACE)), ((FACE, HAND), (HAND,)), ((FACE,), (HALF_FACE,)), ((FACE,), ()), ((), (FACE,))]
    assert candidate_recall(pairs) == {"recall": 50.0, "support": 4}
    assert candidate_recall([]) == {"recall": 0.0, "support": 0}


BOXES = st.sampled_from([FACE, HALF_FACE, HAND, (50.0, 50.0, 60.0, 65.0), (0.0, 0.0, 10.0, 9.0)])
KINDS = st.sampled_from(["PER", "LOC"])


@st.composite
def gold_entities(draw: st.DrawFn) -> list[Entity]:
    starts = draw(st.lists(st.integers(0, 4), max_size=4, unique=True))
    return [entity(start, draw(KINDS), *draw(st.lists(BOXES, max_size=3))) for start in sorted(starts)]


@st.composite
def guesses(draw: st.DrawFn) -> list[Entity]:
    starts = draw(st.lists(st.integers(0, 4), max_size=6))
    return [entity(start, draw(KINDS), *draw(st.lists(BOXES, max_size=1))) for start in starts]


SPLITS = st.lists(st.tuples(gold_entities(), guesses()), max_size=5)


def oracle(gold: list[list[Entity]], predicted: list[list[Entity]]) -> Counts:
    """Every predicted entity against every gold one, boxes by the pixels that they hold."""
    right = guessed = wanted = 0
    for ours, theirs in zip(gold, predicted, strict=True):
        wanted += len(ours)
        standing = [p for place, p in enumerate(theirs) if not any(q.start == p.start for q in theirs[place + 1 :])]
        guessed += len(standing)
        right += sum(
            (p.start, p.end, p.type) == (g.start, g.end, g.type)
            and (any(by_pixels(p.boxes[0], box) for box in g.boxes) if p.boxes and g.boxes else p.boxes == g.boxes)
            for p in standing
            for g in ours
        )
    return Counts(right, guessed, wanted)


def by_pixels(first: Box, second: Box) -> bool:
    one, other = (
        {(x, y) for x in range(int(box[0]), int(box[2])) for y in range(int(box[1]), int(box[3]))}
        for box in (first, second)
    )
    return 2 * len(one & other) > len(one | other)


@given(SPLITS)
def test_counts_equal_the_oracle(split: list[tuple[list[Entity], list[Entity]]]) -> None:
    gold, predicted = [own for own, _ in split], [own for _, own in split]
    assert grounded_counts(gold, predicted) == oracle(gold, predicted)


@given(SPLITS, st.randoms(use_true_random=False))
def test_order_does_not_matter(split: list[tuple[list[Entity], list[Entity]]], rng: random.Random) -> None:
    """Of sentences, of gold, and of predictions as long as no span comes twice."""
    split = [(gold, list({own.span: own for own in found}.values())) for gold, found in split]
    mixed = [(rng.sample(gold, len(gold)), rng.sample(found, len(found))) for gold, found in split]
    rng.shuffle(mixed)
    before, after = (
        grounded_scores([gold for gold, _ in pairs], [found for _, found in pairs]) for pairs in (split, mixed)
    )
    assert before == after


@given(SPLITS)
def test_parts_add_up_and_no_score_exceeds_the_looser_one(split: list[tuple[list[Entity], list[Entity]]]) -> None:
    gold, predicted = [own for own, _ in split], [own for _, own in split]
    gmner, eeg = grounded_counts(gold, predicted), eeg_counts(gold, predicted)
    mner, span = entity_counts(gold, predicted), span_counts(gold, predicted)
    assert gmner.true_positives <= min(eeg.true_positives, mner.true_positives)
    assert max(eeg.true_positives, mner.true_positives) <= span.true_positives
    assert {(counts.predicted, counts.gold) for counts in (gmner, eeg, mner, span)} == {(span.predicted, span.gold)}
    scores = grounded_scores(gold, predicted)
    supports = scores["groundable"]["support"] + scores["ungroundable"]["support"]
    assert supports == gmner.gold == sum(part["support"] for part in scores["gmner_per_type"].values())
    # Without any box, what is right is right in span and type and ungroundable.
    nothing = [[own for own in gold_own if not own.boxes] for gold_own in gold]
    assert grounded_counts(gold, without_boxes(predicted)).true_positives == (
        entity_counts(nothing, predicted).true_positives
    )


@given(SPLITS, st.data())
def test_gold_scores_100(split: list[tuple[list[Entity], list[Entity]]], data: st.DataObject) -> None:
    gold = [own for own, _ in split]
    predicted = [
        [
            dataclasses.replace(own, boxes=(data.draw(st.sampled_from(own.boxes)),) if own.boxes else ())
            for own in entities
        ]
        for entities in gold
    ]
    counts = grounded_counts(gold, predicted)
    assert counts.true_positives == counts.predicted == counts.gold
