"""Masked losses: cross entropy, Trust Your Teacher (TYT) and grounding.

Each is a mean over the elements whose mask is true, and 0 where none is. Elements outside the mask may
hold anything, NaN and impossible labels included: neither the loss nor its gradient sees them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int


def masked_mean(values: Float[Array, "*b"], mask: Bool[Array, "*b"]) -> Float[Array, ""]:
    """Average the values whose mask is true.

    Args:
        values: any shape.
        mask: the same shape; true counts.

    Returns:
        The mean, 0 where nothing counts.
    """
    return jnp.where(mask, values, 0).sum() / jnp.maximum(mask.sum(), 1)


def cross_entropy(logits: Float[Array, "*b c"], labels: Int[Array, "*b"], mask: Bool[Array, "*b"]) -> Float[Array, ""]:
    """Masked mean of the cross entropy against the gold classes, in nats.

    Args:
        logits: unnormalised scores, one per class.
        labels: gold classes, from 0.
        mask: which elements count: real first sub-words in stage 1, real candidates in stage 2.

    Returns:
        The loss; NaN where a label that counts is out of range.
    """
    logits, labels = _blank(logits, mask), jnp.where(mask, labels, 0)
    return masked_mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels), mask)


def trust_your_teacher(
    logits: Float[Array, "*b c"],
    labels: Int[Array, "*b"],
    mask: Bool[Array, "*b"],
    teacher_logits: Float[Array, "*b c"],
    *,
    alpha: float | None = None,
) -> Float[Array, ""]:
    """Distil from a teacher as far as it agrees with the gold label (paper: Trust Your Teacher).

    The loss of one element is alpha * CE(gold) + (1 - alpha) * KL(teacher || student), where alpha is the
    teacher's probability of the gold class: labels the teacher doubts are replaced by its own opinion.
    Its gradient is that of the cross entropy against alpha * onehot(gold) + (1 - alpha) * teacher.

    **Assumption:** Table 3's "Half" and "Full" are a fixed alpha of 0.5 and of 0.

    Args:
        logits: the student's scores.
        labels: gold classes, from 0.
        mask: which elements count.
        teacher_logits: the teacher's scores; no gradient flows into them.
        alpha: a fixed weight of the gold label in [0, 1]; None takes the teacher's probability.

    Returns:
        The masked mean, in nats.

    Raises:
        ValueError: alpha outside [0, 1].
    """
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: expected a number from 0 (teacher only) to 1 (gold only), or None (adaptive)")
    logits, labels = _blank(logits, mask), jnp.where(mask, labels, 0)
    log_teacher = jax.nn.log_softmax(jax.lax.stop_gradient(_blank(teacher_logits, mask)))
    # A class that the teacher rules out (-inf) contributes 0, which 0 * -inf would not.
    log_teacher = jnp.maximum(log_teacher, jnp.finfo(log_teacher.dtype).min)
    gold = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    distance = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(logits), log_teacher)
    if alpha is None:
        trust = jnp.exp(jnp.take_along_axis(log_teacher, labels[..., None], axis=-1).squeeze(-1))
        return masked_mean(trust * gold + (1 - trust) * distance, mask)
    return masked_mean(alpha * gold + (1 - alpha) * distance, mask)


def grounding_loss(
    scores: Float[Array, "b o"], overlaps: Float[Array, "b o"], mask: Bool[Array, "b o"]
) -> Float[Array, ""]:
    """Binary cross entropy of each object's overlap score against its IoU with the gold box (Equation 2).

    **Assumption:** the mean is over all real objects of all real candidates at once, so a candidate with
    more objects weighs more.

    Args:
        scores: overlap scores, as logits.
        overlaps: each object's IoU with the candidate's best gold box, in [0, 1]; 0 without one.
        mask: true for the real objects of real candidates.

    Returns:
        The masked mean, in nats; at its least it is the targets' entropy, not 0.
    """
    scores, overlaps = jnp.where(mask, scores, 0), jnp.where(mask, overlaps, 0)
    return masked_mean(optax.losses.sigmoid_binary_cross_entropy(scores, overlaps), mask)


def _blank(logits: Float[Array, "*b c"], mask: Bool[Array, "*b"]) -> Float[Array, "*b c"]:
    """Zero the logits outside the mask; masking the loss alone would still turn NaN there into a NaN gradient."""
    return jnp.where(mask[..., None], logits, 0)
