"""From logits to entities with boxes, and the threshold below which the answer is None."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.candidates import Candidate
from scanner_jax.decoding import Judgement, above, best_threshold, decode, entities_of
from scanner_jax.grounding import grounded_counts
from scanner_jax.predictions import Predicted
from scanner_jax.types import Box, Entity, Example, Span

CLASSES = ("LOC", "ORG", "PER", "non-entity")
TWEETS = [
    Example("0", ("Mira", "Okafor", "visits", "Lake", "Tamsin")),
    Example("1", ("visits", "this", "sentence")),
    Example("2", ("the", "Reds")),
]
CANDIDATES: list[Candidate] = [
    (TWEETS[0], Span(0, 2)),
    (TWEETS[0], Span(3, 4)),
    (TWEETS[0], Span(3, 5)),
    (TWEETS[2], Span(1, 2)),
    (TWEETS[2], Span(0, 2)),
]
FACE, HAND, WALL = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 70.0), (0.0, 0.0, 200.0, 200.0)
PER = [-9.0, -9.0, 9.0, -9.0]
NONE = [-9.0, -9.0, -9.0, 9.0]


def judged(types: list[list[float]], overlaps: list[list[float]]) -> Judgement:
    return Judgement(np.array(types, np.float32).reshape(-1, 4), np.array(overlaps, np.float32))


def test_types_and_their_probabilities() -> None:
    types = [
        [0.0, 0.0, 3.0, 0.0],
        [0.0, 1.0, 0.0, 5.0],  # non-entity
        [math.log(2), 0.0, -np.inf, 0.0],
        [1e4, 0.0, 0.0, 0.0],  # beyond what exp can hold
        [0.0, 0.0, 0.0, 0.5],  # non-entity
    ]
    decoded = decode(CLASSES, TWEETS, CANDIDATES, judged(types, [[9.0]] * 5), boxes=None)
    assert entities_of(decoded) == [[Entity(0, 2, "PER"), Entity(3, 5, "LOC")], [], [Entity(1, 2, "LOC")]]
    scores = [item.score for found in decoded for item in found]
    np.testing.assert_allclose(scores, [math.exp(3) / (math.exp(3) + 3), 0.5, 1.0], rtol=1e-6)
    assert all(type(score) is float for score in scores)  # JSON knows no numpy
    assert {item.box_score for found in decoded for item in found} == {None}
    assert decode(CLASSES, TWEETS[1:2], [], judged([], []), boxes=None) == [[]]


def test_the_object_with_the_highest_overlap_is_the_box() -> None:
    overlaps = [[-1.0, 2.0, 0.0], [9.0, 9.0, 9.0], [1.5, 1.5, -np.inf], [-np.inf] * 3, [-2000.0, -np.inf, -np.inf]]
    boxes: list[list[Box]] = [[WALL, FACE, HAND], [WALL, FACE, HAND], [HAND, FACE], [], [WALL]]
    decoded = decode(CLASSES, TWEETS, CANDIDATES, judged([PER, NONE, PER, PER, PER], overlaps), boxes=boxes)
    assert [item.entity for found in decoded for item in found] == [
        Entity(0, 2, "PER", (FACE,)),
        Entity(3, 5, "PER", (HAND,)),  # the first of equals
        Entity(1, 2, "PER"),  # no object at all: None
        Entity(0, 2, "PER", (WALL,)),  # overlaps the one before; each is judged for itself
    ]
    scores = [item.box_score for found in decoded for item in found]
    assert scores[2] is None and type(scores[0]) is float
    np.testing.assert_allclose([scores[0], scores[1], scores[3]], [1 / (1 + np.exp(-2.0)), 1 / (1 + np.exp(-1.5)), 0.0])


def test_no_room_for_objects_is_none_for_all() -> None:
    decoded = decode(CLASSES, TWEETS, CANDIDATES, judged([PER] * 5, [[]] * 5), boxes=[[]] * 5)
    assert {item.entity.boxes for found in decoded for item in found} == {()}


def test_of_equal_spans_the_last_stands() -> None:
    candidates = [CANDIDATES[0], CANDIDATES[2], CANDIDATES[0]]
    twice = decode(
        CLASSES,
        TWEETS,
        candidates,
        judged([PER, PER, [9.0, 0, 0, 0]], [[1.0], [1.0], [2.0]]),
        boxes=[[FACE]] * 2 + [[HAND]],
    )
    assert sorted(entities_of(twice)[0], key=lambda entity: entity.span) == [
        Entity(0, 2, "LOC", (HAND,)),
        Entity(3, 5, "PER", (FACE,)),
    ]
    gone = decode(CLASSES, TWEETS, candidates, judged([PER, PER, NONE], [[1.0]] * 3), boxes=[[FACE]] * 3)
    assert entities_of(gone)[0] == [Entity(3, 5, "PER", (FACE,))]


def test_above_takes_boxes_away() -> None:
    found = [Predicted(Entity(0, 1, "PER", (FACE,)), 0.9, 0.5), Predicted(Entity(1, 2, "PER"), 0.9)]
    assert above([found], 0.4) == [found]
    assert above([found], 0.5) == [[Predicted(Entity(0, 1, "PER"), 0.9, 0.5), found[1]]]  # the score stays


def guess(start: int, score: float | None, box: Box = FACE, kind: str = "PER") -> Predicted:
    return Predicted(Entity(start, start + 1, kind, () if score is None else (box,)), 1.0, score)


def test_best_threshold_by_hand() -> None:
    shown, hidden = Entity(0, 1, "PER", (FACE,)), Entity(1, 2, "PER")
    # Between what is not in the image and what is.
    assert best_threshold([[shown, hidden]], [[guess(0, 0.8), guess(1, 0.3)]]) == pytest.approx(0.55)
    # The other way round one of the two is right wherever it lies, but for the middle, where none is.
    assert best_threshold([[shown, hidden]], [[guess(0, 0.1), guess(1, 0.3)]]) in (0.0, 1.0)
    assert best_threshold([[shown]], [[guess(0, 0.1)]]) == 0.0
    assert best_threshold([[hidden]], [[guess(1, 0.9)]]) == 1.0
    # Nothing depends on it: a wrong box, type or span, no box, no entity.
    wrong = [guess(0, 0.4, HAND), guess(1, 0.6, kind="ORG"), guess(2, 0.2), guess(3, None)]
    assert best_threshold([[shown, hidden]], [wrong]) in (0.0, 1.0)
    assert best_threshold([[shown, hidden]], [wrong[1:]]) == 0.5
    assert best_threshold([], []) == 0.5


SCORES = st.sampled_from([None, 0.05, 0.2, 0.2, 0.45, 0.6, 0.95])


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[Entity], list[Predicted]]:
    gold, found = [], []
    for start in range(draw(st.integers(0, 4))):
        if draw(st.booleans()):
            gold.append(
                Entity(start, start + 1, "PER", tuple(draw(st.lists(st.sampled_from([FACE, HAND]), max_size=2))))
            )
        if draw(st.booleans()):
            found.append(guess(start, draw(SCORES), draw(st.sampled_from([FACE, WALL]))))
    return gold, found


@given(st.lists(sentences(), max_size=4))
def test_no_threshold_is_better(split: list[tuple[list[Entity], list[Predicted]]]) -> None:
    gold, decoded = [own for own, _ in split], [own for _, own in split]

    def f1(threshold: float) -> float:
        return grounded_counts(gold, entities_of(above(decoded, threshold))).f1

    best = best_threshold(gold, decoded)
    assert f1(best) == max(map(f1, np.linspace(0, 1, 101)))
