"""Several processes that train one model: who is first, and how they wait for one another.

All of them run the same code on the same batches' shapes, each on its own devices; the first one alone writes files and
speaks. They see the same folders. With one process, which is what a run has unless it is told otherwise, nothing here
does anything.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

Tree = TypeVar("Tree")

HEARTBEAT_TIMEOUT = 60
"""Seconds without a sign of life after which a process counts as gone, where no broken connection has told before."""

SHUTDOWN_TIMEOUT = 60
"""Seconds that a process which is done waits for the others to be done too."""

_PATIENCE_MS = 7 * 24 * 3600 * 1000
"""How long a process waits for one that works: other errors end it long before."""


class ProcessesError(ValueError):
    """Processes that cannot find one another; the message says what was given."""


def join(*, coordinator: str, count: int | None, index: int | None) -> None:
    """Join the other processes; before anything else of JAX.

    Args:
        coordinator: HOST:PORT where the first process listens, the same for all; "auto" finds it, and the other two,
            from what SLURM, Open MPI or Kubernetes tell a process.
        count: of processes; None only with "auto".
        index: of this one, from 0; None only with "auto".

    Raises:
        ProcessesError: arguments that do not fit, or the others cannot be reached.
    """
    given = f"--coordinator={coordinator} --processes={count} --process={index}"
    found = coordinator == "auto"
    if found and (count, index) != (None, None):
        raise ProcessesError(f"{given}: with auto the other two are found too; leave them out")
    if not found and (":" not in coordinator or count is None or index is None or not 0 <= index < count):
        raise ProcessesError(f"{given}: expected HOST:PORT, the number of processes, and this one's, from 0")
    # SIGTERM is our own (`interrupt`).
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            None if found else coordinator,
            count,
            index,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
        )
    except (RuntimeError, ValueError) as error:  # a JaxRuntimeError is the former
        unknown = found and isinstance(error, ValueError)
        told = "; neither SLURM, Open MPI nor Kubernetes says who takes part, so give all three" if unknown else ""
        raise ProcessesError(f"{given}: {str(error).splitlines()[0]}{told}") from error


def several() -> bool:
    """Whether there is more than this process."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process writes files and speaks."""
    return not several() or jax.process_index() == 0


def meet(where: str) -> None:
    """Wait until all processes are at this place, for hours if need be."""
    if several():
        ocp.multihost.get_barrier_sync_fn()(key=where, timeout_ms=_PATIENCE_MS)


def first_says(value: int, *, where: str) -> int:
    """The number that the first process gives here."""
    if not several():
        return value
    meet(where)  # because collectives do not wait for long
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def first_does(write: Callable[..., object], *arguments: Any) -> None:
    """Call it in the first process alone; the others know that it is done once they meet."""
    if is_first():
        write(*arguments)


def agreed(received: signal.Signals | None, *, now: bool) -> signal.Signals | None:
    """The signal that any process has received, told to all of them where it is time to ask.

    Args:
        received: by this process.
        now: whether all processes ask now.
    """
    if not several():
        return received
    if not now:
        return None
    number = int(multihost_utils.process_allgather(np.int32(received or 0)).max())
    return signal.Signals(number) if number else None


def gathered(tree: Tree) -> Tree:
    """A tree whose arrays this process can read whole; those with parts in other processes come as copies."""
    return jax.tree.map(_gathered, tree) if several() else tree


def _gathered(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if leaf.is_fully_replicated:
        return np.array(leaf.addressable_data(0))  # copied, because a later step may be given its memory
    return multihost_utils.process_allgather(leaf, tiled=True)
