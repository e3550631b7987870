"""The one training loop, for every model of the recipe; it knows no stage."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from scanner_jax import checkpoint
from scanner_jax.encoder import Params
from scanner_jax.interrupt import Interrupted, deferred_signals
from scanner_jax.optim import make_optimizer
from scanner_jax.pipeline import Batch, Features, steps_per_epoch, training_batches
from scanner_jax.progress import open_progress

LossFn = Callable[[Params, Batch, jax.Array], Float[Array, ""]]
"""(params, batch, dropout key) -> loss; pure."""


class TrainState(NamedTuple):
    """All that a step changes."""

    step: Int[Array, ""]
    params: Params
    opt_state: optax.OptState


class Best(NamedTuple):
    """The parameters with the highest score on dev so far, as numpy arrays."""

    score: np.float64
    params: Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How one model is trained; `optim.make_optimizer` says what the optimizer's fields mean.

    Attributes:
        epochs: passes over the training set; dev is scored after each.
        batch_size: sentences or prompts a step.
        checkpoint_every: steps between checkpoints besides those after each epoch.
        log_every: steps between two looks at the loss, each of which waits for the device.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float
    awp_gamma: float
    awp_start: float
    awp_clip_eps: float | None
    checkpoint_every: int
    log_every: int

    def optimizer(self, *, total_steps: int) -> optax.GradientTransformationExtraArgs:
        """The optimizer of a training of so many steps.

        Raises:
            ValueError: settings out of range, all listed.
        """
        return make_optimizer(
            total_steps=total_steps,
            learning_rate=self.learning_rate,
            warmup_fraction=self.warmup_fraction,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            awp_gamma=self.awp_gamma,
            awp_start=self.awp_start,
            awp_clip_eps=self.awp_clip_eps,
        )


class DivergedError(RuntimeError):
    """The loss is no longer a finite number."""


def make_train_step(
    loss_fn: LossFn, tx: optax.GradientTransformationExtraArgs, *, rng: jax.Array
) -> Callable[[TrainState, Batch], tuple[TrainState, Float[Array, ""]]]:
    """Jit one update; the state that it is given is donated.

    The keys of step n are `fold_in(rng, n)`, so a resumed run draws what an undisturbed one would.
    **Assumption:** AWP's second pass draws a dropout mask of its own.
    """

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Float[Array, ""]]:
        first, second = jax.random.split(jax.random.fold_in(rng, state.step))
        loss, grads = jax.value_and_grad(loss_fn)(state.params, batch, first)
        updates, opt_state = tx.update(
            grads, state.opt_state, state.params, grad_fn=lambda params: jax.grad(loss_fn)(params, batch, second)
        )
        params = optax.apply_updates(state.params, updates)
        # A gradient, AWP's too, can overflow where the loss does not; the loop looks at the loss alone.
        loss = jnp.where(jnp.isfinite(optax.tree.norm(updates)), loss, jnp.nan)
        return TrainState(state.step + 1, params, opt_state), loss

    return jax.jit(train_step, donate_argnums=0)


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
        folder: receives `checkpoints/`, `metrics.jsonl` and, where TensorBoard is installed, its event file.

    Returns:
        The parameters with the best score (the latest among equals), as numpy arrays.

    Raises:
        CheckpointError: a checkpoint cannot be written.
        DivergedError: a loss that is not finite; no checkpoint holds it.
        Interrupted: SIGTERM or Ctrl-C came; the step was finished and saved, or an evaluation left, whose step was.
        ValueError: there is nothing to train on.
    """
    if not features:
        raise ValueError(f"{name}: the training set is empty")
    epoch = steps_per_epoch(len(features), settings.batch_size)
    total = epoch * settings.epochs
    tx = settings.optimizer(total_steps=total)
    batches = training_batches(
        features,
        functools.partial(collate, batch_size=settings.batch_size),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
    )
    train_step = make_train_step(loss_fn, tx, rng=jax.random.key(seed))
    params = jax.tree.map(jnp.array, params)  # copied, because the first step donates them
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
    best = _better(None, params, -math.inf) if evaluate else None
    with (
        contextlib.closing(checkpoint.open_checkpoints(folder / "checkpoints")) as manager,
        deferred_signals() as signals,
    ):
        (state, best), batches = checkpoint.restore_last(manager, (state, best), batches)
        start = int(state.step)
        losses: list[Float[Array, ""]] = []
        progress = open_progress(name, folder, start=start)
        with progress.bar(total, start=start) as advance:
            # A checkpoint holds no scores of its own step, so the first round is for those alone.
            for step in range(start, total + 1):
                saved = f"{name} is saved up to step {step} of {total}"
                if step > start:
                    state, loss = train_step(state, next(batches))
                    losses.append(loss)
                    leaving = signals.received
                    saving = leaving or step % epoch == 0 or step % settings.checkpoint_every == 0
                    if saving or step % settings.log_every == 0:
                        mean, losses = _finite_mean(losses, step), []
                        progress.record(step, {"loss": mean})
                        advance(step, mean)
                    if saving:
                        checkpoint.save(manager, step, (state, best), batches)
                    if leaving:
                        raise Interrupted(leaving, saved)
                if evaluate and step > 0 and step % epoch == 0:
                    with signals.at_once(saved):
                        scores = evaluate(state.params)
                    said = ", ".join(f"{key} {value:g}" for key, value in scores.items() if key != "score")
                    progress.record(step, scores, say=f"dev {said}")
                    best = _better(best, state.params, scores["score"])
        return jax.device_get(state.params) if best is None else best.params


def _better(best: Best | None, params: Params, score: float) -> Best:
    """The better parameters of two, the later ones among equals; copied, because the next step donates them."""
    return best if best and best.score > score else Best(np.float64(score), jax.tree.map(np.array, params))


def _finite_mean(losses: list[Float[Array, ""]], step: int) -> float:
    values = np.array(jax.device_get(losses), np.float64)
    if not np.isfinite(values).all():
        first = step - len(values) + 1 + int(np.argmin(np.isfinite(values)))
        raise DivergedError(
            f"the loss of step {first} is {values[~np.isfinite(values)][0]}: lower the learning rate, or look at the "
            f"batch of that step; the last checkpoint is from before it"
        )
    return math.fsum(values) / len(values)
