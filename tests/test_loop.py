"""The training loop: resuming, the best parameters, divergence, same seed twice."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from line_training import POINTS, SETTINGS, closeness, loss_fn, run

from scanner_jax.files import read_json_lines
from scanner_jax.loop import DISPATCHES_AHEAD, DivergedError
from scanner_jax.optim import OptimizerSettings

TEN_STEPS = dataclasses.replace(SETTINGS, epochs=2)


def equal(first, second):
    return jax.tree.all(jax.tree.map(np.array_equal, first, second))


def final_checkpoint(folder):
    """Every array of the last checkpoint (train state, best parameters, best score), and the position in the data."""
    last = max((folder / "checkpoints").iterdir(), key=lambda path: int(path.name))
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = jax.tree.leaves_with_path(checkpointer.restore(last / "state"))
    position = (last / "place" / "metadata").read_text()
    return last.name, position, {jax.tree_util.keystr(path): np.asarray(array) for path, array in arrays}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run(folder, evaluate=closeness)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The environment of child processes, which share what one of them has compiled."""
    cache = str(tmp_path_factory.mktemp("xla"))
    least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return os.environ | least | {"JAX_COMPILATION_CACHE_DIR": cache}


def train_in_a_child(folder, *moment, env):
    command = [sys.executable, "-m", "tests.line_training", str(folder), *moment]
    root = Path(__file__).parent.parent
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env, cwd=root)


def test_same_seed_twice_is_equal_and_learns(tmp_path):
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    assert equal(first, second)
    losses = [record["loss"] for record in read_json_lines(tmp_path / "a" / "metrics.jsonl")]
    assert losses[-1] < losses[0] / 2
    assert not np.array_equal(first["kernel"], np.ones((1, 1)))


@pytest.mark.parametrize(
    "moment",
    [
        ("batch", "12", "SIGKILL"),  # batches are read ahead of the steps
        ("checkpoint", "4", "SIGKILL"),  # step 6's, whose checksums are missing
        ("dev", "2", "SIGTERM"),
        ("checkpoint", "3", "SIGINT"),
    ],
    ids=" ".join,
)
def test_a_killed_run_ends_bit_for_bit_as_the_undisturbed_one(tmp_path, undisturbed, compiled, moment):
    folder, best = undisturbed
    killed = train_in_a_child(tmp_path, *moment, env=compiled)
    assert killed.returncode == {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[moment[2]], killed.stderr
    if moment[2] != "SIGKILL":
        assert "line is saved up to step" in killed.stdout
    records = read_json_lines(tmp_path / "metrics.jsonl")
    assert equal(run(tmp_path, evaluate=closeness), best)
    step, position, arrays = final_checkpoint(folder)
    step_again, position_again, arrays_again = final_checkpoint(tmp_path)
    assert (step_again, position_again) == (step, position) == ("15", position)
    assert any("opt_state" in name or "mu" in name for name in arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(arrays_again[name], array, strict=True)
    # No record is lost, and none stands twice.
    ours, theirs = read_json_lines(tmp_path / "metrics.jsonl"), read_json_lines(folder / "metrics.jsonl")
    assert [(line["step"], line["score"]) for line in ours if "score" in line] == [
        (line["step"], line["score"]) for line in theirs if "score" in line
    ]
    steps = [line["step"] for line in ours if "loss" in line]
    assert steps == sorted(set(steps)) and set(steps) >= {line["step"] for line in theirs if "loss" in line}
    assert all(line in ours for line in records if line["step"] <= 3)


def test_five_steps_and_a_kill_and_five_more_are_ten(tmp_path, compiled):
    ten = run(tmp_path / "a", evaluate=closeness, settings=TEN_STEPS)
    killed = train_in_a_child(tmp_path / "b", "saved", "1", "SIGKILL", "2", env=compiled)
    assert killed.returncode == -9
    assert [path.name for path in sorted((tmp_path / "b" / "checkpoints").iterdir())] == ["3", "5"]
    assert equal(run(tmp_path / "b", evaluate=closeness, settings=TEN_STEPS), ten)
    ours, theirs = final_checkpoint(tmp_path / "b"), final_checkpoint(tmp_path / "a")
    assert ours[:2] == theirs[:2] and ours[0] == "10"
    assert ours[2].keys() == theirs[2].keys()
    for name, array in theirs[2].items():
        np.testing.assert_array_equal(ours[2][name], array, strict=True)


def test_resuming_with_other_habits_changes_nothing(tmp_path, undisturbed):
    """How often a run is saved and logged is not in a phase's hash, so it may change on the way."""

    class StopError(Exception):
        pass

    def stop(params):
        raise StopError

    with pytest.raises(StopError):
        run(tmp_path, evaluate=stop)
    habits = dataclasses.replace(SETTINGS, checkpoint_every=4, log_every=1)
    assert equal(run(tmp_path, evaluate=closeness, settings=habits), undisturbed[1])


def test_best_parameters_on_dev_come_back(tmp_path):
    kept = []

    def evaluate(params):
        kept.append(jax.device_get(params))
        return {"score": [10.0, 30.0, 20.0, 20.0][len(kept) - 1]}

    best = run(tmp_path / "a", evaluate=evaluate)
    assert len(kept) == SETTINGS.epochs
    assert equal(best, kept[1])
    # A run that was already finished trains no further and gives the same; it looks at its last step once more.
    assert equal(best, run(tmp_path / "a", evaluate=evaluate))
    assert len(kept) == SETTINGS.epochs + 1


def test_the_latest_among_equals_is_the_best(tmp_path):
    kept = []

    def evaluate(params):
        kept.append(jax.device_get(params))
        return {"score": [30.0, 30.0, 20.0][len(kept) - 1]}

    assert equal(run(tmp_path, evaluate=evaluate), kept[1])


def test_without_dev_the_last_parameters_come_back(tmp_path):
    kept = []

    def evaluate(params):
        kept.append(jax.device_get(params))
        return {"score": float(len(kept))}  # the last is the best

    run(tmp_path / "a", evaluate=evaluate)
    assert equal(kept[-1], run(tmp_path / "b"))


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


def test_the_host_is_few_steps_ahead_of_the_device(tmp_path):
    """For a signal waits until the device has made all that it was given."""
    losses, ahead = [], []

    def slow(params, batch, rng):
        work = jax.lax.fori_loop(0, 20, lambda _, kept: jnp.tanh(kept @ kept), batch["y"][0] * jnp.eye(200))
        return loss_fn(params, batch, rng) + 1e-9 * work.sum()

    @contextlib.contextmanager
    def watch(stepper):
        def steps(state, batches):
            state, new = stepper(state, batches)
            losses.extend(new)
            ahead.append(sum(not loss.is_ready() for loss in losses))
            return state, new

        yield steps

    one_epoch = dataclasses.replace(
        SETTINGS, optimizer=OptimizerSettings(learning_rate=0.01), epochs=1, checkpoint_every=100, log_every=100
    )
    run(tmp_path, loss=slow, settings=one_epoch, points=POINTS * 6, watch=watch)
    assert len(ahead) == 27
    assert 1 <= max(ahead) <= 1 + DISPATCHES_AHEAD


def test_empty_training_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="line: the training set is empty"):
        run(tmp_path / "a", points=[])
