"""Adversarial weight perturbation (AWP; Wu et al., 2020) as an optax transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

Mask = Any
"""A tree of bools of the params' structure, or a function from params to one."""


class AWPState(NamedTuple):
    """State of `awp`: updates made so far, and the inner transform's state."""

    step: Int[Array, ""]
    inner: optax.OptState


def awp(
    inner: optax.GradientTransformation,
    *,
    gamma: float = 0.01,
    start_step: int | Int[Array, ""],
    clip_eps: float | None = None,
    mask: Mask | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Make `inner` follow the gradient at adversarially perturbed weights.

    From `start_step` on, every update takes one ascent step (see `perturb`) from the gradient it was given,
    evaluates `grad_fn` there, and hands that gradient, alone, to `inner`; the weights themselves are not
    moved. Before it, `grad_fn` is compiled but never run. The ascent step only depends on the gradient's direction in
    each tensor, so clipping belongs into `inner`.

    Example:
        >>> import jax, jax.numpy as jnp, optax
        >>> grad_fn = jax.grad(lambda params: jnp.sum(params["kernel"] ** 2))
        >>> tx = awp(optax.sgd(0.5), gamma=0.1, start_step=0)
        >>> params = {"kernel": jnp.ones(2)}
        >>> updates, state = tx.update(grad_fn(params), tx.init(params), params, grad_fn=grad_fn)
        >>> updates["kernel"]
        Array([-1.1, -1.1], dtype=float32)

    Args:
        inner: the optimizer, gradient clipping included. **Assumption:** so clipping acts on the adversarial gradient.
        gamma: length of the step, relative to each tensor's norm. **Assumption:** 0.01, the original work's value.
        start_step: first update (from 0) that is adversarial; a traced number is not checked.
        clip_eps: if given, no weight moves by more than this part of its own size. **Assumption:** off, as in
            the original work.
        mask: the tensors to perturb; None takes `perturbed_by_default`.

    Returns:
        A transform whose `update(updates, state, params, *, grad_fn)` needs `grad_fn(params) -> grads`: the
        gradient on the same batch, with a dropout key of its own.

    Raises:
        ValueError: an option out of range.

    References:
        Wu et al., Adversarial Weight Perturbation Helps Robust Generalization, NeurIPS 2020.
    """
    _check(gamma=gamma, start_step=start_step, clip_eps=clip_eps)
    follower = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> AWPState:
        return AWPState(jnp.zeros([], jnp.int32), follower.init(params))

    def update(
        updates: optax.Updates,
        state: AWPState,
        params: optax.Params | None = None,
        *,
        grad_fn: Callable[[optax.Params], optax.Updates] | None = None,
        **extra: Any,  # optax's protocol: other transforms' arguments travel along
    ) -> tuple[optax.Updates, AWPState]:
        if params is None or grad_fn is None:
            raise ValueError("awp: update needs params and grad_fn: update(updates, state, params, grad_fn=grad_fn)")

        def adversarial() -> optax.Updates:
            return grad_fn(perturb(params, updates, gamma=gamma, clip_eps=clip_eps, mask=mask))

        grads = jax.lax.cond(state.step >= start_step, adversarial, lambda: updates)
        new_updates, inner_state = follower.update(grads, state.inner, params, **extra)
        return new_updates, AWPState(optax.safe_increment(state.step), inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def perturb(
    params: optax.Params,
    grads: optax.Updates,
    *,
    gamma: float = 0.01,
    clip_eps: float | None = None,
    mask: Mask | None = None,
) -> optax.Params:
    """Move each masked tensor w along its gradient g, to w + gamma * ||w|| * g / ||g||.

    Args:
        params: the weights; a leaf is a tensor, so layers, and query, key and value, have norms of their own.
        grads: the loss's gradient, of the same structure. A tensor that is zero, or has none, stays as it is.
        gamma: length of the step, relative to the tensor's norm.
        clip_eps: if given, each weight stays within w +- clip_eps * |w|.
        mask: the tensors to move; None takes `perturbed_by_default`.

    Returns:
        The perturbed weights.
    """

    def move(w: Array, g: Array, chosen: bool) -> Array:
        if not chosen:
            return w
        norm = jnp.linalg.norm(g.ravel())
        ratio = jnp.linalg.norm(w.ravel()) / jnp.where(norm > 0, norm, 1)
        step = gamma * ratio * g
        if clip_eps is not None:
            bound = clip_eps * jnp.abs(w)
            step = jnp.clip(step, -bound, bound)
        return w + step

    if mask is None:
        mask = perturbed_by_default
    return jax.tree.map(move, params, grads, mask(params) if callable(mask) else mask)


def perturbed_by_default(params: optax.Params) -> Mask:
    """Choose the Dense kernels, by name.

    **Assumption:** embeddings are left out: only the rows in a batch have a gradient, so the whole table's
    norm would fall on those few. Biases and LayerNorm are left out as in the original work.
    """
    return named(params, "kernel")


def named(params: optax.Params, *names: str) -> Mask:
    """Mark the leaves whose own name (Flax: kernel, bias, embedding, scale) is one of `names`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) in names, params
    )


def _check(*, gamma: float, start_step: int | Int[Array, ""], clip_eps: float | None) -> None:
    problems = []
    if not gamma >= 0:
        problems.append(f"gamma={gamma}: expected 0 or more (the original work: 0.01)")
    if isinstance(start_step, int) and start_step < 0:
        problems.append(f"start_step={start_step}: expected 0 or more")
    if clip_eps is not None and not clip_eps > 0:
        problems.append(f"clip_eps={clip_eps}: expected more than 0, or None for no bound")
    if problems:
        raise ValueError("awp: " + "; ".join(problems))
