"""The one training loop, for every model of the recipe; it knows no stage."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax
import numpy as np
from jaxtyping import Array, Float

from scanner_jax.beginning import Training, TrainingSettings, begin
from scanner_jax.checkpoint import Checkpoints, Saved
from scanner_jax.encoder import Params
from scanner_jax.interrupt import Interrupted, deferred_signals
from scanner_jax.pipeline import Batch, Features, steps_per_epoch
from scanner_jax.placement import ONE_DEVICE, Placement
from scanner_jax.processes import agreed, gathered, meet, several
from scanner_jax.progress import Progress, open_progress
from scanner_jax.stepping import LossFn, Stepper, TrainState, Watch, shape_of
from scanner_jax.vocabulary import Tables, Vocabulary

logger = logging.getLogger(__name__)

EPOCHS_AHEAD, BATCHES_AHEAD = 4, 2000
"""How many batches at most are made before the first step, to see their shapes; it takes about a second."""

DISPATCHES_AHEAD = 2
"""Dispatches that may wait behind the one that the device is at; a signal waits until they are done."""


class Best(NamedTuple):
    """The parameters with the highest score on dev so far, as numpy arrays, and the step that they are of."""

    score: np.float64
    step: np.int64
    params: Params


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def train(
    *,
    name: str,
    params: Params,
    loss_fn: LossFn,
    features: Sequence[Features],
    collate: Callable[..., Batch],
    settings: TrainingSettings,
    evaluate: Callable[[Params], dict[str, Any]] | None,
    seed: int,
    folder: Path,
    vocabulary: Vocabulary | None = None,
    watch: Watch | None = None,
    ahead: Sequence[Callable[[], object]] = (),
    placement: Placement = ONE_DEVICE,
) -> Params:
    """Train on the features, going on from the folder's last checkpoint, and return the best parameters.

    A checkpoint holds train state, position in the data and the best so far; the random keys follow from seed and
    step. So a run that was interrupted ends as an undisturbed one, on the CPU bit for bit.

    Args:
        name: what the console calls this training.
        params: where training starts.
        loss_fn: the loss of a batch.
        features: the training set.
        collate: `collate(features, batch_size=...)` pads some of them to a batch.
        settings: how to train.
        evaluate: gives some parameters' scores on dev in percent, of which `score` decides the best;
            None keeps the last parameters.
        seed: of the order of the examples and of dropout.
        folder: receives `checkpoints/`, `metrics.jsonl`, `seconds.json` and, where TensorBoard is installed, its event
            file.
        vocabulary: the rows of the word embeddings to train, which hold all that the features have; the others decay
            as they would. None trains all. A run may go on with another one than it began with.
        watch: looks on while steps are made.
        ahead: compile what `evaluate` runs; they are called beside the first steps, after what compiles those.
        placement: the devices. A run may go on with others than it began with.

    Returns:
        The parameters with the best score (the latest among equals), as numpy arrays.

    Raises:
        CheckpointError: a checkpoint cannot be written.
        DivergedError: a loss that is not finite; no checkpoint holds it.
        Interrupted: SIGTERM or Ctrl-C came; what was begun is saved, or an evaluation was left, whose step is.
        ValueError: there is nothing to train on.
        VocabularyError: the vocabulary does not fit the features, the parameters or AWP.
    """
    if not features:
        raise ValueError(f"{name}: the training set is empty")
    epoch = steps_per_epoch(len(features), settings.batch_size)
    total = epoch * settings.epochs
    params = jax.tree.map(np.asarray, params)  # so that the device need not keep them
    training = Training(params, loss_fn, features, collate)
    tables, batches, state, course = begin(
        training, settings=settings, seed=seed, vocabulary=vocabulary, placement=placement
    )
    best = Best(np.float64(-math.inf), np.int64(0), _copied(state.params)) if evaluate else None
    with Checkpoints(folder / "checkpoints") as checkpoints, deferred_signals(together=several()) as signals:
        if checkpoints.last_step is not None:
            saved = checkpoints.restore_last(functools.partial(tables.abstract, (state, best)))
            state, best = _restored(saved, tables, placement)
            batches.set_state(saved.position)
        step = start = int(state.step)
        progress = open_progress(name, folder, start=start)
        stepper = Stepper(
            loss_fn,
            settings.optimizer,
            state=state,
            course=course,
            at_once=settings.steps_per_dispatch,
            placement=placement,
        )
        # Nothing is lost by leaving at once before the run's first step; afterwards signals wait until it is saved.
        with signals.at_once(_saved(name, start, total)), progress.timed("compiling"):
            _compile_ahead(stepper, batches, min(total - start, EPOCHS_AHEAD * epoch, BATCHES_AHEAD), ahead, progress)
            meet(f"the first step of {folder}")
        ends = (settings.steps_per_dispatch, settings.log_every, settings.checkpoint_every, epoch)
        losses: list[Float[Array, "*n"]] = []
        with (
            stepper,
            watch(stepper) if watch else nullcontext(stepper) as steps,
            progress.bar(total, start=start) as advance,
        ):
            while True:
                # First, because a checkpoint holds no scores of its own step.
                if evaluate and step > 0 and step % epoch == 0:
                    with signals.at_once(_saved(name, step, total)), progress.timed("evaluating"):
                        scores = evaluate(tables.whole(gathered(state.params), step))
                    said = ", ".join(f"{key} {value:g}" for key, value in scores.items() if key != "score")
                    progress.record(step, scores, say=f"dev {said}")
                    if best is None or scores["score"] >= best.score:  # the later ones among equals
                        best = Best(np.float64(scores["score"]), np.int64(step), _copied(state.params))
                if step == total:
                    break
                # The same steps share a dispatch whether or not the run was interrupted, so that it stays bit for bit.
                end = min(total, *((step // every + 1) * every for every in ends))
                with progress.timed("reading"):
                    block = [next(batches) for _ in range(end - step)]
                with progress.timed("compiling"):
                    stepper.await_steps(block)
                with progress.timed("stepping"):
                    state, new_losses = steps(state, block)
                    losses += new_losses
                    jax.block_until_ready(losses[-1 - DISPATCHES_AHEAD : -DISPATCHES_AHEAD])
                step = end
                due = step % epoch == 0 or step % settings.checkpoint_every == 0
                telling = due or step % settings.log_every == 0
                leaving = agreed(signals.received, now=telling)
                saving = due or leaving
                if saving or telling:
                    with progress.timed("stepping"):  # of which most is waiting for the device
                        mean, losses = _finite_mean(losses, step), []
                    progress.record(step, {"loss": mean})
                    advance(step, mean)
                if saving:
                    with progress.timed("saving"):
                        checkpoints.save(step, Saved((state, best), batches.get_state(), tables.rows))
                if leaving:
                    checkpoints.wait()
                    raise Interrupted(leaving, _saved(name, step, total))
        with progress.timed("saving"):
            checkpoints.wait()
    progress.finish()
    if best is None:
        best = Best(np.float64(0), np.int64(step), jax.device_get(gathered(state.params)))
    return tables.whole(best.params, int(best.step))


def _restored(saved: Saved, tables: Tables, placement: Placement) -> tuple[TrainState, Best | None]:
    """What a checkpoint holds, with the rows of the vocabulary that this training holds."""
    state, best = saved.state
    params = tables.params_of(saved.rows, state.params, int(state.step))
    opt_state = tables.moments_of(saved.rows, state.opt_state)
    if best is not None:
        best = best._replace(params=tables.params_of(saved.rows, best.params, int(best.step)))
    return placement.copied(TrainState(state.step, params, opt_state)), best


def _compile_ahead(
    stepper: Stepper,
    batches: grain.DatasetIterator,
    count: int,
    others: Sequence[Callable[[], object]],
    progress: Progress,
) -> None:
    """Begin to compile for the shapes of the next batches; a shape that comes up later is compiled then.

    The iterator is left where it was.
    """
    position = batches.get_state()
    shapes = {str(shape := shape_of(batch)): shape for batch in itertools.islice(batches, count)}
    batches.set_state(position)
    evaluated = f", and for {len(others)} of evaluation's" if others else ""
    progress.say(f"compiling for {len(shapes)} shapes of batches{evaluated}")
    stepper.await_steps(list(shapes.values())[:1])  # the first alone, so that the first step comes soon
    stepper.compile_ahead(shapes.values())
    stepper.beside(others)


def _copied(params: Params) -> Params:
    """Copied, because the next step donates them."""
    return jax.tree.map(np.array, gathered(params))


def _saved(name: str, step: int, total: int) -> str:
    return f"{name} is saved up to step {step} of {total}"


def _finite_mean(losses: list[Float[Array, "*n"]], step: int) -> float:
    values = np.hstack(jax.device_get(losses)).astype(np.float64)
    if not np.isfinite(values).all():
        first = step - len(values) + 1 + int(np.argmin(np.isfinite(values)))
        raise DivergedError(
            f"the loss of step {first} is {values[~np.isfinite(values)][0]}: lower the learning rate, or look at the "
            f"batch of that step; the last checkpoint is from before it"
        )
    return math.fsum(values) / len(values)
