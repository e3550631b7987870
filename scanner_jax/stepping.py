"""Training steps: compiled once for each shape of a batch and ahead of its first step, and several to a dispatch."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from scanner_jax.encoder import Params
from scanner_jax.optim import Milestones, OptimizerSettings, make_optimizer
from scanner_jax.pipeline import Batch
from scanner_jax.placement import ONE_DEVICE, Placement

LossFn = Callable[[Params, Batch, jax.Array], Float[Array, ""]]
"""(params, batch, dropout key) -> loss; pure."""


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


class Course(NamedTuple):
    """What tells one training from another that runs the same compiled steps.

    Attributes:
        rng: the key that all of the training's dropout comes from.
        milestones: where it changes.
    """

    rng: jax.Array
    milestones: Milestones


def train_step(
    loss_fn: LossFn, settings: OptimizerSettings, state: TrainState, batch: Batch, course: Course
) -> tuple[TrainState, Float[Array, ""]]:
    """Make one update.

    The keys of step n are `fold_in(rng, n)`, so a resumed run draws what an undisturbed one would.
    **Assumption:** AWP's second pass draws a dropout mask of its own.
    """
    tx = make_optimizer(settings, course.milestones)
    first, second = jax.random.split(jax.random.fold_in(course.rng, state.step))
    loss, grads = jax.value_and_grad(loss_fn)(state.params, batch, first)
    updates, opt_state = tx.update(
        grads, state.opt_state, state.params, grad_fn=lambda params: jax.grad(loss_fn)(params, batch, second)
    )
    params = optax.apply_updates(state.params, updates)
    # A gradient, AWP's too, can overflow where the loss does not; the loop looks at the loss alone.
    loss = jnp.where(jnp.isfinite(optax.tree.norm(updates)), loss, jnp.nan)
    return TrainState(state.step + 1, params, opt_state), loss


def train_steps(
    loss_fn: LossFn, settings: OptimizerSettings, state: TrainState, batches: Batch, course: Course
) -> tuple[TrainState, Float[Array, " n"]]:
    """Make an update for each of several batches of one shape, stacked."""

    def body(state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        return train_step(loss_fn, settings, state, batch, course)

    return jax.lax.scan(body, state, batches)


class CompiledStep(NamedTuple):
    """A step, or several, for batches of one shape.

    Attributes:
        executable: (state, batch, course) -> new state and loss; for several stacked batches the losses of all.
        seconds: what tracing and compiling took, or reading it from JAX's cache on disk.
    """

    executable: jax.stages.Compiled
    seconds: float


Steps = Callable[[TrainState, Sequence[Batch]], tuple[TrainState, list[Float[Array, "*n"]]]]
"""Makes an update for each batch, as a `Stepper` does."""

Watch = Callable[["Stepper"], AbstractContextManager[Steps]]
"""Stands between a training and its stepper while it runs, to look on; it changes no result."""


class Stepper:
    """Makes a training's updates.

    Trainings that have loss function and optimizer's settings in common, whatever their seeds and lengths, share what
    is compiled: within a process here, and between processes by JAX's cache on disk.
    """

    def __init__(
        self,
        loss_fn: LossFn,
        settings: OptimizerSettings,
        *,
        state: TrainState,
        course: Course,
        at_once: int = 1,
        placement: Placement = ONE_DEVICE,
    ) -> None:
        """Prepare for a training.

        Args:
            loss_fn: the loss of a batch; the same object for what is to be shared.
            settings: the optimizer's.
            state: of the shapes that all its states have.
            course: the training's.
            at_once: how many batches go into one dispatch where so many in a row have one shape.
            placement: of state and course, and of the batches that come from the host.
        """
        self.settings = settings
        self.course = course
        self._at_once = at_once
        self._placement = placement
        self._compile = functools.partial(_compiled, loss_fn, settings, placement, structure_of((state, course)))
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="compiling")
        self._steps: dict[tuple[Hashable, int], Future[CompiledStep]] = {}

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def compile_ahead(self, shapes: Iterable[Batch]) -> None:
        """Begin to compile the steps for batches of these shapes, each a batch as `shape_of` describes it.

        Those that come first are compiled first, some at a time and beside the training's steps, which wait for what
        they need. The end of the stepper's context leaves out what has not begun by then.
        """
        for shape in shapes:
            for count in sorted({1, self._at_once}, reverse=True):
                self._step(structure_of(shape), count)

    def beside(self, others: Iterable[Callable[[], object]]) -> None:
        """Begin to call what compiles something else, after the steps that were begun before."""
        for compile_one in others:
            self._pool.submit(compile_one)

    def await_steps(self, batches: Sequence[Batch]) -> None:
        """Wait until the steps that these batches take are compiled."""
        for step, _ in self._plan(batches):
            step.result()

    def compiled(self, shape: Batch) -> CompiledStep:
        """The step for one batch of a shape that `shape_of` describes; compiled now, unless it is already."""
        return self._step(structure_of(shape), 1).result()

    def __call__(self, state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, list[Float[Array, "*n"]]]:
        """Make one update for each batch, in order; the state that is given is donated."""
        losses = []
        for step, chosen in self._plan(batches):
            several = len(chosen) > 1
            batch = jax.tree.map(lambda *arrays: np.stack(arrays), *chosen) if several else chosen[0]
            batch = self._placement.put_batch(batch, stacked=several)
            state, loss = step.result().executable(state, batch, self.course)
            losses.append(loss)
        return state, losses

    def _plan(self, batches: Sequence[Batch]) -> list[tuple[Future[CompiledStep], Sequence[Batch]]]:
        """The steps that these batches take, each with its own of them: all, where they fit into one dispatch."""
        structures = [structure_of(batch) for batch in batches]
        if len(batches) == self._at_once > 1 and len(set(structures)) == 1:
            return [(self._step(structures[0], self._at_once), batches)]
        return [(self._step(structure, 1), [batch]) for structure, batch in zip(structures, batches, strict=True)]

    def _step(self, structure: Hashable, count: int) -> Future[CompiledStep]:
        """The step for `count` batches of a structure, which may still be compiled."""
        if (structure, count) not in self._steps:
            self._steps[structure, count] = self._pool.submit(self._compile, structure, count)
        return self._steps[structure, count]


def shape_of(tree: Any) -> Any:
    """A batch, or another tree of arrays, without their contents."""
    return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), tree)


def structure_of(tree: Any) -> Hashable:
    """A tree of arrays, or of their shapes, as something that functions can be remembered by."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)


@functools.lru_cache(maxsize=256)
def _compiled(
    loss_fn: LossFn, settings: OptimizerSettings, placement: Placement, held: Any, batch: Any, count: int
) -> CompiledStep:
    """The compiled step for a state and a course of one structure, and `count` batches of another."""
    (state, course), batch = (jax.tree.unflatten(*structure) for structure in (held, batch))
    step: Callable[..., Any] = train_step
    if count > 1:
        step = train_steps
        batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct((count, *a.shape), a.dtype), batch)
    jitted = jax.jit(
        functools.partial(step, loss_fn, settings),
        donate_argnums=0,
        out_shardings=(placement.shardings(state), placement.everywhere),
    )
    started = time.perf_counter()
    batch = placement.abstract_batch(batch, stacked=count > 1)
    executable = jitted.lower(placement.abstract(state), batch, placement.abstract(course)).compile()
    return CompiledStep(executable, time.perf_counter() - started)
