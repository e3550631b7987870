"""Errors, suspect labels and prompt records: hand-made cases, and sums that must come out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.analysis import (
    errors_of,
    errors_table,
    judged_candidates,
    judged_words,
    lowest_alpha,
    probabilities,
    prompt_record,
)
from scanner_jax.losses import trust_your_teacher
from scanner_jax.metrics import entity_counts
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.types import Entity, Example, ImageObject, Knowledge, Span

WORDS = ("Mira", "Okafor", "visits", "Lake", "Tamsin", "with", "the", "Reds")
GOLD = (Entity(0, 2, "PER"), Entity(3, 5, "LOC"), Entity(7, 8, "ORG"))


def kinds(gold: tuple[Entity, ...], predicted: list[Entity]) -> list[tuple]:
    errors = errors_of([Example("a", WORDS, gold)], [predicted])
    return [
        (error["kind"], *(error[side] and error[side]["text"] for side in ("gold", "predicted"))) for error in errors
    ]


def test_each_kind_of_error() -> None:
    assert kinds(GOLD, list(GOLD)) == []
    assert kinds(GOLD, [GOLD[0], GOLD[1]]) == [("missed", "Reds", None)]
    assert kinds(GOLD, [*GOLD, Entity(5, 6, "PER")]) == [("spurious", None, "with")]
    assert kinds(GOLD, [*GOLD[1:], Entity(0, 1, "PER")]) == [("boundary", "Mira Okafor", "Mira")]
    assert kinds(GOLD, [*GOLD[1:], Entity(0, 3, "ORG")]) == [("boundary", "Mira Okafor", "Mira Okafor visits")]
    assert kinds(GOLD, [*GOLD[1:], Entity(0, 2, "LOC")]) == [("type", "Mira Okafor", "Mira Okafor")]


def test_an_entity_takes_part_in_one_error() -> None:
    # One span over two gold entities is paired with the one it shares more words with.
    assert kinds(GOLD, [Entity(1, 5, "LOC")]) == [
        ("boundary", "Lake Tamsin", "Okafor visits Lake Tamsin"),
        ("missed", "Reds", None),
        ("missed", "Mira Okafor", None),
    ]
    # The equal span comes first, even where a longer one overlaps.
    assert sorted(kinds(GOLD[:1], [Entity(0, 3, "PER"), Entity(0, 2, "ORG")])) == [
        ("spurious", None, "Mira Okafor visits"),
        ("type", "Mira Okafor", "Mira Okafor"),
    ]


def test_the_last_prediction_of_a_span_stands() -> None:
    assert kinds(GOLD[:1], [Entity(0, 2, "ORG"), Entity(0, 2, "PER")]) == []


def test_frequent_confusions_come_first() -> None:
    examples = [Example(name, WORDS, GOLD) for name in "abc"]
    predicted = [[GOLD[0], GOLD[1]], [Entity(0, 2, "ORG"), GOLD[1]], [Entity(0, 2, "ORG"), GOLD[1]]]
    errors = errors_of(examples, predicted)
    assert [(error["kind"], error["id"]) for error in errors] == [
        ("missed", "a"),
        ("missed", "b"),
        ("missed", "c"),
        ("type", "b"),
        ("type", "c"),
    ]
    assert errors[3] == {
        "kind": "type",
        "id": "b",
        "gold": {"start": 0, "end": 2, "type": "PER", "text": "Mira Okafor"},
        "predicted": {"start": 0, "end": 2, "type": "ORG", "text": "Mira Okafor"},
        "sentence": "Mira Okafor visits Lake Tamsin with the Reds",
    }
    assert errors_table(errors).splitlines() == [
        "      5  errors",
        "      3  missed",
        "      0  spurious",
        "      0  boundary",
        "      2  type",
        "",
        "  count  kind      gold -> predicted",
        "      3  missed    ORG -> nothing",
        "      2  type      PER -> ORG",
    ]


def test_boxes_have_errors_of_their_own() -> None:
    box, other = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
    gold = (Entity(0, 2, "PER", (box, other)), Entity(3, 5, "LOC", (box,)), Entity(7, 8, "ORG"))
    predicted = [
        Entity(0, 2, "PER"),
        Entity(3, 5, "ORG", (other,)),
        Entity(7, 8, "ORG", (box,)),
        Entity(5, 6, "PER", (box,)),
    ]
    example = Example("a", WORDS, gold)
    errors = errors_of([example], [predicted], grounded=True)
    assert sorted((error["kind"], (error["gold"] or error["predicted"])["text"]) for error in errors) == [
        ("box missing", "Mira Okafor"),
        ("box spurious", "Reds"),
        ("box wrong", "Lake Tamsin"),
        ("spurious", "with"),
        ("type", "Lake Tamsin"),
    ]
    (missing,) = [error for error in errors if error["kind"] == "box missing"]
    assert missing["gold"]["boxes"] == [list(box), list(other)] and missing["predicted"]["boxes"] == []
    table = errors_table(errors, grounded=True)
    assert "      1  box wrong\n" in table and "      1  box wrong     LOC -> ORG\n" in table
    right = [Entity(0, 2, "PER", (other,)), Entity(3, 5, "LOC", ((0.0, 0.0, 10.0, 6.0),)), Entity(7, 8, "ORG")]
    assert errors_of([example], [right], grounded=True) == []
    assert [error["kind"] for error in errors_of([example], [predicted])] == ["spurious", "type"]


SPANS = st.tuples(st.integers(0, 6), st.integers(1, 3), st.sampled_from(["PER", "LOC"]))
ENTITIES = st.lists(SPANS.map(lambda row: Entity(row[0], min(8, row[0] + row[1]), row[2])), max_size=6)


@given(st.lists(st.tuples(ENTITIES, ENTITIES), max_size=4))
def test_errors_add_up_to_what_the_score_lost(sentences: list[tuple[list[Entity], list[Entity]]]) -> None:
    golds = [tuple({entity.span: entity for entity in gold}.values()) for gold, _ in sentences]
    predicted = [found for _, found in sentences]
    examples = [Example(str(number), WORDS, gold) for number, gold in enumerate(golds)]
    errors = errors_of(examples, predicted)
    counts = entity_counts(golds, predicted)
    of = [error["kind"] for error in errors]
    assert len(of) - of.count("spurious") == counts.gold - counts.true_positives
    assert len(of) - of.count("missed") == counts.predicted - counts.true_positives
    for error in errors:
        overlap = error["kind"] in ("boundary", "type")
        assert overlap == (error["gold"] is not None and error["predicted"] is not None)
        if overlap:
            first, second = error["gold"], error["predicted"]
            assert max(first["start"], second["start"]) < min(first["end"], second["end"])
            same_span = (first["start"], first["end"]) == (second["start"], second["end"])
            assert same_span == (error["kind"] == "type") and (not same_span or first["type"] != second["type"])


def test_words_with_the_lowest_alpha() -> None:
    examples = [Example("a", WORDS[:3], GOLD[:1]), Example("b", ("Reds",))]
    logits = [np.log([[0.1, 0.8, 0.1], [0.5, 0.2, 0.3], [0.9, 0.05, 0.05]]), np.log([[0.25, 0.7, 0.05]])]
    lowest = lowest_alpha(judged_words(examples, logits), keep=2)
    assert [item.record() for item in lowest] == [
        {
            "teacher": "detector",
            "id": "b",
            "start": 0,
            "end": 1,
            "text": "Reds",
            "label": "O",
            "alpha": 0.25,
            "opinion": "B",
            "opinion_probability": 0.7,
            "sentence": "Reds",
        },
        {
            "teacher": "detector",
            "id": "a",
            "start": 1,
            "end": 2,
            "text": "Okafor",
            "label": "I",
            "alpha": 0.3,
            "opinion": "O",
            "opinion_probability": 0.5,
            "sentence": "Mira Okafor visits",
        },
    ]


def test_candidates_with_the_lowest_alpha() -> None:
    example = Example("a", WORDS, GOLD)
    candidates = [(example, Span(0, 2)), (example, Span(5, 6)), (example, Span(7, 8))]
    logits = np.log(np.array([[0.1, 0.2, 0.3, 0.4], [0.3, 0.1, 0.5, 0.1], [0.1, 0.8, 0.05, 0.05]]))
    judged = judged_candidates(candidates, logits, types=("LOC", "ORG", "PER"))
    found = [(item.span, item.label, round(item.alpha, 6), item.opinion) for item in lowest_alpha(judged, keep=9)]
    assert found == [
        (Span(5, 6), "non-entity", 0.1, "PER"),
        (Span(0, 2), "PER", 0.3, "non-entity"),
        (Span(7, 8), "ORG", 0.8, "ORG"),
    ]


def test_alpha_is_the_trust_that_the_loss_takes() -> None:
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(0, 3, (2, 1, 4)).astype(np.float32)
    (judged,) = judged_candidates([(Example("a", WORDS, GOLD), Span(7, 8))], teacher, types=("LOC", "ORG", "PER"))
    label, mask = np.array([1]), np.array([True])
    adaptive = trust_your_teacher(student, label, mask, teacher)
    fixed = trust_your_teacher(student, label, mask, teacher, alpha=judged.alpha)
    assert float(adaptive) == pytest.approx(float(fixed), rel=1e-5)


def test_probabilities_stand_large_logits() -> None:
    found = probabilities(np.array([[1000.0, 0.0], [-1000.0, -1000.0]], np.float32))
    assert found.tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_prompt_record() -> None:
    objects = tuple(ImageObject((0.0, 0.0, 2.0, 2.0), label, 0.5, "a region") for label in ("man", "dog"))
    record = prompt_record(
        Example("a", WORDS, GOLD),
        Span(0, 2),
        knowledge=Knowledge("a singer", caption="two people", objects=objects, wikipedia_how="exact", object_order="x"),
        prompt=Prompt((0, 1, 2), 1, (2,), Cut(wikipedia=3)),
        max_objects=1,
        classes=("PER", "non-entity"),
        probabilities=[0.25, 0.75],
    )
    assert record == {
        "id": "a",
        "start": 0,
        "end": 2,
        "text": "Mira Okafor",
        "wikipedia": "a singer",
        "wikipedia_how": "exact",
        "notes": "",
        "caption": "two people",
        "objects": [{"box": (0.0, 0.0, 2.0, 2.0), "label": "man", "score": 0.5, "caption": "a region"}],
        "object_order": "x",
        "cut": {"entity": 0, "sentence": 0, "wikipedia": 3, "notes": 0, "caption": 0, "objects": 0},
        "predicted": "non-entity",
        "probabilities": {"PER": 0.25, "non-entity": 0.75},
    }
