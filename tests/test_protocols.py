"""Other projects' ways to score grounded entities: where each differs from the paper's rule, case by case."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.metrics import Counts
from scanner_jax.protocols import PROTOCOLS, Tweet, hindex, mqspn, paper, riveg, unco
from scanner_jax.types import Box, Entity, Example

WORDS = ("Mira", "met", "Okafor", "and", "Mira", "in", "Tamsin")
FACE, HAND = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 70.0)
HALF_FACE, MOST_OF_FACE, LAKE = (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 8.0), (20.0, 0.0, 40.0, 10.0)


def entity(start: int, kind: str, *boxes: Box, end: int | None = None) -> Entity:
    return Entity(start, end or start + 1, kind, boxes)


def tweet(
    gold: list[Entity],
    predicted: list[Entity],
    *,
    candidates: list[Box] | None = None,
    image: str = "1",
) -> Tweet:
    """A tweet whose XML file has its entities' boxes in their order; by default they are the candidates as well."""
    example = Example(image, WORDS, tuple(gold), image)
    annotated = list(dict.fromkeys((example.surface(own), box) for own in gold for box in own.boxes))
    return Tweet(example, predicted, [box for _, box in annotated] if candidates is None else candidates, annotated)


def test_gold_is_100_in_every_protocol_where_an_entity_has_one_box() -> None:
    gold = [entity(0, "PER", FACE), entity(2, "PER", HAND), entity(4, "PER", FACE), entity(6, "LOC")]
    for name, protocol in PROTOCOLS.items():
        assert protocol([tweet(gold, gold)]) == Counts(4, 4, 4), name


def test_no_tweets() -> None:
    assert {protocol([]) for protocol in PROTOCOLS.values()} == {Counts()}


# riveg


def test_riveg_does_not_look_at_positions() -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(4, "PER", FACE)]  # the other Mira
    assert paper([tweet(gold, predicted)]) == Counts(0, 1, 1)
    assert riveg([tweet(gold, predicted)]) == Counts(1, 1, 1)


def test_riveg_takes_half_an_overlap() -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(0, "PER", HALF_FACE)]
    assert (paper([tweet(gold, predicted)]), riveg([tweet(gold, predicted)])) == (Counts(0, 1, 1), Counts(1, 1, 1))


def test_riveg_matches_one_to_one_and_counts_every_prediction() -> None:
    gold = [entity(0, "PER", FACE), entity(4, "PER", FACE)]
    predicted = [entity(0, "PER", FACE), entity(0, "PER", FACE), entity(0, "PER", FACE)]
    assert paper([tweet(gold, predicted)]) == Counts(1, 1, 2)
    assert riveg([tweet(gold, predicted)]) == Counts(2, 3, 2)


def test_riveg_keeps_images_types_and_names_apart() -> None:
    gold = [entity(0, "PER", FACE)]
    assert riveg([tweet(gold, []), tweet([], gold, image="2")]) == Counts(0, 1, 1)
    assert riveg([tweet(gold, []), tweet([], gold)]) == Counts(1, 1, 1)  # two sentences of one image
    assert riveg([tweet(gold, [entity(0, "ORG", FACE)])]) == Counts(0, 1, 1)
    assert riveg([tweet(gold, [entity(2, "PER", FACE)])]) == Counts(0, 1, 1)
    assert riveg([tweet([], [entity(90, "PER"), entity(-1, "PER")])]) == Counts(0, 2, 0)  # no words, no name


def test_riveg_none_fits_none_alone() -> None:
    assert riveg([tweet([entity(0, "PER", FACE)], [entity(0, "PER")])]) == Counts(0, 1, 1)
    assert riveg([tweet([entity(0, "PER")], [entity(0, "PER", FACE)])]) == Counts(0, 1, 1)


# hindex


def test_hindex_cannot_find_what_no_candidate_covers() -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(0, "PER", MOST_OF_FACE)]
    assert paper([tweet(gold, predicted)]) == Counts(1, 1, 1)
    assert hindex([tweet(gold, predicted, candidates=[MOST_OF_FACE])]) == Counts(1, 1, 1)
    for candidates in ([], [HAND], [HALF_FACE]):  # the last one is at 0.5, not above it
        assert hindex([tweet(gold, predicted, candidates=candidates)]) == Counts(0, 1, 1)
        assert hindex([tweet(gold, [entity(0, "PER")], candidates=candidates)]) == Counts(0, 1, 1)  # nor is it None


