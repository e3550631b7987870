"""Phases: what the hash covers, run once, half-finished is not finished."""

from __future__ import annotations

import dataclasses

import pytest

from scanner_jax import phases
from scanner_jax.phases import Phase

PARENT = Phase(name="teacher", version=1, config={"epochs": 2}, inputs={"corpus": "a"})
PHASE = Phase(name="student", version=1, config={"epochs": 3}, inputs={"corpus": "a"}, parents=(PARENT,))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"version": 2},
        {"config": {"epochs": 4}},
        {"inputs": {"corpus": "b"}},
        {"parents": ()},
        {"parents": (dataclasses.replace(PARENT, version=2),)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_hash_covers_everything(change):
    assert dataclasses.replace(PHASE, **change).hash != PHASE.hash


def test_hash_does_not_depend_on_the_order_of_keys():
    first = dataclasses.replace(PHASE, config={"a": 1, "b": (2, 3)})
    assert first.hash == dataclasses.replace(PHASE, config={"b": (2, 3), "a": 1}).hash


def test_a_finished_phase_is_not_run_again(tmp_path):
    calls = []

    def body(folder):
        calls.append(folder)
        (folder / "checkpoints").mkdir()
        return {"score": 1.5}

    assert phases.run(PHASE, tmp_path, body) == {"score": 1.5}
    assert phases.run(PHASE, tmp_path, body) == {"score": 1.5}
    assert calls == [tmp_path / f"student-{PHASE.hash}"]
    assert sorted(path.name for path in calls[0].iterdir()) == ["phase.json", "result.json"]
    assert phases.run(dataclasses.replace(PHASE, version=2), tmp_path, body) and len(calls) == 2


def test_an_interrupted_phase_is_run_again_in_its_folder(tmp_path):
    def broken(folder):
        (folder / "half").write_text("done so far")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        phases.run(PHASE, tmp_path, broken)
    assert not phases.finished(PHASE, tmp_path)
    assert phases.run(PHASE, tmp_path, lambda folder: {"half": (folder / "half").read_text()}) == {
        "half": "done so far"
    }
