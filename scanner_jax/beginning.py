"""A training before its first step: its settings, what is trained, and the state and batches that it begins with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import grain
import jax
import jax.numpy as jnp
import optax

from scanner_jax.encoder import Params
from scanner_jax.optim import Milestones, OptimizerSettings, decay_factors, make_optimizer
from scanner_jax.pipeline import Batch, steps_per_epoch, training_batches
from scanner_jax.placement import ONE_DEVICE, Placement
from scanner_jax.stepping import Course, LossFn, TrainState
from scanner_jax.vocabulary import Tables, Vocabulary, VocabularyError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How one model is trained.

    Attributes:
        optimizer: what decides each update.
        epochs: passes over the training set; dev is scored after each.
        batch_size: sentences or prompts a step.
        checkpoint_every: steps between checkpoints besides those after each epoch.
        log_every: steps between two looks at the loss, each of which waits for the device.
        steps_per_dispatch: steps that the host starts at once, where so many batches in a row have one shape.
    """

    optimizer: OptimizerSettings
    epochs: int
    batch_size: int
    checkpoint_every: int
    log_every: int
    steps_per_dispatch: int = 1


class Training(NamedTuple):
    """What is trained: parameters to start from, the loss of a batch, the training set, and how it becomes batches.

    Attributes:
        collate: `collate(features, batch_size=...)` pads some of the features to a batch.
    """

    params: Params
    loss_fn: LossFn
    features: Sequence[Any]
    collate: Callable[..., Batch]


class Beginning(NamedTuple):
    """A training before its first step.

    Attributes:
        tables: the word embeddings that it holds, and the others.
        batches: those of all epochs.
        state: before the first step, on the device.
        course: its keys and milestones.
    """

    tables: Tables
    batches: grain.DatasetIterator
    state: TrainState
    course: Course


def begin(
    training: Training,
    *,
    settings: TrainingSettings,
    seed: int,
    vocabulary: Vocabulary | None = None,
    placement: Placement = ONE_DEVICE,
) -> Beginning:
    """Make ready what a training's first step takes; the arguments are those of `train`.

    Raises:
        VocabularyError: the vocabulary does not fit the parameters or AWP.
    """
    total = steps_per_epoch(len(training.features), settings.batch_size) * settings.epochs
    milestones = settings.optimizer.milestones(total)
    tables = _tables(training.params, vocabulary, settings.optimizer, milestones)
    collate = placement.spread(tables.held.renumbered(training.collate))
    batches = training_batches(
        training.features,
        functools.partial(collate, batch_size=settings.batch_size),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=seed,
    )
    tx = make_optimizer(settings.optimizer, milestones)
    state = _state(tables.held.shrink(training.params), tx, placement)
    course = Course(jax.random.key(seed), Milestones(*map(jnp.int32, milestones)))
    return Beginning(tables, batches, state, placement.put(course))


def _tables(
    params: Params, vocabulary: Vocabulary | None, settings: OptimizerSettings, milestones: Milestones
) -> Tables:
    if vocabulary is not None and settings.awp_gamma and "embedding" in settings.awp_tensors:
        raise VocabularyError(
            "AWP moves a table by a part of its whole norm, which is not known where only the vocabulary in use is "
            "trained; leave embedding out of awp_tensors, or train the whole vocabulary"
        )
    return Tables.of(params, vocabulary, decay_factors(settings, milestones))


def _state(params: Params, tx: optax.GradientTransformationExtraArgs, placement: Placement) -> TrainState:
    params = placement.copied(params)  # because the first step donates them
    if placement.mesh is None:
        opt_state = tx.init(params)
    else:  # on no device the whole of it
        init = jax.jit(tx.init, out_shardings=placement.shardings(jax.eval_shape(tx.init, params)))
        opt_state = init(params)
    return TrainState(placement.put(jnp.zeros((), jnp.int32)), params, opt_state)
