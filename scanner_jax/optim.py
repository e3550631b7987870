"""The optimizer: warm-up and linear decay, gradient clipping, AdamW with a decay mask, and AWP from mid-training."""

from __future__ import annotations

import math

import optax

from scanner_jax.awp import Mask, awp, named


def make_optimizer(
    *,
    total_steps: int,
    learning_rate: float,
    warmup_fraction: float = 0.1,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    awp_gamma: float = 0.0,
    awp_start: float = 0.5,
    awp_clip_eps: float | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Build the optimizer of both stages.

    **Assumption:** AdamW's constants, clipping and warm-up are the usual ones for fine-tuning an encoder of
    this size; the paper's are not given.

    Args:
        total_steps: updates in the whole training.
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

    Returns:
        A transform whose `update(updates, state, params, *, grad_fn)` takes `grad_fn` with and without AWP.

    Raises:
        ValueError: options out of range, all listed.
    """
    problems = []
    if total_steps < 1:
        problems.append(f"total_steps={total_steps}: expected at least 1")
    if not learning_rate > 0:
        problems.append(f"learning_rate={learning_rate}: expected more than 0")
    if not weight_decay >= 0:
        problems.append(f"weight_decay={weight_decay}: expected 0 or more")
    if not 0 <= warmup_fraction <= 1:
        problems.append(f"warmup_fraction={warmup_fraction}: expected a part of the training, from 0 to 1")
    if not 0 <= awp_start <= 1:
        problems.append(f"awp_start={awp_start}: expected a part of the training, from 0 to 1")
    if not max_grad_norm > 0:
        problems.append(f"max_grad_norm={max_grad_norm}: expected more than 0, or inf for no clipping")
    if problems:
        raise ValueError("optimizer: " + "; ".join(problems))
    schedule = warmup_linear_decay(
        learning_rate=learning_rate, warmup_fraction=warmup_fraction, total_steps=total_steps
    )
    tx = optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=decay_mask),
    )
    if awp_gamma == 0:
        return optax.with_extra_args_support(tx)
    return awp(tx, gamma=awp_gamma, start_step=int(awp_start * total_steps), clip_eps=awp_clip_eps)


def warmup_linear_decay(*, learning_rate: float, warmup_fraction: float, total_steps: int) -> optax.Schedule:
    """Rise linearly from 0, then fall linearly to 0 at `total_steps`, as Hugging Face's linear schedule does.

    The first update (step 0) of a warm-up has learning rate 0, and the last, step `total_steps` - 1, has not.

    Args:
        learning_rate: the peak, reached when the warm-up is over.
        warmup_fraction: part of the steps that rise, rounded up to whole steps; 0 begins at the peak.
        total_steps: steps of rise and fall.

    Returns:
        A function from the step (from 0) to its learning rate.
    """
    warmup_steps = math.ceil(warmup_fraction * total_steps)
    # A phase without steps is never entered, but optax would call a length of 0 a constant.
    rise = optax.linear_schedule(0.0, learning_rate, max(1, warmup_steps))
    fall = optax.linear_schedule(learning_rate, 0.0, max(1, total_steps - warmup_steps))
    return optax.join_schedules([rise, fall], [warmup_steps])


def decay_mask(params: optax.Params) -> Mask:
    """Choose the tensors that decay, by name: Dense kernels and embedding tables, not biases or LayerNorm."""
    return named(params, "kernel", "embedding")
