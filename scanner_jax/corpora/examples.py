"""A split's examples in little memory."""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar, overload

from scanner_jax.types import Entity, Example

Value = TypeVar("Value", bound=Hashable)

_NO_IMAGE, _OWN_ID, _OTHER = range(3)
"""What an example's image goes by."""


class Examples(Sequence[Example]):
    """A sequence of examples of which each takes about 4 bytes a word and an entity, and 20 more.

    An example is made when it is asked for, in some microseconds; equal words of all are one string in memory, and
    equal entities one entity. It equals any other sequence of equal examples.
    """

    def __init__(self, examples: Iterable[Example] = ()) -> None:
        self._ids = bytearray()
        self._words, self._entities = _Numbered[str](), _Numbered[Entity]()
        self._id_ends, self._word_ends, self._entity_ends = array("I", [0]), array("I", [0]), array("I", [0])
        self._images = bytearray()
        self._other_images: dict[int, str] = {}
        for example in examples:
            self.append(example)

    def append(self, example: Example) -> None:
        """Add an example behind the others."""
        if example.image_id not in (None, example.id):
            self._other_images[len(self)] = str(example.image_id)
        kinds = {None: _NO_IMAGE, example.id: _OWN_ID}
        self._images.append(kinds.get(example.image_id, _OTHER))
        self._ids += example.id.encode()
        self._id_ends.append(len(self._ids))
        self._word_ends.append(self._words.extend(example.words))
        self._entity_ends.append(self._entities.extend(example.entities))

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Example]:
        return map(self._example, range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        chosen = range(len(self))[index]
        return self._example(chosen) if isinstance(chosen, int) else tuple(map(self._example, chosen))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<{len(self):,} examples>"

    def _example(self, index: int) -> Example:
        identity = self._ids[self._id_ends[index] : self._id_ends[index + 1]].decode()
        kind = self._images[index]
        return Example(
            identity,
            self._words[self._word_ends[index] : self._word_ends[index + 1]],
            self._entities[self._entity_ends[index] : self._entity_ends[index + 1]],
            identity if kind == _OWN_ID else self._other_images.get(index),
        )


class _Numbered(Generic[Value]):
    """Values in a row, each kept once and known by a number of 4 bytes."""

    def __init__(self) -> None:
        self._row = array("I")
        self._numbers: dict[Value, int] = {}
        self._values: list[Value] = []

    def extend(self, values: Iterable[Value]) -> int:
        """Add values and return how many there are then."""
        for value in values:
            number = self._numbers.setdefault(value, len(self._values))
            if number == len(self._values):
                self._values.append(value)
            self._row.append(number)
        return len(self._row)

    def __getitem__(self, chosen: slice) -> tuple[Value, ...]:
        return tuple(map(self._values.__getitem__, self._row[chosen]))
