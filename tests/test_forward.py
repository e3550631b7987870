"""Forward passes: each shape compiled once, ahead of its first batch, and the same numbers as without."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from line_training import closeness, run

from scanner_jax.forward import Forward, Passes
from scanner_jax.pipeline import Batch
from scanner_jax.stepping import shape_of

PARAMS = {"scale": np.float32(3)}


@dataclasses.dataclass(frozen=True)
class Item:
    number: int
    length: int


def collate(items: Sequence[Item], *, batch_size: int) -> Batch:
    """Padded to a multiple of 4."""
    batch = {"numbers": np.zeros((batch_size, -max(item.length for item in items) // 4 * -4), np.float32)}
    for row, item in enumerate(items):
        batch["numbers"][row, : item.length] = item.number
    return batch


class Counted:
    """A forward pass that remembers the widths it was traced for."""

    def __init__(self) -> None:
        self.traced: list[int] = []

    def __call__(self, params: Any, batch: Batch) -> Any:
        self.traced.append(batch["numbers"].shape[1])
        return params["scale"] * batch["numbers"].sum(axis=1)


ITEMS = [Item(number, length) for number, length in enumerate([1, 9, 2, 5, 3, 12, 6, 11, 4])]


def test_rows_are_those_of_the_function_and_each_shape_is_traced_once() -> None:
    counted = Counted()
    forward = Forward(counted)
    for _ in range(2):
        found = {item: float(row) for item, row in Passes(forward, PARAMS, ITEMS, collate, 2).rows()}
        assert found == {item: 3.0 * item.number * item.length for item in ITEMS}
    assert sorted(counted.traced) == [4, 8, 12]


def test_what_was_compiled_ahead_is_not_compiled_again() -> None:
    counted = Counted()
    passes = Passes(Forward(counted), PARAMS, ITEMS, collate, 2)
    ahead = passes.missing()
    assert counted.traced == [] and len(ahead) == 3
    for compile_one in ahead:
        compile_one()
    assert counted.traced == [4, 8, 12] and passes.missing() == []
    assert len(list(passes.rows())) == len(ITEMS)
    assert counted.traced == [4, 8, 12]


def test_a_program_is_waited_for_where_another_thread_compiles_it() -> None:
    begun, going_on, traced = threading.Event(), threading.Event(), []

    def slow(params: Any, batch: Batch) -> Any:
        traced.append(batch)
        begun.set()
        assert going_on.wait(10)
        return params["scale"] * batch["numbers"]

    forward, batch = Forward(slow), collate(ITEMS[:2], batch_size=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(forward.compiled, PARAMS, shape_of(batch))
        assert begun.wait(10)
        second = pool.submit(forward.compiled, PARAMS, batch)
        going_on.set()
        assert first.result() is second.result()
    assert len(traced) == 1


def test_what_cannot_be_compiled_says_so_when_it_is_needed() -> None:
    def wrong(params: Any, batch: Batch) -> Any:
        return jnp.zeros(3) + batch["numbers"]

    passes = Passes(Forward(wrong), PARAMS, ITEMS[:1], collate, 2)
    with pytest.raises(ValueError, match="Incompatible shapes"):
        list(passes.rows())


def test_a_training_calls_what_compiles_evaluation_beside_its_steps(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    threads: list[int] = []
    begun = threading.Semaphore(0)

    def compile_one() -> None:
        threads.append(threading.get_ident())
        begun.release()

    def evaluate(params: Any) -> dict[str, float]:
        if not waited:  # so that the training does not end before they are called
            waited.append(begun.acquire(timeout=10) and begun.acquire(timeout=10))
        return closeness(params)

    waited: list[bool] = []
    with_it = run(tmp_path / "with", evaluate=evaluate, ahead=[compile_one, compile_one])
    assert len(threads) == 2 and threading.get_ident() not in threads
    said = capsys.readouterr()
    assert "and for 2 of evaluation's" in said.err + said.out
    without = run(tmp_path / "without", evaluate=closeness)
    for name, value in without.items():
        np.testing.assert_array_equal(value, with_it[name])
