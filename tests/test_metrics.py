"""Metrics: hand-made cases, and agreement with seqeval and conlleval on random taggings."""

from __future__ import annotations

import warnings

import conlleval
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

from scanner_jax.metrics import (
    Counts,
    entity_counts,
    metrics_table,
    recognizer_scores,
    seen_counts,
    span_counts,
    surfaces,
    type_counts,
)
from scanner_jax.tags import entities_from_tags
from scanner_jax.types import Entity, Example

TAG = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"])
ORPHANS = [[("I-PER", "I-PER"), ("I-LOC", "I-PER"), ("O", "I-LOC"), ("I-LOC", "B-LOC"), ("I-LOC", "I-LOC")]]
TWO_TAGGINGS = st.lists(st.lists(st.tuples(TAG, TAG), max_size=8), min_size=1, max_size=5)


def split_taggings(sentences):
    """A list of sentences of pairs as two lists of tag sequences, and the entities of each."""
    tags = [[[pair[side] for pair in sentence] for sentence in sentences] for side in (0, 1)]
    return *tags, *([entities_from_tags(sentence) for sentence in side] for side in tags)


def seqeval_scores(gold, predicted, average):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return precision_recall_fscore_support(gold, predicted, average=average, zero_division=0)


@given(TWO_TAGGINGS)
@example(ORPHANS)
def test_micro_agrees_with_seqeval(sentences):
    gold_tags, predicted_tags, gold, predicted = split_taggings(sentences)
    counts = entity_counts(gold, predicted)
    precision, recall, f1, support = seqeval_scores(gold_tags, predicted_tags, "micro")
    assert (counts.precision, counts.recall, counts.f1) == pytest.approx((100 * precision, 100 * recall, 100 * f1))
    assert counts.gold == support


@given(TWO_TAGGINGS)
@example(ORPHANS)
def test_types_agree_with_seqeval(sentences):
    gold_tags, predicted_tags, gold, predicted = split_taggings(sentences)
    per_type = type_counts(gold, predicted)
    expected = list(zip(*seqeval_scores(gold_tags, predicted_tags, None), strict=True)) if per_type else []
    assert [counts.gold for counts in per_type.values()] == [row[3] for row in expected]
    for counts, (precision, recall, f1, _) in zip(per_type.values(), expected, strict=True):
        assert (counts.precision, counts.recall, counts.f1) == pytest.approx((100 * precision, 100 * recall, 100 * f1))


@given(TWO_TAGGINGS)
@example(ORPHANS)
def test_counts_agree_with_conlleval(sentences):
    _, _, gold, predicted = split_taggings(sentences)
    lines = [line for sentence in sentences for line in [*(f"word {a} {b}" for a, b in sentence), "-X- O O"]]
    found = conlleval.evaluate(lines)

    def counted(part):
        return Counts(part["stats"]["correct"], part["stats"]["pred"], part["stats"]["gold"])

    assert counted(found["overall"]["chunks"]) == entity_counts(gold, predicted)
    per_type = {name: counted(part) for name, part in found["slots"]["chunks"].items()}
    assert per_type == type_counts(gold, predicted)


def test_an_orphan_begins_an_entity():
    _, _, gold, predicted = split_taggings(ORPHANS)
    assert entity_counts(gold, predicted) == Counts(true_positives=1, predicted=3, gold=3)


@given(TWO_TAGGINGS)
def test_spans_agree_with_seqeval_without_types(sentences):
    _, _, gold, predicted = split_taggings(sentences)
    one_type = [[[Entity(e.start, e.end, "X") for e in sentence] for sentence in side] for side in (gold, predicted)]
    assert span_counts(gold, predicted) == entity_counts(*one_type)
    assert span_counts(gold, predicted).true_positives >= entity_counts(gold, predicted).true_positives


@given(TWO_TAGGINGS, st.frozensets(st.sampled_from(["a", "b", "a b", "b a"])))
def test_parts_add_up(sentences, training_surfaces):
    _, _, gold, predicted = split_taggings(sentences)
    examples = [
        Example(str(index), tuple("ab"[word % 2] for word in range(len(sentence))), entities)
        for index, (sentence, entities) in enumerate(zip(sentences, gold, strict=True))
    ]
    whole = entity_counts(gold, predicted)
    assert sum(type_counts(gold, predicted).values(), start=Counts()) == whole
    seen, unseen = seen_counts(examples, predicted, training_surfaces=training_surfaces)
    assert seen + unseen == whole
    middle = len(sentences) // 2
    parts = entity_counts(gold[:middle], predicted[:middle]), entity_counts(gold[middle:], predicted[middle:])
    assert parts[0] + parts[1] == whole


