"""The optimizer: warm-up and linear decay, gradient clipping, AdamW with a decay mask, and AWP from mid-training."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from scanner_jax.awp import Mask, awp, named

PERTURBABLE = ("kernel", "embedding", "bias", "scale")
"""The names that Flax gives to parameters."""


class Milestones(NamedTuple):
    """The updates, from 0, at which a training changes; traced ones let trainings of any length share a compiled step.

    Attributes:
        warmed_up: the first with the whole learning rate.
        adversarial: the first that AWP changes.
        end: the first that is no longer made.
    """

    warmed_up: int | Int[Array, ""]
    adversarial: int | Int[Array, ""]
    end: int | Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """What decides the optimizer of both stages, but for the training's length.

    **Assumption:** AdamW's constants, clipping and warm-up are the usual ones for fine-tuning an encoder of
    this size; the paper's are not given.

    Attributes:
        learning_rate: at its peak.
        warmup_fraction: part of the training in which the learning rate rises, rounded up to whole steps.
        weight_decay: decoupled decay (AdamW) of the tensors that `decay_mask` chooses.
        max_grad_norm: gradients with a greater global norm are scaled down to it; inf for no clipping.
        b1: decay rate of the first moment.
        b2: decay rate of the second moment.
        eps: added to the second moment's root.
        awp_gamma: adversarial weight perturbation's relative step (see `awp.awp`); 0 for none.
        awp_start: part of the training after which it sets in (paper: the middle), rounded down.
        awp_clip_eps: its bound on each weight, if any.
        awp_tensors: names, among `PERTURBABLE`, of what it perturbs; why kernels: `awp.perturbed_by_default`.

    Raises:
        ValueError: settings out of range, all listed.
    """

    learning_rate: float
    warmup_fraction: float = 0.1
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    awp_gamma: float = 0.0
    awp_start: float = 0.5
    awp_clip_eps: float | None = None
    awp_tensors: tuple[str, ...] = ("kernel",)

    def __post_init__(self) -> None:
        problems = []
        if not self.learning_rate > 0:
            problems.append(f"learning_rate={self.learning_rate}: expected more than 0")
        if not self.weight_decay >= 0:
            problems.append(f"weight_decay={self.weight_decay}: expected 0 or more")
        for name in ("warmup_fraction", "awp_start"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name}={getattr(self, name)}: expected a part of the training, from 0 to 1")
        if not self.max_grad_norm > 0:
            problems.append(f"max_grad_norm={self.max_grad_norm}: expected more than 0, or inf for no clipping")
        if not self.awp_tensors or not set(self.awp_tensors) <= set(PERTURBABLE):
            problems.append(f"awp_tensors={self.awp_tensors}: expected some of {', '.join(PERTURBABLE)}")
        if problems:
            raise ValueError("optimizer: " + "; ".join(problems))

    def milestones(self, total_steps: int) -> Milestones:
        """Where a training of so many updates changes."""
        return Milestones(math.ceil(self.warmup_fraction * total_steps), int(self.awp_start * total_steps), total_steps)


def make_optimizer(settings: OptimizerSettings, milestones: Milestones) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer of a training.

    Returns:
        A transform whose `update(updates, state, params, *, grad_fn)` takes `grad_fn` with and without AWP.

    Raises:
        ValueError: AWP's settings are out of range.
    """
    tx = optax.chain(
        optax.clip_by_global_norm(settings.max_grad_norm),
        optax.adamw(
            warmup_linear_decay(milestones, learning_rate=settings.learning_rate),
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            mask=decay_mask,
        ),
    )
    if settings.awp_gamma == 0:
        return optax.with_extra_args_support(tx)
    return awp(
        tx,
        gamma=settings.awp_gamma,
        start_step=milestones.adversarial,
        clip_eps=settings.awp_clip_eps,
        mask=functools.partial(_named, names=settings.awp_tensors),
    )


def warmup_linear_decay(milestones: Milestones, *, learning_rate: float) -> optax.Schedule:
    """Rise linearly from 0, then fall linearly to 0 at the end, as Hugging Face's linear schedule does.

    The first update (step 0) of a warm-up has learning rate 0, and the last, step `end` - 1, has not. Without a warm-up
    it begins at the peak. Not optax's own, which takes no traced numbers of steps.

    Args:
        milestones: where the rise and the fall end.
        learning_rate: the peak, reached when the warm-up is over.

    Returns:
        A function from the step (from 0) to its learning rate.
    """
    warmed_up, _, end = milestones

    def schedule(step: Int[Array, "*n"]) -> Float[Array, "*n"]:
        step = jnp.asarray(step, jnp.result_type(float))
        rise = step / jnp.maximum(1, warmed_up)
        fall = (end - step) / jnp.maximum(1, end - warmed_up)
        return learning_rate * jnp.where(step < warmed_up, rise, jnp.maximum(fall, 0))

    return schedule


def decay_factors(settings: OptimizerSettings, milestones: Milestones) -> Float[np.ndarray, " n"]:
    """What weight decay alone makes of a parameter that decays and never has a gradient.

    Returns:
        For each number of updates, from none to all, the factor that they have multiplied the parameter by; float64.
    """
    schedule = warmup_linear_decay(milestones, learning_rate=settings.learning_rate)
    rates = np.asarray(schedule(jnp.arange(milestones.end)), np.float64)
    return np.concatenate([[1.0], np.cumprod(1 - settings.weight_decay * rates)])


def decay_mask(params: optax.Params) -> Mask:
    """Choose the tensors that decay, by name: Dense kernels and embedding tables, not biases or LayerNorm."""
    return named(params, "kernel", "embedding")


def _named(params: optax.Params, *, names: Sequence[str]) -> Mask:
    return named(params, *names)