def test_hindex_judges_the_candidate_and_not_the_box() -> None:
    candidates = [(0.0, 0.0, 10.0, 4.0), HAND]
    predicted = [entity(0, "PER", (0.0, 0.0, 10.0, 6.0))]  # 0.6 with the gold box; with the candidate two thirds
    assert paper([tweet([entity(0, "PER", FACE)], predicted)]) == Counts(1, 1, 1)
    assert hindex([tweet([entity(0, "PER", FACE)], predicted, candidates=candidates)]) == Counts(0, 1, 1)


def test_hindex_otherwise_agrees_with_the_paper() -> None:
    gold = [entity(0, "PER", FACE, HAND), entity(6, "LOC")]
    predicted = [entity(0, "PER"), entity(0, "PER", HAND), entity(6, "LOC"), entity(2, "LOC", FACE)]
    assert hindex([tweet(gold, predicted)]) == paper([tweet(gold, predicted)]) == Counts(2, 3, 2)
    assert hindex([tweet([entity(6, "LOC")], [entity(6, "LOC", FACE)])]) == Counts(0, 1, 1)


# mqspn


def test_mqspn_has_a_gold_tuple_for_each_candidate_of_an_entity() -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(0, "PER", FACE)]
    candidates = [FACE, MOST_OF_FACE, HAND]
    assert mqspn([tweet(gold, predicted, candidates=candidates)]) == Counts(1, 1, 2)
    assert mqspn([tweet([entity(0, "PER", FACE, HAND)], predicted)]) == Counts(1, 1, 2)


def test_mqspn_takes_half_an_overlap() -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(0, "PER", HALF_FACE)]
    assert mqspn([tweet(gold, predicted, candidates=[HALF_FACE])]) == Counts(1, 1, 1)


def test_mqspn_takes_a_groundable_entity_without_a_candidate_for_none() -> None:
    gold = [entity(0, "PER", FACE)]
    assert paper([tweet(gold, [entity(0, "PER")])]) == Counts(0, 1, 1)
    assert mqspn([tweet(gold, [entity(0, "PER")], candidates=[HAND])]) == Counts(1, 1, 1)


def test_mqspn_gives_a_candidate_to_the_last_object() -> None:
    gold = [entity(0, "PER", FACE), entity(6, "LOC", MOST_OF_FACE)]
    example = Example("1", WORDS, tuple(gold), "1")
    predicted = [entity(0, "PER", FACE), entity(6, "LOC")]
    orders = [("Mira", FACE), ("Tamsin", MOST_OF_FACE)], [("Tamsin", MOST_OF_FACE), ("Mira", FACE)]
    # The last object has the only candidate, and the other entity is left without one.
    assert mqspn([Tweet(example, predicted, [FACE], orders[1])]) == Counts(2, 2, 2)
    # Mira's box is wrong now, and her None is taken as predicted too; so is Tamsin's wrong None, which it is already.
    assert mqspn([Tweet(example, predicted, [FACE], orders[0])]) == Counts(1, 3, 2)
    # An object that is no entity's takes its candidates as well.
    assert mqspn([Tweet(example, predicted, [FACE], [*orders[1], ("nobody", FACE)])]) == Counts(2, 3, 2)


def test_mqspn_keeps_the_highest_candidate_of_overlapping_spans() -> None:
    gold = [entity(0, "PER", HAND)]
    longer = entity(0, "PER", HAND, end=3)
    candidates = [FACE, HAND]
    predicted = [entity(0, "PER", FACE), longer, entity(2, "LOC")]
    assert paper([tweet(gold, predicted)]) == Counts(0, 3, 1)
    assert mqspn([tweet(gold, predicted, candidates=candidates)]) == Counts(0, 1, 1)
    # None has the lowest index, and of equal ones the first stays.
    assert mqspn([tweet(gold, [entity(0, "LOC"), entity(0, "PER", HAND)], candidates=candidates)]) == Counts(1, 1, 1)
    assert mqspn([tweet([entity(0, "PER")], [entity(0, "PER"), entity(0, "LOC")])]) == Counts(1, 1, 1)


@pytest.mark.parametrize("protocol", [mqspn, unco])
def test_over_grounding_is_forgiven_once(protocol: object) -> None:
    gold = [entity(0, "PER"), entity(6, "LOC", HAND)]
    predicted = [entity(0, "PER", FACE), entity(6, "LOC", HAND)]
    assert paper([tweet(gold, predicted)]) == Counts(1, 2, 2)
    counts = protocol([tweet(gold, predicted, candidates=[FACE, HAND])])  # type: ignore[operator]
    assert counts == Counts(2, 3, 2)  # the ungroundable one is a true positive and a false one


