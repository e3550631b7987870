"""Look on while a training's steps are made: time some of each shape, and write a trace of a few for xprof."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
from jaxtyping import Array, Float

from scanner_jax.costs import ModelSizes
from scanner_jax.devices import this_device
from scanner_jax.files import write_json
from scanner_jax.metering import Meter, bucket_of, legend, table
from scanner_jax.pipeline import Batch
from scanner_jax.stepping import Stepper, Steps, TrainState

logger = logging.getLogger(__name__)

UNTRACED = 3
"""Dispatches before the trace: the first ones load programs and find their memory."""

TRACED = 3
"""Dispatches in the trace."""

TIMED = 10
"""Steps of a shape that are timed, each half of a training with AWP for itself; the others are left alone."""


@contextlib.contextmanager
def trace(folder: Path) -> Iterator[None]:
    """Write all that the device does into a folder that xprof opens; without Python's own calls, which are most of it.

    Raises:
        OSError: the folder cannot be written.
    """
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0
    with jax.profiler.trace(str(folder), profiler_options=options):
        yield


def step_annotation(number: int) -> jax.profiler.StepTraceAnnotation:
    """What the trace shows a dispatch of steps as, with the first one's number."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)


def gradients_at(stepper: Stepper, number: int) -> int:
    """How many gradients a step takes, counted from 0: 2 once AWP has begun."""
    return 2 if stepper.settings.awp_gamma and number >= int(stepper.course.milestones.adversarial) else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watching:
    """A `stepping.Watch` that leaves a trace and `profile.json` in a folder, and logs a table.

    It waits for the device before and after each dispatch that it times, and around the trace.

    Attributes:
        name: of the training.
        model: what is trained.
        folder: of this training's profile.
    """

    name: str
    model: ModelSizes
    folder: Path

    @contextlib.contextmanager
    def __call__(self, stepper: Stepper) -> Iterator[Steps]:
        """Yield what makes the steps meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        watched = _Watched(self, stepper)
        try:
            yield watched
        finally:
            watched.close()


class _Watched:
    def __init__(self, watching: Watching, stepper: Stepper) -> None:
        self._watching = watching
        self._stepper = stepper
        self._meter: Meter | None = None
        self._number = 0
        self._calls = 0
        self._warm: set[tuple[object, int]] = set()
        self._tracing = contextlib.ExitStack()

    def __call__(self, state: TrainState, batches: Sequence[Batch]) -> tuple[TrainState, list[Float[Array, "*n"]]]:
        if self._meter is None:
            self._meter = Meter(self._watching.model, self._stepper, state)
            self._number = int(state.step)
        self._meter.meet(batches)
        self._calls += 1
        number, self._number = self._number, self._number + len(batches)
        if self._calls == UNTRACED + 1:
            jax.block_until_ready(state)
            self._tracing.enter_context(trace(self._watching.folder))
        if UNTRACED < self._calls <= UNTRACED + TRACED:
            with step_annotation(number):
                result = self._stepper(state, batches)
            if self._calls == UNTRACED + TRACED:
                jax.block_until_ready(result)
                self._tracing.close()
            return result
        gradients = {gradients_at(self._stepper, step) for step in range(number, self._number)}
        kinds = {(bucket_of(batch), count) for batch in batches for count in gradients}
        if len(kinds) > 1:
            return self._stepper(state, batches)
        if not kinds <= self._warm:
            self._warm |= kinds
            return self._stepper(state, batches)
        return self._timed(self._meter, state, batches, gradients.pop())

    def _timed(
        self, meter: Meter, state: TrainState, batches: Sequence[Batch], gradients: int
    ) -> tuple[TrainState, list[Float[Array, "*n"]]]:
        if meter.timed(batches, gradients=gradients) >= TIMED:
            return self._stepper(state, batches)
        jax.block_until_ready(state)
        started = time.perf_counter()
        result = jax.block_until_ready(self._stepper(state, batches))
        meter.add(batches, time.perf_counter() - started, gradients=gradients)
        return result

    def close(self) -> None:
        """End the trace and tell what was measured."""
        self._tracing.close()
        name, folder = self._watching.name, self._watching.folder
        if self._calls <= UNTRACED:
            logger.info("%s: no trace, which begins after %d dispatches of steps", name, UNTRACED)
        if self._meter is None:
            return
        here = this_device()
        measured = self._meter.measured(here=here, floor=here, precision=None)
        write_json(
            folder / "profile.json", {"device": here.name, "measured": [dataclasses.asdict(m) for m in measured]}
        )
        logger.info(
            "%s: %d dispatches, profile in %s\n%s\n%s",
            name,
            self._calls,
            folder,
            table(measured)
            if measured
            else "no step was timed: the first one of each shape is not, nor are traced ones",
            legend(here=here, floor=here, precision=None, compute_dtype=self._watching.model.execution.compute_dtype),
        )
