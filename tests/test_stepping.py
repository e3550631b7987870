"""Steps: shared between trainings, compiled ahead, several to a dispatch, and the same whichever way."""

from __future__ import annotations

import dataclasses
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from line_training import POINTS, SETTINGS, closeness, collate, loss_fn, run, start

from scanner_jax import stepping
from scanner_jax.files import read_json, read_json_lines
from scanner_jax.optim import Milestones, make_optimizer
from scanner_jax.stepping import Course, Stepper, TrainState, shape_of

OPTIMIZER = SETTINGS.optimizer


def begin(seed: int, total: int) -> tuple[TrainState, Course]:
    milestones = OPTIMIZER.milestones(total)
    params = start()
    state = TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(OPTIMIZER, milestones).init(params))
    return state, Course(jax.random.key(seed), Milestones(*map(jnp.int32, milestones)))


def batches(count: int) -> list[dict[str, np.ndarray]]:
    return [collate(POINTS[2 * index : 2 * index + 4], batch_size=4) for index in range(count)]


@pytest.fixture
def compilations(monkeypatch):
    """How many batches each step was compiled for, in order; a step is traced once for each compilation."""
    seen: list[int] = []
    one = stepping.train_step

    def several(*arguments):
        seen.append(2)
        # As in the module, but with a step that is not counted.
        return jax.lax.scan(lambda state, batch: one(*arguments[:2], state, batch, arguments[4]), *arguments[2:4])

    def single(*arguments):
        seen.append(1)
        return one(*arguments)

    monkeypatch.setattr(stepping, "train_step", single)
    monkeypatch.setattr(stepping, "train_steps", several)
    stepping._compiled.cache_clear()
    yield seen
    stepping._compiled.cache_clear()


def losses_of(stepper: Stepper, state: TrainState, count: int) -> list[float]:
    found = []
    for batch in batches(count):
        state, (loss,) = stepper(state, [batch])
        found.append(float(loss))
    return found


def test_trainings_of_other_seeds_and_lengths_share_what_is_compiled(compilations):
    losses = []
    for seed, total in ((1, 10), (2, 10), (1, 40)):
        state, course = begin(seed, total)
        stepper = Stepper(loss_fn, OPTIMIZER, state=state, course=course)
        stepper.compile_ahead(map(shape_of, batches(3)))
        losses.append(losses_of(stepper, state, 6))
    assert compilations == [1]
    assert losses[0] != losses[1]  # another key
    assert losses[0][:2] == losses[2][:2] and losses[0][3:] != losses[2][3:]  # another schedule


def test_another_optimizer_or_shape_is_compiled_anew(compilations):
    state, course = begin(1, 10)
    Stepper(loss_fn, OPTIMIZER, state=state, course=course).await_steps(batches(1))
    wider = collate(POINTS[:6], batch_size=6)
    stepper = Stepper(loss_fn, OPTIMIZER, state=state, course=course)
    state, _ = stepper(state, [wider])  # a shape that was not compiled ahead
    assert len(compilations) == 2
    other = dataclasses.replace(OPTIMIZER, learning_rate=0.3)
    Stepper(loss_fn, other, state=state, course=course).await_steps([wider])
    assert len(compilations) == 3


@pytest.mark.parametrize("seed", [1, 2])
def test_several_steps_to_a_dispatch_are_the_steps_one_by_one(seed):
    results = []
    for at_once in (1, 4):
        state, course = begin(seed, 8)
        stepper = Stepper(loss_fn, OPTIMIZER, state=state, course=course, at_once=at_once)
        losses: list[float] = []
        for first in range(0, 8, at_once):
            state, new = stepper(state, batches(8)[first : first + at_once])
            losses += np.concatenate([np.atleast_1d(loss) for loss in new]).tolist()
        results.append((losses, jax.device_get(state)))
    (ours, ours_state), (theirs, theirs_state) = results
    assert len(ours) == 8
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ours_state, theirs_state)


def test_batches_of_unlike_shapes_are_not_stacked(compilations):
    state, course = begin(1, 8)
    stepper = Stepper(loss_fn, OPTIMIZER, state=state, course=course, at_once=2)
    mixed = [collate(POINTS[:4], batch_size=4), collate(POINTS[:6], batch_size=6)]
    state, losses = stepper(state, mixed)
    assert len(losses) == 2 and int(state.step) == 2
    assert compilations == [1, 1]  # at their first batches, for none was compiled ahead
    state, losses = stepper(state, mixed[:1] * 2)
    assert [loss.shape for loss in losses] == [(2,)] and int(state.step) == 4
    assert compilations == [1, 1, 2]


def test_a_full_dispatch_waits_for_its_own_program_alone(compilations):
    state, course = begin(1, 8)
    stepper = Stepper(loss_fn, OPTIMIZER, state=state, course=course, at_once=2)
    stepper.await_steps(batches(2))
    assert compilations == [2]
    stepper(state, batches(2))
    assert compilations == [2]
    stepper.await_steps(batches(1))  # what an epoch's end leaves
    assert compilations == [2, 1]


def test_a_run_with_several_to_a_dispatch_resumes_bit_for_bit(tmp_path):
    class StopError(Exception):
        pass

    def stop(params):
        raise StopError

    settings = dataclasses.replace(SETTINGS, steps_per_dispatch=2)
    whole = run(tmp_path / "whole", evaluate=closeness, settings=settings)
    with pytest.raises(StopError):
        run(tmp_path / "half", evaluate=stop, settings=settings)  # after five steps, the fifth on its own
    half = run(tmp_path / "half", evaluate=closeness, settings=settings)
    assert jax.tree.all(jax.tree.map(np.array_equal, half, whole))
    losses = [record["loss"] for record in read_json_lines(tmp_path / "half" / "metrics.jsonl") if "loss" in record]
    assert len(losses) == 11  # at 2 3 4 5 6 8 9 10 12 14 15: wherever it logs or saves, or an epoch ends


def test_a_run_says_what_its_time_went_into(tmp_path):
    run(tmp_path, evaluate=closeness)
    seconds = read_json(tmp_path / "seconds.json")
    assert set(seconds) == {"compiling", "reading", "stepping", "evaluating", "saving"}
    assert all(value >= 0 for value in seconds.values())


def test_what_has_not_begun_to_compile_is_left_out_at_the_end(monkeypatch):
    going_on, begun = threading.Event(), []

    def slow(loss_fn, settings, placement, held, batch, count):
        begun.append(batch)
        assert going_on.wait(10)

    monkeypatch.setattr(stepping, "_compiled", slow)
    state, course = begin(1, 8)
    many = [collate(POINTS[:4], batch_size=size) for size in range(4, 4 + 4 * (os.cpu_count() or 1))]
    with Stepper(loss_fn, OPTIMIZER, state=state, course=course) as stepper:
        stepper.compile_ahead(map(shape_of, many))  # returns at once
        threading.Timer(0.2, going_on.set).start()
    assert 0 < len(begun) < len(many)
