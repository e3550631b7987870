"""The estimate of a whole recipe's time, from parts whose sums are known."""

from __future__ import annotations

import pytest
from whole_recipe import estimate, mean_step, read_config, steps_of

COUNTS = {
    "train sentences": 4000,
    "dev sentences": 1000,
    "test sentences": 3257,
    "train candidates": 8800,
    "dev candidates": 1594,
    "test candidates": 5207,
}


def row(batches: int, seconds: float, *, gradients: int, tokens: int = 96) -> dict[str, object]:
    shape = {"rows": 2, "tokens": tokens, "shared": True, "compile_seconds": 5.0}
    return {"batches": batches, "step_seconds": seconds, "gradients": gradients, **shape}


def test_steps_of_the_papers_recipe() -> None:
    steps = steps_of(read_config("configs/mner15.py"), COUNTS)
    # Ten epochs of 1,000 batches of 4 twice, and of 750 in each of four folds; 1,100 batches of 8 in ten epochs.
    assert steps == {"detector": 50_000, "recognizer": 11_000}


def test_a_mean_step_weighs_shapes_by_their_batches() -> None:
    assert mean_step([row(3, 1.0, gradients=1), row(1, 5.0, gradients=1)]) == 2.0


def test_the_estimate_adds_up() -> None:
    config = read_config("configs/mner15.py")
    profile = {
        "detector": [row(10, 0.01, gradients=1), row(10, 0.03, gradients=2), row(10, 0.03, gradients=1, tokens=64),
                     row(10, 0.05, gradients=2, tokens=64)],
        "recognizer": [row(10, 0.1, gradients=1)],
    }  # fmt: skip
    parts = estimate(config, profile, {"detector": 1000.0, "recognizer": 100.0}, COUNTS)
    assert parts["detector, steps"] == pytest.approx(50_000 * (0.5 * 0.02 + 0.5 * 0.04))
    assert parts["detector, compiling"] == 2 * 2 * 5.0  # plain cross entropy and TYT, two shapes each
    # Dev after each of 60 epochs and at two ends, test at two, training once by folds and once by the teacher.
    assert parts["detector, tagging"] == pytest.approx((62 * 1000 + 2 * 3257 + 2 * 4000) / 1000)
    assert parts["recognizer, steps"] == pytest.approx(11_000 * 0.1)
    assert parts["recognizer, judging"] == pytest.approx((12 * 1594 + 2 * 5207 + 8800) / 100)
    config.tyt.update(detector=False, recognizer=False)
    config.detector.awp = False
    parts = estimate(config, profile, {"detector": 1000.0, "recognizer": 100.0}, COUNTS)
    assert parts["detector, steps"] == pytest.approx(40_000 * 0.02)
    assert parts["detector, compiling"] == 10 and parts["recognizer, compiling"] == 5
    assert parts["recognizer, steps"] == pytest.approx(5_500 * 0.1)
