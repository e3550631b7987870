"""awp.py against straightforward torch code and optax's SAM, with SGD inside (Adam would hide the first step)."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.typing import ArrayLike

import scanner_jax.awp
from scanner_jax.awp import awp, named, perturb, perturbed_by_default

RATE, GAMMA, START, STEPS = 0.3, 0.05, 2, 5
TOLERANCE = 1e-6


def initial() -> dict[str, dict[str, np.ndarray]]:
    """A small tagger. `closed` is zero and feeds `unused`, so its gradient is not zero but it has no norm;
    `idle` is zero and has no gradient either."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    return {
        "words": {"embedding": normal(7, 4)},
        "hidden": {"kernel": normal(4, 6), "bias": normal(6)},
        "closed": {"kernel": np.zeros((4, 3), np.float32)},
        "idle": {"kernel": np.zeros((3, 3), np.float32)},
        "out": {"kernel": normal(6, 3), "bias": np.zeros(3, np.float32)},
    }


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [(rng.integers(7, size=8), rng.integers(3, size=8)) for _ in range(STEPS)]


def loss_of(params: Any, words: Any, labels: Any, tanh: Callable, log_softmax: Callable) -> Any:
    """One formula for both libraries."""
    vectors = params["words"]["embedding"][words]
    hidden = tanh(vectors @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
    logits = logits + vectors @ params["closed"]["kernel"] + 0.0 * params["idle"]["kernel"].sum()
    return -log_softmax(logits)[np.arange(len(labels)), labels].mean()


def jax_gradient(words: ArrayLike, labels: ArrayLike) -> Callable[[Any], Any]:
    return jax.grad(lambda params: loss_of(params, words, labels, jnp.tanh, jax.nn.log_softmax))


class TorchAWP:
    """The oracle: keep the weights, move the kernels uphill in place, and put them back."""

    def __init__(self, params: dict[str, torch.Tensor], gamma: float, clip_eps: float | None) -> None:
        self.params = {name: weight for name, weight in params.items() if name.endswith("kernel")}
        self.gamma, self.clip_eps = gamma, clip_eps
        self.saved: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def attack(self) -> None:
        for name, weight in self.params.items():
            self.saved[name] = weight.clone()
            assert weight.grad is not None
            size, steepness = weight.norm(), weight.grad.norm()
            if size == 0 or steepness == 0:
                continue
            weight += self.gamma * size / steepness * weight.grad
            if self.clip_eps is not None:
                bound = self.clip_eps * self.saved[name].abs()
                weight.copy_(weight.clamp(self.saved[name] - bound, self.saved[name] + bound))

    @torch.no_grad()
    def restore(self) -> None:
        for name, weight in self.params.items():
            weight.copy_(self.saved[name])


def torch_training(clip_eps: float | None) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """Per step: the gradients that were followed, and the weights after it."""
    tree = jax.tree.map(lambda x: torch.tensor(x, requires_grad=True), initial())
    params = {f"{module}/{leaf}": tree[module][leaf] for module in tree for leaf in tree[module]}
    optimizer = torch.optim.SGD(params.values(), lr=RATE)
    attacker = TorchAWP(params, GAMMA, clip_eps)
    history = []
    for step, (words, labels) in enumerate(batches()):

        def backward(words: np.ndarray = words, labels: np.ndarray = labels) -> None:
            optimizer.zero_grad()
            loss_of(tree, words, labels, torch.tanh, lambda x: x.log_softmax(-1)).backward()

        backward()
        if step >= START:
            attacker.attack()
            backward()
            attacker.restore()
        optimizer.step()
        gradients = {name: weight.grad.numpy().copy() for name, weight in params.items() if weight.grad is not None}
        history.append((gradients, {name: weight.detach().numpy().copy() for name, weight in params.items()}))
    return history


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {f"{module}/{leaf}": np.asarray(tree[module][leaf]) for module in tree for leaf in tree[module]}


@pytest.mark.parametrize("clip_eps", [None, 0.03])
def test_awp_equals_torch_across_its_start(clip_eps: float | None) -> None:
    tx = awp(optax.sgd(RATE), gamma=GAMMA, start_step=START, clip_eps=clip_eps)
    params = jax.tree.map(jnp.asarray, initial())
    state = tx.init(params)

    @jax.jit
    def train_step(params: Any, state: Any, words: jax.Array, labels: jax.Array) -> Any:
        grad_fn = jax_gradient(words, labels)
        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state, updates

    for (words, labels), (gradients, weights) in zip(batches(), torch_training(clip_eps), strict=True):
        params, state, updates = train_step(params, state, words, labels)
        followed = flat(jax.tree.map(lambda update: -update / RATE, updates))
        for name in weights:
            np.testing.assert_allclose(followed[name], gradients[name], rtol=0, atol=TOLERANCE, err_msg=name)
            np.testing.assert_allclose(flat(params)[name], weights[name], rtol=0, atol=TOLERANCE, err_msg=name)
    assert state.step == STEPS
    assert not params["idle"]["kernel"].any() and params["closed"]["kernel"].any()


def test_the_oracle_tells_awp_from_plain_sgd_and_clipping_from_none() -> None:
    free, bound = torch_training(None), torch_training(0.03)
    name = "hidden/kernel"
    np.testing.assert_array_equal(free[START - 1][1][name], bound[START - 1][1][name])
    assert np.abs(free[START][1][name] - bound[START][1][name]).max() > 100 * TOLERANCE
    tx, params = optax.sgd(RATE), jax.tree.map(jnp.asarray, initial())
    for words, labels in batches()[: START + 1]:
        updates, _ = tx.update(jax_gradient(words, labels)(params), tx.init(params))
        params = optax.apply_updates(params, updates)
    assert np.abs(free[START][1][name] - flat(params)[name]).max() > 100 * TOLERANCE


def test_awp_equals_sam_with_a_trust_ratio_but_for_zero_tensors() -> None:
    words, labels = batches()[0]
    grad_fn, params = jax_gradient(words, labels), jax.tree.map(jnp.asarray, initial())

    def everything(tree: Any) -> Any:
        return jax.tree.map(lambda _: True, tree)

    def both(params: Any) -> tuple[Any, Any]:
        ascent = optax.chain(optax.scale_by_trust_ratio(), optax.sgd(GAMMA))
        sam = optax.contrib.sam(optax.sgd(RATE), ascent, opaque_mode=True)
        tx = awp(optax.sgd(RATE), gamma=GAMMA, start_step=0, mask=everything)
        grads = grad_fn(params)
        theirs, _ = sam.update(grads, sam.init(params), params, grad_fn=lambda p, _: grad_fn(p))
        ours, _ = tx.update(grads, tx.init(params), params, grad_fn=grad_fn)
        return ours, theirs

    nonzero = {**params, "closed": {"kernel": params["hidden"]["kernel"][:, :3]}}
    nonzero["out"] = {**params["out"], "bias": jnp.ones(3)}
    for ours, theirs in zip(*(jax.tree.leaves(tree) for tree in both(nonzero)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)
    ours, theirs = both(params)  # SAM moves the zero tensors by the whole gradient, AWP leaves them
    assert np.abs(flat(ours)["out/kernel"] - flat(theirs)["out/kernel"]).max() > 100 * TOLERANCE


def test_grad_fn_is_not_evaluated_before_the_start() -> None:
    calls: list[int] = []
    plain = jax.grad(lambda params: jnp.sum(params["kernel"] ** 2))

    def counted(params: Any) -> Any:
        jax.debug.callback(lambda: calls.append(1))
        return plain(params)

    tx = awp(optax.sgd(0.1), gamma=GAMMA, start_step=3)
    params = {"kernel": jnp.ones(2)}
    state = tx.init(params)
    update = jax.jit(lambda params, state: tx.update(plain(params), state, params, grad_fn=counted))
    evaluations = []
    for _ in range(STEPS):
        _, state = update(params, state)
        jax.effects_barrier()
        evaluations.append(len(calls))
    assert evaluations == [0, 0, 0, 1, 2]


def test_each_tensor_moves_by_gamma_of_its_own_norm_and_only_where_masked() -> None:
    words, labels = batches()[0]
    params = jax.tree.map(jnp.asarray, initial())
    grads = jax_gradient(words, labels)(params)
    moved = flat(perturb(params, grads, gamma=GAMMA))
    for name, before in flat(params).items():
        distance = np.linalg.norm(moved[name] - before)
        expected = GAMMA * np.linalg.norm(before) if name.endswith("kernel") else 0.0
        np.testing.assert_allclose(distance, expected, rtol=1e-5, err_msg=name)
    only = jax.tree.map(lambda _: False, params)
    only["words"]["embedding"] = True
    moved = flat(perturb(params, grads, gamma=GAMMA, mask=only))
    assert [name for name in moved if (moved[name] != flat(params)[name]).any()] == ["words/embedding"]


def test_gradient_of_zero_or_without_norm_gives_no_nan() -> None:
    params = {"a": {"kernel": jnp.ones((2, 2))}, "b": {"kernel": jnp.zeros((2, 2))}}
    grads = {"a": {"kernel": jnp.zeros((2, 2))}, "b": {"kernel": jnp.ones((2, 2))}}
    for clip_eps in (None, 0.1):
        moved = jax.jit(lambda clip_eps=clip_eps: perturb(params, grads, gamma=0.5, clip_eps=clip_eps))()
        assert jax.tree.all(jax.tree.map(jnp.array_equal, moved, params))


def test_masks_go_by_name_not_by_dimensions() -> None:
    params = {
        "embeddings": {"word": {"embedding": jnp.ones((5, 2))}, "layer_norm": {"scale": jnp.ones(2)}},
        "layer_0": {"query": {"kernel": jnp.ones((2, 2, 1)), "bias": jnp.ones((2, 1))}},
        "kernel": {"scale": jnp.ones((2, 2))},
        "gate": {"kernel": jnp.ones(2)},
    }
    chosen = jax.tree_util.tree_leaves_with_path(perturbed_by_default(params))
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, marked in chosen if marked]
    assert names == ["gate/kernel", "layer_0/query/kernel"]
    assert sum(jax.tree.leaves(named(params, "bias", "scale"))) == 3


def test_other_transforms_arguments_reach_the_inner_one() -> None:
    seen: list[float] = []

    def update(updates: Any, state: Any, params: Any = None, *, value: float, **extra: Any) -> Any:
        assert "grad_fn" not in extra
        seen.append(value)
        return updates, state

    inner = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
    tx = optax.chain(optax.identity(), awp(inner, start_step=0))
    params = {"kernel": jnp.ones(2)}
    tx.update(params, tx.init(params), params, grad_fn=lambda p: p, value=3.0)
    assert seen == [3.0]


def test_wrong_options_and_a_missing_grad_fn_are_explained() -> None:
    with pytest.raises(ValueError, match=r"gamma=-1.*start_step=-2.*clip_eps=0"):
        awp(optax.sgd(0.1), gamma=-1, start_step=-2, clip_eps=0)
    params = {"kernel": jnp.ones(2)}
    tx = awp(optax.sgd(0.1), start_step=0)
    with pytest.raises(ValueError, match="needs params and grad_fn"):
        tx.update(params, tx.init(params), params)


def test_the_docstring_example_runs() -> None:
    results = doctest.testmod(scanner_jax.awp)
    assert results.attempted and not results.failed
