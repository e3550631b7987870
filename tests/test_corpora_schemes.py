"""Tagging schemes against seqeval: the lenient reading on any tags, the strict ones on each scheme's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import BILOU, IOB1, IOB2, IOBES, Entities

from scanner_jax.corpora.schemes import SCHEMES, TagScheme, name_scheme, read_tags, write_tags
from scanner_jax.types import Entity

STRICT = {"IOB1": IOB1, "IOB2": IOB2, "BIOES": IOBES, "BILOU": BILOU}
TYPES = ["PER", "creative-work"]


@st.composite
def annotated(draw: st.DrawFn) -> tuple[int, tuple[Entity, ...]]:
    """A sentence's length and its entities; many of them touch."""
    entities, place = [], 0
    for gap, size, kind in draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(TYPES)), max_size=6)
    ):
        entities.append(Entity(place + gap, place + gap + size, kind))
        place += gap + size
    return max(1, place + draw(st.integers(0, 2))), tuple(entities)


def tags_of(prefixes: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in prefixes for kind in ("X", "Y"))]))


def strict(tags: list[str], scheme: type) -> list[tuple[int, int, str]]:
    (found,) = Entities([tags], scheme).entities
    return [(entity.start, entity.end, entity.tag) for entity in found]


def triples(entities: tuple[Entity, ...]) -> list[tuple[int, int, str]]:
    return [(entity.start, entity.end, entity.type) for entity in entities]


@given(tags_of("BIES"))
def test_any_tags_are_read_as_seqeval_reads_them_by_default(tags: list[str]) -> None:
    assert triples(read_tags(tags)) == [(start, end + 1, kind) for kind, start, end in get_entities(tags)]


@given(tags_of("BIES"))
def test_l_and_u_read_as_e_and_s(tags: list[str]) -> None:
    other = [tag.replace("E-", "L-").replace("S-", "U-") for tag in tags]
    assert read_tags(other) == read_tags(tags)


@pytest.mark.parametrize("name", SCHEMES)
@given(sentence=annotated())
def test_each_scheme_is_written_and_read_as_seqeval_reads_it_strictly(name: str, sentence) -> None:
    length, entities = sentence
    tags = write_tags(name, length, entities)
    assert len(tags) == length
    assert triples(entities) == strict(tags, STRICT[name])
    assert read_tags(tags) == entities
    assert str(name_scheme([("a", tags, entities)])) == (name if entities else "O alone")


@pytest.mark.parametrize("tag", ["B", "B-", "X-PER", "PER", "b-PER", "", "_", "-PER"])
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="at word 1"):
        read_tags(["O", tag])


def test_a_split_of_mixed_schemes_is_named_after_the_nearest_with_its_exceptions() -> None:
    sentences = {
        "one": ["B-X", "I-X", "O", "B-Y"],
        "two": ["S-X", "O", "B-X", "E-X"],  # two words of BIOES
        "three": ["B-X", "O", "O", "O"],
    }
    found = name_scheme([(name, tags, read_tags(tags)) for name, tags in sentences.items()])
    assert found == TagScheme("IOB2", 2, "two")
    assert str(found) == "lenient (nearest IOB2; 2 tags break it, the first in two)"


def test_orphans_make_a_split_lenient() -> None:
    tags = ["O", "I-PER", "I-PER", "O", "B-LOC"]
    assert name_scheme([("a", tags, read_tags(tags)), ("b", ["B-PER"], read_tags(["B-PER"]))]) == TagScheme(
        "IOB2", 1, "a"
    )
