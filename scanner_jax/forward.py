"""A model's forward pass over features, compiled once for each shape of a batch and ahead of the first one."""

from __future__ import annotations

import functools
import logging
import operator
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, NamedTuple

import jax
import numpy as np

from scanner_jax.encoder import Params
from scanner_jax.packing import fit_batches
from scanner_jax.pipeline import Batch, Features
from scanner_jax.placement import ONE_DEVICE, Placement
from scanner_jax.stepping import shape_of

logger = logging.getLogger(__name__)

CPU_OVERHEAD, OVERHEAD = 16.0, 4096.0
"""What a batch costs beside what is in it, in tokens: on a CPU its dispatch; elsewhere, what it takes to keep the
device busy. **Assumption:** the second was not measured."""

Fit = Callable[..., Iterable[tuple[int, int]]]
"""(lengths, batch_size=...) -> each batch's sequences and rows, as `packing.fit_batches`."""


class Forward:
    """The programs of `function(params, batch)`; one object for what is to be shared."""

    def __init__(self, function: Callable[[Params, Batch], Any], placement: Placement = ONE_DEVICE) -> None:
        self.placement = placement
        self._jitted = jax.jit(function, out_shardings=placement.everywhere)
        self._lock = threading.Lock()
        self._programs: dict[Hashable, Future[jax.stages.Compiled]] = {}

    def compiled(self, params: Params, batch: Batch) -> jax.stages.Compiled:
        """The program for arrays of these shapes: compiled by the thread that asks first, waited for by others."""
        own = Future[jax.stages.Compiled]()
        with self._lock:
            program = self._programs.setdefault(_key((params, batch)), own)
        if program is own:
            try:
                place, shapes = self.placement, shape_of((params, batch))
                own.set_result(self._jitted.lower(place.abstract(shapes[0]), place.abstract_batch(shapes[1])).compile())
            except BaseException as error:
                own.set_exception(error)
        return program.result()

    def has(self, params: Params, batch: Batch) -> bool:
        """Whether anybody has asked for these shapes."""
        return _key((params, batch)) in self._programs


class Passes(NamedTuple, Generic[Features]):
    """A forward pass over all of some features; the last four are arguments of `predict`."""

    forward: Forward
    params: Params
    features: Sequence[Features]
    collate: Callable[..., Batch]
    batch_size: int
    fit: Fit | None = None

    def missing(self) -> list[Callable[[], object]]:
        """What compiles the programs that nobody has asked for yet, a call for each shape, in the batches' order."""
        # A batch's shape follows from its longest member, so that one stands for all of them.
        batches = by_length(self.features, self.batch_size, self.fit)
        longest = ((self.features[places[-1]], rows) for places, rows in batches)
        each = {(item.length, rows): item for item, rows in longest}
        shapes = (shape_of(self.collate([item], batch_size=rows)) for (_, rows), item in each.items())
        return [
            functools.partial(self.forward.compiled, self.params, shape)
            for shape in {_key(shape): shape for shape in shapes}.values()
            if not self.forward.has(self.params, shape)
        ]

    def rows(self) -> Iterator[tuple[Features, Any]]:
        """Run them as `predict` does; what has to be compiled is, some shapes at a time and beside batches."""
        programs: dict[Hashable, jax.stages.Compiled] = {}

        def run(params: Params, batch: Batch) -> Any:
            key = _key(batch)
            if key not in programs:
                programs[key] = self.forward.compiled(params, batch)
            return programs[key](params, self.forward.placement.put_batch(batch))

        pool = _pool()
        try:
            if missing := self.missing():
                logger.info("compiling forward passes for %d shapes of batches", len(missing))
            for compile_one in missing:
                pool.submit(compile_one)
            params = self.forward.placement.put(self.params)
            yield from predict(run, params, self.features, self.collate, batch_size=self.batch_size, fit=self.fit)
        finally:
            pool.shutdown(cancel_futures=True)


def predict(
    forward: Callable[[Any, Batch], Any],
    params: Any,
    features: Sequence[Features],
    collate: Callable[..., Batch],
    *,
    batch_size: int,
    fit: Fit | None = None,
) -> Iterator[tuple[Features, Any]]:
    """Run a jitted `forward(params, batch)` over features, sorted by length so that little is padding.

    Args:
        forward: what to run.
        params: its parameters, on the device.
        features: in any order.
        collate: makes a batch of some, with so many rows.
        batch_size: features of a batch, and its rows.
        fit: cuts batches of other sizes instead, up to that one.

    Yields:
        Each feature with its row of the output (a tree of numpy arrays), in the order of computation.
    """
    for places, rows in by_length(features, batch_size, fit):
        chosen = [features[place] for place in places]
        output = jax.device_get(forward(params, collate(chosen, batch_size=rows)))
        for row, item in enumerate(chosen):
            yield item, jax.tree.map(operator.itemgetter(row), output)


def by_length(features: Sequence[Features], batch_size: int, fit: Fit | None = None) -> Iterator[tuple[list[int], int]]:
    """Where the features of each batch of `predict` are, the longest last, and the batch's rows."""
    lengths = np.array([item.length for item in features], np.int32)
    order = np.argsort(lengths, kind="stable")
    sizes: Iterable[tuple[int, int]] = [(batch_size, batch_size)] * -(-len(order) // batch_size)
    if fit is not None:
        sizes = fit(lengths[order].tolist(), batch_size=batch_size)
    start = 0
    for count, rows in sizes:
        yield order[start : start + count].tolist(), rows
        start += count


def fitting(buckets: tuple[int, ...]) -> Fit:
    """Batches with no more rows than it takes, on JAX's default device."""
    overhead = CPU_OVERHEAD if jax.default_backend() == "cpu" else OVERHEAD
    return functools.partial(fit_batches, buckets=buckets, overhead=overhead)


def compile_all(programs: Iterable[Callable[[], object]]) -> None:
    """Call what compiles programs, some at a time, and wait until all are compiled."""
    with _pool() as pool:
        for compiling in [pool.submit(compile_one) for compile_one in programs]:
            compiling.result()


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compiling")


def _key(tree: Any) -> Hashable:
    """What tells trees of arrays, or of their shapes, apart as far as programs go; it is asked for at every batch."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
