"""Training with the word embeddings in use alone; the rows that no example touches are put back afterwards.

A row that no batch holds has no gradient: it adds nothing to the gradient's norm, AdamW's moments stay 0, and all that
happens to it is weight decay, which `optim.decay_factors` has in closed form. So what is learned is what training with
the whole table learns, but the 250,002 rows of XLM-RoBERTa, their gradient and their moments need not be moved at every
step for the few that a corpus has.

Tables are found by the encoder's name for them, in parameters and in the moments of an optimizer's state alike.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int

from scanner_jax.encoder import Params
from scanner_jax.pipeline import Batch

Tree = TypeVar("Tree")
Collate = Callable[..., Batch]

_TABLE = ("embeddings", "word", "embedding")
"""Where the word embeddings are, at the end of a leaf's path."""


class VocabularyError(ValueError):
    """Rows that are needed are not there, or some that are trained would be lost."""


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The rows of the table of word embeddings that are held, in rising order.

    Attributes:
        rows: their token ids.
        size: rows of the whole table.
    """

    rows: Int[np.ndarray, " u"]
    size: int

    @classmethod
    def of(cls, token_ids: Iterable[Sequence[int] | Int[np.ndarray, " t"]], *, size: int) -> Vocabulary:
        """The rows that some sequences touch, and row 0, which stands in batches where there is padding.

        Raises:
            VocabularyError: an id is not one of the table's.
        """
        used = np.zeros(size, bool)
        used[0] = True
        for ids in token_ids:
            if len(ids) and not 0 <= min(ids) <= max(ids) < size:
                raise VocabularyError(f"token ids from {min(ids)} to {max(ids)}, but the table has {size} rows")
            used[np.asarray(ids, np.int64)] = True
        return cls(np.flatnonzero(used), size)

    @classmethod
    def whole(cls, size: int) -> Vocabulary:
        """All rows."""
        return cls(np.arange(size), size)

    @property
    def is_whole(self) -> bool:
        return len(self.rows) == self.size

    def shrink(self, tree: Tree) -> Tree:
        """Keep of every whole table in a tree the rows that are held."""
        return tree if self.is_whole else _at_tables(tree, lambda table: table[self.rows])

    def grow(self, tree: Tree, others: Float[np.ndarray, "v d"]) -> Tree:
        """Put the rows of every table in a tree in their places in a whole one; such tables come as numpy arrays."""

        def put(table: Any) -> Float[np.ndarray, "v d"]:
            whole = np.array(others, table.dtype)
            whole[self.rows] = table
            return whole

        return tree if self.is_whole else _at_tables(tree, put)

    def renumbered(self, collate: Collate) -> Collate:
        """Make batches whose token ids count the rows that are held."""
        if self.is_whole:
            return collate
        places = np.full(self.size, -1, np.int32)
        places[self.rows] = np.arange(len(self.rows))
        return functools.partial(_renumbered, places, collate)


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a training that may hold a part of the vocabulary.

    Attributes:
        held: the part.
        start: the whole table as training began.
        factors: what weight decay has made of the other rows after each number of steps.
    """

    held: Vocabulary
    start: Float[np.ndarray, "v d"]
    factors: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, params: Params, held: Vocabulary | None, factors: Float[np.ndarray, " n"]) -> Tables:
        """The tables of a training that begins with these parameters; None holds all of the vocabulary.

        Raises:
            VocabularyError: the parameters have another vocabulary.
        """
        start = np.asarray(next(_tables(params), np.zeros((0, 0))))
        if held is not None and held.size != len(start):
            raise VocabularyError(f"a vocabulary of {held.size:,} rows, but the parameters have {len(start):,}")
        return cls(held or Vocabulary.whole(len(start)), start, factors)

    @property
    def rows(self) -> list[int] | None:
        """The rows that are held, as a checkpoint keeps them; None for all."""
        return None if self.held.is_whole else self.held.rows.tolist()

    def abstract(self, state: Tree, rows: list[int] | None) -> Tree:
        """Shapes and types of a state that holds these rows of the vocabulary."""
        count = len(self.start) if rows is None else len(rows)
        return _at_tables(
            jax.eval_shape(lambda: state), lambda table: jax.ShapeDtypeStruct((count, *table.shape[1:]), table.dtype)
        )

    def whole(self, params: Params, step: int) -> Params:
        """The parameters after so many steps with whole tables."""
        return self.held.grow(params, self._others(step))

    def params_of(self, rows: list[int] | None, params: Params, step: int) -> Params:
        """The parameters after so many steps of the same training that held these rows."""
        if rows == self.rows:
            return params
        return self.held.shrink(self._vocabulary(rows).grow(params, self._others(step)))

    def moments_of(self, rows: list[int] | None, opt_state: Tree) -> Tree:
        """The optimizer's state of the same training that held these rows.

        Raises:
            VocabularyError: that training changed rows that are not held here, so it was not the same.
        """
        if rows == self.rows:
            return opt_state
        other = self._vocabulary(rows)
        whole = other.grow(opt_state, np.zeros_like(self.start))
        lost = np.setdiff1d(other.rows, self.held.rows)
        if any(np.any(table[lost]) for table in _tables(whole)):
            raise VocabularyError(
                "the checkpoint has trained embeddings of tokens that are not in the vocabulary in use; go on as the "
                "run began, with --config.execution.used_vocabulary=False"
            )
        return self.held.shrink(whole)

    def _vocabulary(self, rows: list[int] | None) -> Vocabulary:
        return Vocabulary.whole(len(self.start)) if rows is None else Vocabulary(np.array(rows), len(self.start))

    def _others(self, step: int) -> Float[np.ndarray, "v d"]:
        """The whole table after so many steps, where it is not held."""
        return self.start * self.start.dtype.type(self.factors[step])


def _renumbered(places: Int[np.ndarray, " v"], collate: Collate, *features: Any, **options: Any) -> Batch:
    batch = collate(*features, **options)
    token_ids = places[batch["token_ids"]]
    if (token_ids < 0).any():
        strange = sorted(set(batch["token_ids"][token_ids < 0].tolist()))
        raise VocabularyError(f"token ids {strange[:5]} are not in the vocabulary that is trained")
    return batch | {"token_ids": token_ids}


def _tables(tree: Any) -> Iterator[Any]:
    return (leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if _is_table(path))


def _at_tables(tree: Any, change: Callable[[Any], Any]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: change(leaf) if _is_table(path) else leaf, tree)


def _is_table(path: Any) -> bool:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path[-len(_TABLE) :]) == _TABLE