def test_span_and_type_must_both_be_right():
    gold = [[Entity(0, 2, "PER"), Entity(4, 5, "LOC")], [Entity(0, 1, "ORG")]]
    predicted = [[Entity(0, 2, "PER"), Entity(4, 5, "ORG"), Entity(2, 3, "LOC")], []]
    assert entity_counts(gold, predicted) == Counts(true_positives=1, predicted=3, gold=3)
    assert span_counts(gold, predicted) == Counts(true_positives=2, predicted=3, gold=3)
    assert type_counts(gold, predicted) == {"LOC": Counts(0, 1, 1), "ORG": Counts(0, 1, 1), "PER": Counts(1, 1, 1)}


def test_the_last_prediction_of_a_span_stands():
    gold = [[Entity(0, 1, "PER")]]
    right_last = [[Entity(0, 1, "LOC"), Entity(0, 1, "PER")]]
    wrong_last = [[Entity(0, 1, "PER"), Entity(0, 1, "LOC")]]
    assert entity_counts(gold, right_last) == Counts(1, 1, 1)
    assert entity_counts(gold, wrong_last) == Counts(0, 1, 1)
    assert type_counts(gold, wrong_last) == {"LOC": Counts(0, 1, 0), "PER": Counts(0, 0, 1)}
    assert span_counts(gold, wrong_last) == Counts(1, 1, 1)


def test_boxes_play_no_part():
    gold, predicted = [[Entity(0, 1, "PER", ((0.0, 0.0, 4.0, 4.0),))]], [[Entity(0, 1, "PER")]]
    assert entity_counts(gold, predicted) == Counts(1, 1, 1)


def test_the_same_span_of_two_sentences_is_two_entities():
    entity = Entity(0, 1, "PER")
    assert entity_counts([[entity], [entity]], [[entity], []]) == Counts(1, 1, 2)


def test_scores_are_rounded_percentages_and_0_when_undefined():
    assert Counts(1, 3, 6).prf() == {"precision": 33.33, "recall": 16.67, "f1": 22.22, "support": 6}
    assert Counts().prf() == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert Counts(0, 2, 0).prf() == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_a_missing_sentence_is_refused():
    with pytest.raises(ValueError, match="2 sentences of gold entities but 1 of predicted"):
        entity_counts([[], []], [[]])


def test_recognizer_scores_split_seen_from_unseen_by_exact_surface():
    training = [Example("t", ("Ada", "Quill", "left"), (Entity(0, 2, "PER"),))]
    test = [
        Example("a", ("Ada", "Quill", "met", "ada", "quill"), (Entity(0, 2, "PER"), Entity(3, 5, "PER"))),
        Example("b", ("see", "Brambleton", "now"), (Entity(1, 2, "LOC"),)),
    ]
    predicted = [[Entity(0, 2, "LOC"), Entity(3, 5, "PER")], [Entity(1, 3, "LOC")]]
    assert surfaces(training) == {"Ada Quill"}
    assert recognizer_scores(test, predicted, training_surfaces=surfaces(training)) == {
        "micro": {"precision": 33.33, "recall": 33.33, "f1": 33.33, "support": 3},
        "per_type": {
            "LOC": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
            "PER": {"precision": 100.0, "recall": 50.0, "f1": 66.67, "support": 2},
        },
        "seen": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1},
        "unseen": {"precision": 50.0, "recall": 50.0, "f1": 50.0, "support": 2},
    }


def test_a_span_outside_its_sentence_is_unseen():
    test = [Example("a", ("Ada", "left"), (Entity(0, 1, "PER"),))]
    for start, end in ((0, 3), (-2, 1), (1, 1), (5, 6)):
        seen, unseen = seen_counts(test, [[Entity(start, end, "PER")]], training_surfaces={"Ada left", "Ada", ""})
        assert (seen, unseen) == (Counts(0, 0, 1), Counts(0, 1, 0))


def test_table():
    metrics = {
        "detector": {"dev": None, "test": Counts(4, 5, 5207).prf()},
        "recognizer": {"test": {"micro": Counts(1, 1, 1).prf(), "candidates": {"gold": 12, "share": 0.5}}},
        "sentences": 3,
    }
    assert metrics_table(metrics).splitlines() == [
        "                            precision     recall         f1    support",
        "detector dev                        -          -          -          -",
        "detector test                   80.00       0.08       0.15       5207",
        "recognizer test micro          100.00     100.00     100.00          1",
        "",
        "recognizer test candidates   gold 12, share 0.50",
        "sentences                    3",
    ]
    assert metrics_table({"detector": {"dev": Counts(1, 1, 1).prf()}}).count("\n") == 2
