"""Tags: agreement with seqeval's lenient reading, and round trips."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from scanner_jax.tags import bio_labels, entities_from_tags, spans_from_bio, tags_from_entities
from scanner_jax.types import BIO, Entity, Span

TAGS = st.lists(st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]), max_size=12)


def seqeval_entities(tags: list[str]) -> list[tuple[int, int, str]]:
    """seqeval's default reading, its inclusive end made exclusive."""
    return [(start, end + 1, kind) for kind, start, end in get_entities(tags)]


@given(TAGS)
def test_entities_agree_with_seqeval(tags: list[str]) -> None:
    ours = [(entity.start, entity.end, entity.type) for entity in entities_from_tags(tags)]
    assert ours == seqeval_entities(tags)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["I-PER", "I-PER", "O"], [(0, 2, "PER")]),  # an orphan I begins an entity
        (["B-PER", "I-LOC"], [(0, 1, "PER"), (1, 2, "LOC")]),  # so does an I of another type
        (["B-PER", "B-PER"], [(0, 1, "PER"), (1, 2, "PER")]),
        (["I-LOC", "B-LOC", "I-LOC"], [(0, 1, "LOC"), (1, 3, "LOC")]),  # IOB1's use of B
        (["O", "B-LOC"], [(1, 2, "LOC")]),  # an entity may end with the sentence
        (["B-PER-X", "I-PER-X"], [(0, 2, "PER-X")]),
        ([], []),
    ],
)
def test_hand_made_taggings(tags: list[str], expected: list[tuple[int, int, str]]) -> None:
    assert [(entity.start, entity.end, entity.type) for entity in entities_from_tags(tags)] == expected


@pytest.mark.parametrize("tag", ["B", "B-", "I", "I-", "E-PER", "PER", "", "o", "b-PER", "O-PER", "-"])
def test_other_tags_are_refused_by_place(tag: str) -> None:
    with pytest.raises(ValueError, match="at word 1: expected O, B-TYPE or I-TYPE"):
        entities_from_tags(["O", tag])


@given(TAGS)
def test_entities_survive_a_round_trip(tags: list[str]) -> None:
    entities = entities_from_tags(tags)
    written = tags_from_entities(len(tags), entities)
    assert len(written) == len(tags)
    assert entities_from_tags(written) == entities
    assert [tag == "O" for tag in written] == [tag == "O" for tag in tags]


@given(TAGS)
def test_spans_survive_a_round_trip(tags: list[str]) -> None:
    entities = entities_from_tags(tags)
    labels = bio_labels(len(tags), entities)
    assert [BIO[label] for label in labels] == [tag[0] for tag in tags_from_entities(len(tags), entities)]
    assert spans_from_bio(labels) == tuple(entity.span for entity in entities)


@given(st.lists(st.sampled_from(range(len(BIO))), max_size=12))
def test_bio_labels_decode_as_seqeval_reads_them(labels: list[int]) -> None:
    tags = [BIO[label] if BIO[label] == "O" else f"{BIO[label]}-X" for label in labels]
    assert spans_from_bio(labels) == tuple(Span(start, end) for start, end, _ in seqeval_entities(tags))


def test_neighbours_of_one_type_stay_apart() -> None:
    neighbours = (Entity(0, 2, "PER"), Entity(2, 3, "PER"))
    assert tags_from_entities(4, neighbours) == ["B-PER", "I-PER", "B-PER", "O"]
    assert bio_labels(4, neighbours) == [1, 2, 1, 0]
