"""Where the sequences of a batch stand: each in a row of its own, or several to a row where that is less work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int


@dataclasses.dataclass(frozen=True)
class Place:
    """A sequence's row, its first token there, and its number in that row, from 1."""

    row: int
    start: int
    segment: int

    def tokens(self, length: int) -> slice:
        """Its tokens in that row."""
        return slice(self.start, self.start + length)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A batch's shape and the places of its sequences in it, in the batch's order.

    Attributes:
        rows: rows of the batch; some may hold padding alone.
        tokens: tokens of each row.
        places: one per sequence.
        shared: whether a row may hold more than one of them.
    """

    rows: int
    tokens: int
    places: tuple[Place, ...]
    shared: bool

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.tokens

    @property
    def work(self) -> float:
        """A step's work, roughly: in rows of 512 tokens a token costs as much for attention as for all else."""
        return self.rows * self.tokens * (1 + self.tokens / 512)

    def segments(self, lengths: Sequence[int]) -> Int[np.ndarray, "r t"] | Bool[np.ndarray, "r t"]:
        """The sequence of its row that each token belongs to, from 1, and 0 at padding; bools if none is shared."""
        segments = np.zeros(self.shape, np.int32 if self.shared else bool)
        for place, length in zip(self.places, lengths, strict=True):
            segments[place.row, place.tokens(length)] = place.segment
        return segments


def lay_out(lengths: Sequence[int], *, batch_size: int, buckets: tuple[int, ...], pack_width: int = 0) -> Layout:
    """Find places for a batch's sequences, the same ones every time.

    Rows are shared unless rows of their own were a tenth less work. There are as many as it takes, rounded up to an
    eighth of `batch_size`, so that few shapes come up, each of which must be compiled. A batch with a sequence longer
    than `pack_width` has rows of the bucket that holds it.

    Args:
        lengths: of at most `batch_size` sequences.
        batch_size: rows where none is shared.
        buckets: numbers of tokens that a row may have.
        pack_width: tokens of a row that sequences share, at most the largest bucket; 0 shares none.

    Raises:
        ValueError: a sequence is longer than the largest bucket.
    """
    own = Layout(
        rows=batch_size,
        tokens=bucket_for(max(lengths), buckets),
        places=tuple(Place(row, 0, 1) for row in range(len(lengths))),
        shared=False,
    )
    if pack_width <= 0:
        return own
    width = min(pack_width, max(buckets))
    tokens = width if width >= max(lengths) else own.tokens
    places, used = first_fit_decreasing(lengths, tokens)
    step = max(1, batch_size // 8)
    shared = Layout(rows=min(batch_size, -(-used // step) * step), tokens=tokens, places=places, shared=True)
    return own if own.work < 0.9 * shared.work else shared


def first_fit_decreasing(lengths: Sequence[int], tokens: int) -> tuple[tuple[Place, ...], int]:
    """Put each sequence, the longest first, into the first row that has room for it.

    Args:
        lengths: none above `tokens`; of equal ones the earlier comes first.
        tokens: of each row.

    Returns:
        The places in the order of `lengths`, and how many rows they take.
    """
    filled: list[list[int]] = []
    places: dict[int, Place] = {}
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        row = next((r for r, held in enumerate(filled) if sum(held) + lengths[index] <= tokens), len(filled))
        if row == len(filled):
            filled.append([])
        places[index] = Place(row, sum(filled[row]), len(filled[row]) + 1)
        filled[row].append(lengths[index])
    return tuple(places[index] for index in range(len(lengths))), len(filled)


def bucket_for(length: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds `length` tokens.

    Raises:
        ValueError: none does.
    """
    fitting = [bucket for bucket in buckets if bucket >= length]
    if not fitting:
        raise ValueError(f"a sequence of {length} tokens, but the largest bucket is {max(buckets)}")
    return min(fitting)
