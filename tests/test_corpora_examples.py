"""Examples on the disk: the same as the records that went in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.corpora.examples import Examples
from scanner_jax.types import Entity, Example

WORDS = st.text(max_size=4)
BOXES = st.lists(st.tuples(*[st.floats(0, 9)] * 4), max_size=2).map(tuple)
ENTITIES = st.builds(Entity, st.integers(-1, 5), st.integers(0, 9), WORDS, BOXES)
EXAMPLES = st.builds(
    lambda identity, words, entities, image: Example(identity, tuple(words), tuple(entities), image),
    WORDS,
    st.lists(WORDS, max_size=4),
    st.lists(ENTITIES, max_size=3),
    st.none() | WORDS,
)


@given(records=st.lists(EXAMPLES, max_size=6), cut=st.slices(6))
def test_what_went_in_comes_out(records: list[Example], cut: slice) -> None:
    examples = Examples(records)
    assert len(examples) == len(records) and list(examples) == records
    assert [examples[index] for index in range(-len(records), len(records))] == records * 2
    assert examples[cut] == tuple(records[cut])
    assert examples == records and examples == Examples(records)
    assert all(example in examples for example in records)


def test_others_are_not_equal() -> None:
    examples = Examples([Example("a", ("b",)), Example("c", ("d",), image_id="c")])
    assert examples != [Example("a", ("b",)), Example("c", ("d",))]
    assert examples != [Example("a", ("b",))] and examples != 3
    with pytest.raises(IndexError):
        examples[2]
    with pytest.raises(IndexError):
        examples[-3]
