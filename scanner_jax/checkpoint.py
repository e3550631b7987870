"""Orbax checkpoints of a training run, each of which holds all that the run needs to go on.

A folder keeps two: the last one, and the one before it in case the last is damaged. With XLM-RoBERTa-large in fp32
each takes 9 GB (parameters, AdamW's two moments, the best parameters so far), and a third is there while it is written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from scanner_jax.encoder import Params
from scanner_jax.files import damaged_files, write_checksums

State = TypeVar("State")
logger = logging.getLogger(__name__)

ASIDE = "*.orbax-checkpoint-tmp*"
"""What Orbax calls a folder that it is writing, and that a killed process leaves behind."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written; the message says where, why, and what to do."""


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    """Open (or begin) a folder of checkpoints, without those of its end that are not whole.

    A checkpoint counts once the checksums of its files stand beside them, which is after Orbax has finished it. The
    newest that is unchanged since then is the last one; newer ones are deleted with a warning.
    """
    folder = Path(folder).absolute()
    steps = [path for path in folder.glob("*") if path.name.isdigit()]
    for path in sorted(steps, key=lambda path: int(path.name), reverse=True):
        problem = _problem(path)
        if problem is None:
            break
        logger.warning("%s: %s; going back to what was saved before it", path, problem)
        shutil.rmtree(path)
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation.LatestN(2), enable_async_checkpointing=False
    )
    with _explained(folder):
        return ocp.CheckpointManager(folder, options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any, batches: grain.DatasetIterator) -> None:
    """Save a tree of arrays and the position in the data.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written; what was saved before is untouched.
    """
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), batches=grain.checkpoint.CheckpointSave(batches))
    folder = Path(manager.directory) / str(step)
    with _explained(folder):
        manager.save(step, args=items, force=True)
        write_checksums(folder)


def restore_last(
    manager: ocp.CheckpointManager, state: State, batches: grain.DatasetIterator
) -> tuple[State, grain.DatasetIterator]:
    """Go on from the last checkpoint; without one both come back as they are."""
    step = manager.latest_step()
    if step is None:
        return state, batches
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, state)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), batches=grain.checkpoint.CheckpointRestore(batches)
        ),
    )
    return restored["state"], restored["batches"]


def save_params(folder: Path, params: Params) -> None:
    """Save a finished training's parameters alone, replacing what is there.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
    """
    # Not the asynchronous StandardCheckpointer: when it cannot write, it waits five minutes for itself.
    with _explained(folder), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(Path(folder).absolute(), args=ocp.args.StandardSave(params), force=True)


def restore_params(folder: Path) -> Params:
    """Read what `save_params` wrote, as numpy arrays.

    Raises:
        FileNotFoundError: there is nothing.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(Path(folder).absolute())


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
