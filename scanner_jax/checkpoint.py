"""Orbax checkpoints of a training run: the last one to go on from, and the best one on dev."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import grain
import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from scanner_jax.encoder import Params

State = TypeVar("State")


def open_checkpoints(folder: Path) -> ocp.CheckpointManager:
    """Open (or begin) a folder of checkpoints that keeps the last one and the best one.

    Each is written aside and renamed by Orbax, so an interrupted save is never taken for a checkpoint.
    """
    options = ocp.CheckpointManagerOptions(
        best_fn=_score,
        preservation_policy=preservation.AnyPreservationPolicy(
            [
                preservation.LatestN(1),
                preservation.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False),
            ]
        ),
        enable_async_checkpointing=False,
    )
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def save(
    manager: ocp.CheckpointManager,
    step: int,
    state: Any,
    batches: grain.DatasetIterator,
    *,
    score: float | None,
) -> None:
    """Save the train state and the position in the data; `score` makes it a candidate for the best one."""
    manager.save(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardSave(state), batches=grain.checkpoint.CheckpointSave(batches)),
        metrics=None if score is None else {"score": score},
        force=True,
    )


def restore_last(
    manager: ocp.CheckpointManager, state: State, batches: grain.DatasetIterator
) -> tuple[State, grain.DatasetIterator]:
    """Go on from the last checkpoint; without one both come back as they are."""
    step = manager.latest_step()
    if step is None:
        return state, batches
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(_abstract(state)), batches=grain.checkpoint.CheckpointRestore(batches)
        ),
    )
    return restored["state"], restored["batches"]


def restore_best(manager: ocp.CheckpointManager, state: State) -> State:
    """The state with the highest score (the latest among equals); without scores the last one.

    Raises:
        FileNotFoundError: the folder holds no checkpoint.
    """
    step = manager.best_step()
    step = manager.latest_step() if step is None else step
    if step is None:
        raise FileNotFoundError(f"{manager.directory} holds no checkpoint: the phase it belongs to has not run")
    restored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(_abstract(state))))
    return restored["state"]


def save_params(folder: Path, params: Params) -> None:
    """Save a finished training's parameters alone, replacing what is there."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(folder).absolute(), params, force=True)


def restore_params(folder: Path) -> Params:
    """Read what `save_params` wrote, as numpy arrays.

    Raises:
        FileNotFoundError: there is nothing.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(Path(folder).absolute())


def _abstract(state: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, state)


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"]