@pytest.mark.parametrize("protocol", [mqspn, unco])
def test_a_wrong_box_of_a_groundable_entity_counts_twice(protocol: object) -> None:
    gold, predicted = [entity(0, "PER", FACE)], [entity(0, "PER", HAND)]
    assert protocol([tweet(gold, predicted, candidates=[FACE, HAND])]) == Counts(0, 2, 1)  # type: ignore[operator]
    assert protocol([tweet(gold, [entity(0, "ORG", HAND)])]) == Counts(0, 1, 1)  # type: ignore[operator]


def test_mqspn_a_box_that_is_no_candidate_is_wrong() -> None:
    gold = [entity(0, "PER", FACE)]
    assert mqspn([tweet(gold, [entity(0, "PER", LAKE)], candidates=[FACE])]) == Counts(0, 2, 1)


# unco


def test_unco_has_a_gold_tuple_for_each_box() -> None:
    gold = [entity(0, "PER", FACE, HAND)]
    assert unco([tweet(gold, [entity(0, "PER", HAND)])]) == Counts(1, 1, 2)
    assert unco([tweet(gold, [entity(0, "PER", HAND), entity(0, "PER", FACE)])]) == Counts(2, 2, 2)
    assert paper([tweet(gold, [entity(0, "PER", HAND), entity(0, "PER", FACE)])]) == Counts(1, 1, 1)


def test_unco_takes_the_first_gold_box_and_half_an_overlap() -> None:
    gold = [entity(0, "PER", MOST_OF_FACE, FACE)]
    assert unco([tweet(gold, [entity(0, "PER", FACE), entity(0, "PER", HALF_FACE)])]) == Counts(1, 1, 2)


def test_unco_wrong_boxes_are_one_wrong_value() -> None:
    gold = [entity(0, "PER", FACE)]
    assert unco([tweet(gold, [entity(0, "PER", HAND), entity(0, "PER", LAKE)])]) == Counts(0, 2, 1)  # it, and None


def test_unco_skips_tweets_without_gold_or_predictions() -> None:
    gold = [entity(0, "PER", FACE)]
    tweets = [tweet(gold, gold), tweet(gold, []), tweet([], gold), tweet([], [])]
    assert paper(tweets) == Counts(1, 2, 2)
    assert unco(tweets) == Counts(1, 1, 1)


BOXES = st.sampled_from([FACE, HALF_FACE, MOST_OF_FACE, HAND, LAKE])
KINDS = st.sampled_from(["PER", "LOC"])
OWN_BOX = {word: (30.0 * place, 0.0, 30.0 * place + 10.0, 10.0) for place, word in enumerate(sorted(set(WORDS)))}


@st.composite
def tweets(draw: st.DrawFn) -> Tweet:
    """Anything; equal mentions share their boxes."""
    boxes = {word: draw(st.lists(BOXES, max_size=3)) for word in WORDS}
    starts = draw(st.lists(st.integers(0, 6), max_size=4, unique=True))
    gold = [entity(start, draw(KINDS), *boxes[WORDS[start]]) for start in starts]
    guesses = draw(st.lists(st.tuples(st.integers(0, 6), KINDS, st.lists(BOXES, max_size=1)), max_size=5))
    return tweet(gold, [entity(start, kind, *found) for start, kind, found in guesses])


@given(st.lists(tweets(), max_size=4))
def test_counts_are_possible_and_add_up(split: list[Tweet]) -> None:
    images = (str(place) for place in range(len(split)))
    split = [dataclasses.replace(own, example=dataclasses.replace(own.example, image_id=next(images))) for own in split]
    for name, protocol in PROTOCOLS.items():
        counts = protocol(split)
        assert 0 <= counts.true_positives <= min(counts.predicted, counts.gold), name
        assert sum((protocol([own]) for own in split), Counts()) == counts, name
    assert hindex(split).gold == riveg(split).gold == paper(split).gold
    assert riveg(split).true_positives >= paper(split).true_positives


@given(
    st.lists(st.tuples(st.integers(0, 6), KINDS), max_size=4, unique_by=lambda drawn: drawn[0]),
    st.sets(st.sampled_from(WORDS)),
)
def test_gold_is_100_where_each_entity_has_one_box_of_its_own(drawn: list[tuple[int, str]], shown: set[str]) -> None:
    gold = [entity(start, kind, *([OWN_BOX[WORDS[start]]] if WORDS[start] in shown else [])) for start, kind in drawn]
    for name, protocol in PROTOCOLS.items():
        assert protocol([tweet(gold, gold)]) == Counts(len(gold), len(gold), len(gold)), name
