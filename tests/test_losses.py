"""losses.py against torch, values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from scanner_jax.losses import cross_entropy, grounding_loss, masked_mean, trust_your_teacher

TOLERANCE = 1e-6
BATCH, TOKENS, CLASSES, OBJECTS = 4, 7, 5, 6


def draw(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Student logits, labels, mask and teacher logits; the teacher is sure of itself in places."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(BATCH, TOKENS, CLASSES)).astype(np.float32) * 3
    teacher = rng.normal(size=(BATCH, TOKENS, CLASSES)).astype(np.float32) * rng.choice([1.0, 8.0], size=(BATCH, 1, 1))
    labels = rng.integers(CLASSES, size=(BATCH, TOKENS))
    mask = rng.random((BATCH, TOKENS)) < 0.6
    return logits, labels, mask, teacher.astype(np.float32)


def torch_tyt(
    logits: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor, teacher: torch.Tensor, alpha: float | None
) -> torch.Tensor:
    """The loss written over the selected elements only, as a torch user would."""
    logits, labels, teacher = logits[mask], labels[mask], teacher[mask]
    probabilities = teacher.softmax(-1)
    weight = probabilities[torch.arange(len(labels)), labels] if alpha is None else torch.full((len(labels),), alpha)
    gold = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    distance = torch.nn.functional.kl_div(logits.log_softmax(-1), probabilities, reduction="none").sum(-1)
    return (weight * gold + (1 - weight) * distance).mean()


def assert_same(ours: Callable[[jax.Array], jax.Array], theirs: Callable[[torch.Tensor], torch.Tensor], at: np.ndarray):
    value, gradient = jax.value_and_grad(ours)(jnp.asarray(at))
    point = torch.tensor(at, requires_grad=True)
    expected = theirs(point)
    expected.backward()
    assert point.grad is not None
    np.testing.assert_allclose(value, expected.item(), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(gradient, point.grad.numpy(), rtol=0, atol=TOLERANCE)


def test_cross_entropy_equals_torch_on_the_masked_elements() -> None:
    logits, labels, mask, _ = draw()
    real, gold = torch.tensor(mask), torch.tensor(labels)
    assert_same(
        lambda x: cross_entropy(x, jnp.asarray(labels), jnp.asarray(mask)),
        lambda x: torch.nn.functional.cross_entropy(x[real], gold[real]),
        logits,
    )


@pytest.mark.parametrize("alpha", [None, 0.0, 0.5, 1.0])
def test_trust_your_teacher_equals_torch(alpha: float | None) -> None:
    logits, labels, mask, teacher = draw()
    assert_same(
        lambda x: trust_your_teacher(x, jnp.asarray(labels), jnp.asarray(mask), jnp.asarray(teacher), alpha=alpha),
        lambda x: torch_tyt(x, torch.tensor(labels), torch.tensor(mask), torch.tensor(teacher), alpha),
        logits,
    )


def test_trust_your_teacher_has_the_gradient_of_cross_entropy_on_mixed_targets() -> None:
    logits, labels, mask, teacher = (jnp.asarray(x) for x in draw(1))
    probabilities = jax.nn.softmax(teacher)
    alpha = jnp.take_along_axis(probabilities, labels[..., None], axis=-1)
    targets = alpha * jax.nn.one_hot(labels, CLASSES) + (1 - alpha) * probabilities

    def mixed(x: jax.Array) -> jax.Array:
        return masked_mean(-(targets * jax.nn.log_softmax(x)).sum(-1), mask)

    ours = jax.grad(lambda x: trust_your_teacher(x, labels, mask, teacher))(logits)
    np.testing.assert_allclose(ours, jax.grad(mixed)(logits), rtol=0, atol=TOLERANCE)


def test_full_trust_in_the_gold_label_is_cross_entropy() -> None:
    logits, labels, mask, teacher = (jnp.asarray(x) for x in draw())
    expected = cross_entropy(logits, labels, mask)
    np.testing.assert_allclose(trust_your_teacher(logits, labels, mask, teacher, alpha=1.0), expected, rtol=1e-6)
    sure = 100.0 * jax.nn.one_hot(labels, CLASSES)  # a teacher that is certain of the gold label
    np.testing.assert_allclose(trust_your_teacher(logits, labels, mask, sure), expected, rtol=1e-6)


def test_no_gradient_flows_to_the_teacher() -> None:
    logits, labels, mask, teacher = (jnp.asarray(x) for x in draw())
    gradient = jax.grad(lambda t: trust_your_teacher(logits, labels, mask, t))(teacher)
    assert not gradient.any()


@pytest.mark.parametrize("ruled_out", [-1e4, -1e30, -np.inf])
def test_a_teacher_that_rules_classes_out_gives_finite_values(ruled_out: float) -> None:
    logits = jnp.asarray([[2.0, -1.0, 0.5], [90.0, -90.0, 0.0]])
    teacher = jnp.asarray([[ruled_out, 0.0, 0.0], [ruled_out, 0.0, ruled_out]])
    labels, mask = jnp.asarray([0, 1]), jnp.ones(2, bool)
    value, gradient = jax.value_and_grad(lambda x: trust_your_teacher(x, labels, mask, teacher))(logits)
    # By hand: the first gold label has no trust, the second all of it.
    log_student = jax.nn.log_softmax(logits)
    first = np.log(0.5) - 0.5 * (log_student[0, 1] + log_student[0, 2])
    np.testing.assert_allclose(value, (first + 180.0) / 2, rtol=1e-6)
    assert jnp.isfinite(gradient).all()


def test_alpha_outside_its_range_is_refused() -> None:
    logits, labels, mask, teacher = (jnp.asarray(x) for x in draw())
    with pytest.raises(ValueError, match=r"alpha=1\.5: expected a number from 0 .* to 1"):
        trust_your_teacher(logits, labels, mask, teacher, alpha=1.5)


def test_grounding_loss_equals_torch() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(BATCH, OBJECTS)).astype(np.float32) * 10
    overlaps = rng.random((BATCH, OBJECTS)).astype(np.float32)
    overlaps[0], overlaps[1, 0] = 0.0, 1.0
    mask = rng.random((BATCH, OBJECTS)) < 0.6
    mask[3] = False  # a padded candidate
    real, target = torch.tensor(mask), torch.tensor(overlaps)
    assert_same(
        lambda x: grounding_loss(x, jnp.asarray(overlaps), jnp.asarray(mask)),
        lambda x: torch.nn.functional.binary_cross_entropy_with_logits(x[real], target[real]),
        scores,
    )


def test_masked_mean_of_nothing_is_zero_with_a_finite_gradient() -> None:
    values, nothing = jnp.asarray([1.0, 5.0, 9.0]), jnp.zeros(3, bool)
    value, gradient = jax.value_and_grad(masked_mean)(values, nothing)
    assert value == 0 and not gradient.any()
    assert masked_mean(values, jnp.asarray([True, False, True])) == 5


LOSSES = {
    "cross_entropy": lambda x, labels, mask, teacher: cross_entropy(x, labels, mask),
    "adaptive": lambda x, labels, mask, teacher: trust_your_teacher(x, labels, mask, teacher),
    "fixed": lambda x, labels, mask, teacher: trust_your_teacher(x, labels, mask, teacher, alpha=0.5),
    "grounding": lambda x, labels, mask, teacher: grounding_loss(x[..., 0], jax.nn.sigmoid(teacher[..., 0]), mask),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_elements_outside_the_mask_are_never_seen(loss: Callable[..., jax.Array]) -> None:
    logits, labels, mask, teacher = draw()
    expected, gradient = jax.value_and_grad(loss)(*(jnp.asarray(x) for x in (logits, labels, mask, teacher)))
    for array, junk in ((logits, np.nan), (labels, -100), (teacher, np.inf)):
        array[~mask] = junk
    value, with_junk = jax.value_and_grad(loss)(*(jnp.asarray(x) for x in (logits, labels, mask, teacher)))
    assert value == expected and jnp.array_equal(with_junk, gradient)
    value, gradient = jax.value_and_grad(loss)(*(jnp.asarray(x) for x in (logits, labels, mask & False, teacher)))
    assert value == 0 and not gradient.any()


def test_a_real_label_out_of_range_shows_as_nan() -> None:
    assert jnp.isnan(cross_entropy(jnp.zeros((1, 3)), jnp.asarray([3]), jnp.ones(1, bool)))
