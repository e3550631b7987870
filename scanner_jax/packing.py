"""Where the sequences of a batch stand: each in a row of its own, or several to a row where that is less work."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
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
        """A step's work, roughly."""
        return _work(self.rows, self.tokens)

    def segments(self, lengths: Sequence[int]) -> Int[np.ndarray, "r t"] | Bool[np.ndarray, "r t"]:
        """The sequence of its row that each token belongs to, from 1, and 0 at padding; bools if none is shared."""
        segments = np.zeros(self.shape, np.int32 if self.shared else bool)
        for place, length in zip(self.places, lengths, strict=True):
            segments[place.row, place.tokens(length)] = place.segment
        return segments


def _work(rows: int, tokens: int) -> float:
    """In tokens of short rows: in rows of 512 tokens a token costs as much for attention as for all else."""
    return rows * tokens * (1 + tokens / 512)


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


def row_counts(batch_size: int) -> list[int]:
    """The rows that `fit_batches` gives batches: powers of two, and `batch_size`, so that few programs are compiled."""
    return [*(1 << power for power in range((batch_size - 1).bit_length())), batch_size]


def fit_batches(
    lengths: Sequence[int], *, batch_size: int, buckets: tuple[int, ...], overhead: float
) -> list[tuple[int, int]]:
    """Cut sequences into batches, each with the rows and tokens that it needs, such that all is least work.

    Args:
        lengths: ascending.
        batch_size: sequences, and rows, that a batch has at most.
        buckets: numbers of tokens that a row may have.
        overhead: of a batch, whatever is in it, as tokens that are read in the same time.

    Returns:
        Of each batch, in order, how many sequences it takes and how many rows it has.

    Raises:
        ValueError: a sequence is longer than the largest bucket.
    """
    tokens = [bucket_for(length, buckets) for length in lengths]
    sizes = row_counts(batch_size)
    ends = [last for last in range(1, len(tokens) + 1) if tokens[last - 1 : last] != tokens[last : last + 1]]
    # From each sequence on, the least work for it and all that follow, and what its batch then is.
    best = [(0.0, 0, 0)] * (len(lengths) + 1)
    for first in reversed(range(len(lengths))):
        # A batch that ends within a bucket may as well take more of it, until its rows are full.
        near = itertools.takewhile((first + batch_size).__ge__, ends[bisect.bisect_right(ends, first) :])
        counts = {*(min(size, len(lengths) - first) for size in sizes), *(end - first for end in near)}
        choices = []
        for count in counts:
            rows = next(size for size in sizes if size >= count)
            work = _work(rows, tokens[first + count - 1]) + overhead + best[first + count][0]
            choices.append((work, count, rows))
        best[first] = min(choices)
    batches, first = [], 0
    while first < len(lengths):
        _, count, rows = best[first]
        batches.append((count, rows))
        first += count
    return batches


def bucket_for(length: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds `length` tokens.

    Raises:
        ValueError: none does.
    """
    fitting = [bucket for bucket in buckets if bucket >= length]
    if not fitting:
        raise ValueError(f"a sequence of {length} tokens, but the largest bucket is {max(buckets)}")
    return min(fitting)
