"""A split's examples, which lie on the disk."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from itertools import starmap
from typing import Any

from scanner_jax.spill import SpilledList
from scanner_jax.types import Entity, Example


class Examples(SpilledList[Example]):
    """A sequence of examples that takes no memory for each: one is read when it is asked for, in some microseconds.

    It equals any other sequence of equal examples.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        super().__init__(examples, pack=_packed, unpack=_unpacked)


def _packed(example: Example) -> Any:
    entities = [(entity.start, entity.end, entity.type, entity.boxes) for entity in example.entities]
    return example.id, example.words, entities, example.image_id


def _unpacked(packed: Any) -> Example:
    identity, words, entities, image_id = packed
    return Example(identity, words, tuple(starmap(_entity, entities)), image_id)


_entity = functools.lru_cache(maxsize=2**12)(Entity)  # made once, since corpora are full of equal ones
