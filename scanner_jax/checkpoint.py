"""Orbax checkpoints of a training run, each of which holds all that the run needs to go on.

A folder keeps two: the last one, and the one before it in case the last is damaged. With XLM-RoBERTa-large in fp32
each takes up to 9 GB (parameters, AdamW's two moments, the best parameters so far; less where only the vocabulary in
use is trained), and a third is there while it is written. Writing goes on beside the training, from a copy in memory.

A checkpoint has whole arrays, whatever devices they were on, and is restored on any. Of several processes, the first
one writes and all read, each without the others, and Orbax is told so.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from scanner_jax.encoder import Params
from scanner_jax.files import damaged_files, write_checksums
from scanner_jax.processes import first_does, gathered, is_first, meet, several

logger = logging.getLogger(__name__)

ASIDE = "*.orbax-checkpoint-tmp*"
"""What Orbax calls a folder that it is writing, and that a killed process leaves behind."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written; the message says where, why, and what to do."""


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        state: a tree of arrays.
        position: in the data; JSON values.
        rows: the rows of the vocabulary that the state's tables have, None where they have all.
    """

    state: Any
    position: dict[str, Any]
    rows: list[int] | None


class Checkpoints:
    """A folder of checkpoints, opened or begun, without those of its end that are not whole.

    A checkpoint counts once the checksums of its files stand beside them, which is after Orbax has finished it. The
    newest that is unchanged since then is the last one; newer ones are deleted with a warning.

    Used as a context: at its end, nothing is being written any more, and what could not be written has been raised.
    """

    def __init__(self, folder: Path) -> None:
        folder = Path(folder).absolute()
        first_does(_begin, folder)
        meet(f"checkpoints in {folder}")
        # Not Orbax's own asynchronous saving: where it cannot write, it waits five minutes for itself.
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preservation.LatestN(2),
            enable_async_checkpointing=False,
            create=False,
            multiprocessing_options=_alone(),
        )
        with _explained(folder):
            self._manager = ocp.CheckpointManager(folder, options=options)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            self._manager.close()

    @property
    def last_step(self) -> int | None:
        """The step of the last checkpoint, None where there is none."""
        step: int | None = self._manager.latest_step()
        return step

    def save(self, step: int, saved: Saved) -> None:
        """Begin to write a checkpoint, once the one before it is written; the state may be donated at once.

        Raises:
            CheckpointError: the one before it could not be written: the disk is full, or the folder cannot be written.
                What was saved before that is untouched.
        """
        self.wait()
        state = gathered(saved.state)
        if not is_first():
            return
        # On the CPU, what device_get gives is the very memory that the next step is to reuse.
        copied = jax.tree.map(np.array, state) if jax.default_backend() == "cpu" else jax.device_get(state)
        self._writing = self._writer.submit(self._write, step, saved._replace(state=copied))

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            CheckpointError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore_last(self, abstract: Callable[[list[int] | None], Any]) -> Saved:
        """Read the last checkpoint.

        Args:
            abstract: the shapes and types of the state, given the rows of the vocabulary that it was saved with.
        """
        step = self._manager.latest_step()
        place = self._manager.restore(step, args=ocp.args.Composite(place=ocp.args.JsonRestore()))["place"]
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(abstract(place["rows"])))
        return Saved(self._manager.restore(step, args=arguments)["state"], place["position"], place["rows"])

    def _write(self, step: int, saved: Saved) -> None:
        place = {"position": saved.position, "rows": saved.rows}
        items = ocp.args.Composite(state=ocp.args.StandardSave(saved.state), place=ocp.args.JsonSave(place))
        folder = Path(self._manager.directory) / str(step)
        with _explained(folder):
            self._manager.save(step, args=items, force=True)
            write_checksums(folder)


def save_params(folder: Path, params: Params) -> None:
    """Save a finished training's parameters alone, replacing what is there.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    # Not the asynchronous StandardCheckpointer: when it cannot write, it waits five minutes for itself.
    handler, options = ocp.StandardCheckpointHandler(multiprocessing_options=_alone()), _alone()
    with _explained(folder), ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(Path(folder).absolute(), args=ocp.args.StandardSave(params), force=True)


def restore_params(folder: Path) -> Params:
    """Read what `save_params` wrote, as numpy arrays.

    Raises:
        FileNotFoundError: there is nothing.
    """
    with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as checkpointer:
        return checkpointer.restore(Path(folder).absolute())


def _begin(folder: Path) -> None:
    """Make the folder, or delete checkpoints of its end that are not whole."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    steps = [path for path in folder.glob("*") if path.name.isdigit()]
    for path in sorted(steps, key=lambda path: int(path.name), reverse=True):
        problem = _problem(path)
        if problem is None:
            break
        logger.warning("%s: %s; going back to what was saved before it", path, problem)
        shutil.rmtree(path)


def _alone() -> ocp.options.MultiprocessingOptions:
    """Let Orbax work in this process without the others."""
    if not several():
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process{own}"
    )


def _problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None if nothing is."""
    try:
        damaged = damaged_files(folder)
    except FileNotFoundError:
        return "its writing was interrupted"
    return f"damaged ({', '.join(damaged[:3])})" if damaged else None


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn whatever Orbax raises over a disk into one error that helps."""
    before = sys.unraisablehook
    sys.unraisablehook = _without_echoes
    try:
        yield
    except Exception as error:  # OSError, but also ValueError and others from TensorStore, with a long story
        told = re.search(r"os_error_code='(\d+)'", str(error))
        code = int(told[1]) if told else getattr(error, "errno", None)
        raise CheckpointError(
            f"cannot write {folder}: {os.strerror(code) if code else error}; see that the disk has room and the folder "
            "can be written, then give the same command again: it goes on from what was saved before"
        ) from error
    sys.unraisablehook = before  # only now: after an error the echoes are still to come


def _without_echoes(unraisable: Any) -> None:
    """Print an error that no thread can catch, unless it comes from a write of TensorStore's that nobody awaits.

    Where one array cannot be written, Orbax gives up at once, and each of the others ends in such an error.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)
