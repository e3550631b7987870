"""optim.py against torch and Hugging Face's schedule."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from scanner_jax.awp import AWPState
from scanner_jax.optim import Milestones, OptimizerSettings, decay_mask, make_optimizer, warmup_linear_decay

STEPS, RATE, DECAY, CLIP = 10, 1e-2, 0.1, 1.0
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "word": {"embedding": (7, 4)},
    "dense": {"kernel": (4, 3), "bias": (3,)},
    "layer_norm": {"scale": (3,), "bias": (3,)},
}


def tensors(seed: int, scale: float = 1.0) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return {
        module: {leaf: (scale * rng.normal(size=shape)).astype(np.float32) for leaf, shape in leaves.items()}
        for module, leaves in SHAPES.items()
    }


def targets() -> list[Any]:
    """One quadratic problem a step; every other one is so flat that clipping has nothing to do."""
    return [tensors(step + 1, scale=1.0 + step) for step in range(STEPS)]


def steepness(step: int) -> float:
    return 1.0 if step % 2 else 0.01


@pytest.mark.parametrize(("warmup_fraction", "total_steps"), [(0.1, 30), (0.0, 9), (0.25, 10), (0.07, 100), (1.0, 5)])
def test_schedule_equals_hugging_face_at_every_step(warmup_fraction: float, total_steps: int) -> None:
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = get_linear_schedule_with_warmup(optimizer, math.ceil(warmup_fraction * total_steps), total_steps)
    settings = OptimizerSettings(learning_rate=RATE, warmup_fraction=warmup_fraction)
    ours = warmup_linear_decay(settings.milestones(total_steps), learning_rate=RATE)
    for step in range(total_steps):
        np.testing.assert_allclose(ours(step), scheduler.get_last_lr()[0], rtol=1e-6, atol=1e-9, err_msg=f"step {step}")
        optimizer.step()
        scheduler.step()


def test_schedule_ends_at_zero_and_stays_there() -> None:
    schedule = warmup_linear_decay(Milestones(2, 5, 10), learning_rate=1.0)
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 2, 9, 10, 11)], [0, 0.5, 1, 0.125, 0, 0], atol=1e-7)


def torch_training() -> list[dict[str, np.ndarray]]:
    """AdamW with param groups, clipping and the linear schedule; the weights after each step."""
    params = {
        (m, n): torch.tensor(x, requires_grad=True) for m, leaves in tensors(0).items() for n, x in leaves.items()
    }
    exempt = {("dense", "bias"), ("layer_norm", "scale"), ("layer_norm", "bias")}
    groups = [
        {"params": [weight for name, weight in params.items() if name not in exempt], "weight_decay": DECAY},
        {"params": [weight for name, weight in params.items() if name in exempt], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98), eps=1e-6)
    rises, falls = 2, STEPS - 2
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: s / rises if s < rises else (STEPS - s) / falls)
    history, clipped = [], []
    for step, target in enumerate(targets()):
        optimizer.zero_grad()
        squares = [((weight - torch.tensor(target[m][n])) ** 2).sum() for (m, n), weight in params.items()]
        (steepness(step) / 2 * torch.stack(squares).sum()).backward()
        clipped.append(bool(torch.nn.utils.clip_grad_norm_(params.values(), CLIP) > CLIP))
        optimizer.step()
        scheduler.step()
        history.append({f"{m}/{n}": weight.detach().numpy().copy() for (m, n), weight in params.items()})
    assert set(clipped) == {True, False}
    return history


def build(**options: Any) -> optax.GradientTransformationExtraArgs:
    defaults: dict[str, Any] = {"warmup_fraction": 0.2, "weight_decay": DECAY, "max_grad_norm": CLIP}
    settings = OptimizerSettings(learning_rate=RATE, b2=0.98, eps=1e-6, **(defaults | options))
    return make_optimizer(settings, settings.milestones(STEPS))


def train(tx: optax.GradientTransformationExtraArgs) -> list[Any]:
    params: Any = jax.tree.map(jnp.asarray, tensors(0))
    state = tx.init(params)

    @jax.jit
    def train_step(params: Any, state: Any, target: Any, slope: jax.Array) -> Any:
        def grad_fn(params: Any) -> Any:
            return jax.tree.map(lambda weight, goal: slope * (weight - goal), params, target)

        updates, state = tx.update(grad_fn(params), state, params, grad_fn=grad_fn)
        return optax.apply_updates(params, updates), state

    history = []
    for step, target in enumerate(targets()):
        params, state = train_step(params, state, target, steepness(step))
        history.append(params)
    return history


def test_adamw_with_clipping_schedule_and_decay_mask_equals_torch() -> None:
    start = tensors(0)
    for step, (params, expected) in enumerate(zip(train(build()), torch_training(), strict=True)):
        for name, weight in expected.items():
            module, leaf = name.split("/")
            np.testing.assert_allclose(params[module][leaf], weight, rtol=0, atol=1e-6, err_msg=f"{name}, step {step}")
            assert step == 0 or np.abs(weight - start[module][leaf]).max() > 1e-4  # only step 0 has no rate


def first_difference(ours: list[Any], theirs: list[Any]) -> int:
    """The first step whose weights differ by more than two compilations of the same step may."""
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), a, b))) > 1e-5:
            return step
    return STEPS


@pytest.mark.parametrize(
    ("options", "first"),
    [({}, 5), ({"awp_start": 0.0}, 1), ({"awp_start": 0.25}, 2), ({"awp_start": 0.79}, 7), ({"awp_start": 1.0}, STEPS)],
)
def test_awp_sets_in_at_its_part_of_the_training(options: dict[str, float], first: int) -> None:
    # With awp_start 0 the weights only differ from step 1 on: step 0 has learning rate 0.
    assert first_difference(train(build(awp_gamma=0.5, **options)), train(build())) == first


def test_awp_is_left_out_when_off() -> None:
    assert isinstance(build(awp_gamma=0.5).init(tensors(0)), AWPState)
    assert not isinstance(build().init(tensors(0)), AWPState)


def test_no_clipping_with_an_infinite_norm() -> None:
    far = train(build(max_grad_norm=math.inf))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(far))
    assert not jnp.array_equal(far[-1]["dense"]["kernel"], train(build())[-1]["dense"]["kernel"])


def test_decay_mask_goes_by_name() -> None:
    assert decay_mask(tensors(0)) == {
        "word": {"embedding": True},
        "dense": {"kernel": True, "bias": False},
        "layer_norm": {"scale": False, "bias": False},
    }


def test_awp_perturbs_the_tensors_that_are_named() -> None:
    kernels, tables = (train(build(awp_gamma=0.5, awp_tensors=names)) for names in (("kernel",), ("embedding",)))
    plain = train(build())
    for name, history in (("dense", kernels), ("word", tables)):
        leaf = "kernel" if name == "dense" else "embedding"
        assert not np.allclose(history[-1][name][leaf], plain[-1][name][leaf], atol=1e-5)


def test_milestones_are_whole_steps() -> None:
    settings = OptimizerSettings(learning_rate=1.0, warmup_fraction=0.1, awp_start=0.5)
    assert settings.milestones(10_000) == (1000, 5000, 10_000)
    assert settings.milestones(11) == (2, 5, 11)


def test_wrong_options_are_listed_together() -> None:
    with pytest.raises(ValueError, match=r"rate=-1.*warmup_fraction=10.*awp_start=-1.*max_grad_norm=0.*awp_tensors="):
        OptimizerSettings(learning_rate=-1, warmup_fraction=10, awp_start=-1, max_grad_norm=0, awp_tensors=("kernels",))
