"""The training loop: resuming, the best checkpoint, divergence, same seed twice."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scanner_jax.loop import DivergedError, TrainingSettings, train

SETTINGS = TrainingSettings(
    epochs=3,
    batch_size=4,
    learning_rate=0.1,
    warmup_fraction=0.1,
    weight_decay=0.01,
    max_grad_norm=1.0,
    awp_gamma=0.01,
    awp_start=0.5,
    awp_clip_eps=None,
    checkpoint_every=3,
    log_every=2,
)


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float
    length: int = 1


POINTS = [Point(x=index / 10, y=0.3 * index - 1) for index in range(18)]


def collate(points, *, batch_size):
    rows = np.zeros((batch_size, 3), np.float32)
    rows[: len(points)] = [(point.x, point.y, 1) for point in points]
    return {"x": rows[:, 0], "y": rows[:, 1], "mask": rows[:, 2]}


def loss_fn(params, batch, rng):
    noise = jax.random.normal(rng, batch["x"].shape)  # stands for dropout
    error = params["kernel"][0, 0] * (batch["x"] + 0.01 * noise) + params["bias"][0] - batch["y"]
    return (batch["mask"] * error**2).sum() / batch["mask"].sum()


def start():
    return {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}


def run(folder, *, evaluate=None, loss=loss_fn, settings=SETTINGS, points=POINTS):
    folder.mkdir(exist_ok=True)
    return train(
        name="line",
        params=start(),
        loss_fn=loss,
        features=points,
        collate=collate,
        settings=settings,
        evaluate=evaluate,
        seed=7,
        folder=folder,
    )


def test_same_seed_twice_is_equal_and_learns(tmp_path):
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))
    losses = [json.loads(line)["loss"] for line in (tmp_path / "a" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] / 2
    assert not np.array_equal(first["kernel"], np.ones((1, 1)))


@pytest.mark.parametrize("stop_at", [4, 8, 12])  # behind a checkpoint, before AWP and after it
def test_resumed_run_is_bit_for_bit_the_undisturbed_one(tmp_path, stop_at):
    undisturbed = run(tmp_path / "a")
    seen = []

    def collate_and_stop(points, *, batch_size):
        seen.append(points)
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        return collate(points, batch_size=batch_size)

    folder = tmp_path / "b"
    folder.mkdir()
    arguments = {"name": "line", "params": start(), "loss_fn": loss_fn, "features": POINTS, "settings": SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        train(**arguments, collate=collate_and_stop, evaluate=None, seed=7, folder=folder)
    resumed = run(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, undisturbed, resumed))


def test_best_parameters_on_dev_come_back(tmp_path):
    kept = []

    def evaluate(params):
        kept.append(jax.device_get(params))
        return {"score": [10.0, 30.0, 20.0][len(kept) - 1]}

    best = run(tmp_path / "a", evaluate=evaluate)
    assert len(kept) == SETTINGS.epochs
    assert jax.tree.all(jax.tree.map(np.array_equal, best, kept[1]))
    # A run that was already finished trains no further and gives the same.
    assert jax.tree.all(jax.tree.map(np.array_equal, best, run(tmp_path / "a", evaluate=evaluate)))
    assert len(kept) == SETTINGS.epochs


def test_without_dev_the_last_parameters_come_back(tmp_path):
    kept = []

    def evaluate(params):
        kept.append(jax.device_get(params))
        return {"score": float(len(kept))}  # the last is the best

    run(tmp_path / "a", evaluate=evaluate)
    assert jax.tree.all(jax.tree.map(np.array_equal, kept[-1], run(tmp_path / "b")))


def test_divergence_stops_and_keeps_the_checkpoint_before_it(tmp_path):
    def loss(params, batch, rng):
        return loss_fn(params, batch, rng) / jnp.where(batch["x"].max() > 1.69, 0, 1)

    with pytest.raises(DivergedError, match="lower the learning rate"):
        run(tmp_path / "a", loss=loss)
    for state in (tmp_path / "a" / "checkpoints").iterdir():
        assert int(state.name) < 15


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    def loss(params, batch, rng):
        # The square root of 0 is 0, but its derivative is not a number here.
        return loss_fn(params, batch, rng) + jnp.sqrt(0 * params["bias"][0])

    with pytest.raises(DivergedError, match="the loss of step 1 is nan"):
        run(tmp_path / "a", loss=loss)


def test_empty_training_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line: the training set is empty"):
        run(tmp_path / "a", points=[])
