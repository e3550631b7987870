"""Checkpoints: a damaged one is never used, and what was saved before it gives the same result."""

from __future__ import annotations

import errno
import logging
import shutil
import threading

import jax
import numpy as np
import pytest
from line_training import closeness, run

from scanner_jax import checkpoint
from scanner_jax.checkpoint import CheckpointError, Checkpoints, Saved, restore_params, save_params
from scanner_jax.files import CHECKSUMS, read_json


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A training that stopped before its last step, with two checkpoints, and the result it should have."""
    folder = tmp_path_factory.mktemp("training")
    whole = run(folder / "whole", evaluate=closeness)
    calls = []

    def stop(params):
        calls.append(params)
        if len(calls) == 3:
            raise InterruptedError
        return closeness(params)

    with pytest.raises(InterruptedError):
        run(folder / "half", evaluate=stop)
    assert steps(folder / "half") == [12, 15]
    return folder / "half", whole


def steps(folder):
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def remove(path):
    path.unlink()


def files_of(folder, step):
    """Every file of a checkpoint by its name in it."""
    root = folder / "checkpoints" / str(step)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_checksums_cover_every_file(interrupted):
    folder, _ = interrupted
    recorded = read_json(folder / "checkpoints" / "15" / CHECKSUMS)
    assert [*sorted(recorded)] == [name for name in files_of(folder, 15) if name != CHECKSUMS]
    assert any(name.startswith("state/") for name in recorded) and any(name.startswith("place/") for name in recorded)


@pytest.mark.parametrize("damage", [cut, flip, empty, remove])
def test_any_damage_to_any_file_is_found(interrupted, tmp_path, caplog, damage):
    folder, _ = interrupted
    for name in files_of(folder, 15):
        shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
        path = tmp_path / "checkpoints" / "15" / name
        before = path.read_bytes()
        damage(path)
        changed = not path.exists() or path.read_bytes() != before
        with caplog.at_level(logging.WARNING), Checkpoints(tmp_path / "checkpoints") as checkpoints:
            assert checkpoints.last_step == (12 if changed else 15), name
        assert ("going back" in caplog.text) == changed
        assert (str(path.parents[len(path.relative_to(tmp_path).parts) - 3]) in caplog.text) == changed
        caplog.clear()
        shutil.rmtree(tmp_path / "checkpoints")


@pytest.mark.parametrize("damaged", [(15,), (15, 12), (12,)], ids=str)
def test_what_was_saved_before_the_damage_gives_the_same_result(interrupted, tmp_path, damaged):
    folder, whole = interrupted
    shutil.copytree(folder, tmp_path / "copy")
    for step in damaged:
        data = max(
            (tmp_path / "copy" / "checkpoints" / str(step) / "state").rglob("d/*"), key=lambda p: p.stat().st_size
        )
        flip(data)
    scored = []

    def evaluate(params):
        scored.append(params)
        return closeness(params)

    best = run(tmp_path / "copy", evaluate=evaluate)
    assert jax.tree.all(jax.tree.map(np.array_equal, best, whole))
    assert len(scored) == (3 if damaged == (15, 12) else 1)  # from the start, or only what was not known yet
    assert 15 in steps(tmp_path / "copy")


def test_an_older_checkpoint_that_was_being_deleted_does_no_harm(interrupted, tmp_path):
    folder, whole = interrupted
    for name in files_of(folder, 12):
        shutil.copytree(folder, tmp_path / "copy")
        (tmp_path / "copy" / "checkpoints" / "12" / name).unlink()
        with Checkpoints(tmp_path / "copy" / "checkpoints") as checkpoints:
            assert checkpoints.last_step == 15
        if name in (CHECKSUMS, "_CHECKPOINT_METADATA"):
            best = run(tmp_path / "copy", evaluate=closeness)
            assert jax.tree.all(jax.tree.map(np.array_equal, best, whole))
        shutil.rmtree(tmp_path / "copy")


def test_what_a_killed_orbax_leaves_is_no_checkpoint(interrupted, tmp_path):
    folder, whole = interrupted
    shutil.copytree(folder, tmp_path / "copy")
    places = tmp_path / "copy" / "checkpoints"
    shutil.copytree(places / "15", places / "18.orbax-checkpoint-tmp")
    shutil.copytree(places / "15", places / "15.orbax-checkpoint-tmp")
    shutil.rmtree(places / "15")
    best = run(tmp_path / "copy", evaluate=closeness)
    assert jax.tree.all(jax.tree.map(np.array_equal, best, whole))


def test_parameters_come_back_and_replace_what_is_there(tmp_path):
    first = {"dense": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.float32([1e-20, -0.0])}}
    save_params(tmp_path / "params", first)
    save_params(tmp_path / "params", second := jax.tree.map(np.negative, first))
    for ours, theirs in zip(jax.tree.leaves(restore_params(tmp_path / "params")), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)
        assert isinstance(ours, np.ndarray)
    with pytest.raises(FileNotFoundError):
        restore_params(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot write .*file/params: Not a directory; .*room"):
        save_params(tmp_path / "file" / "params", {"bias": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"cannot write .*file/checkpoints: Not a directory"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_saving_goes_on_beside_the_training_and_its_error_comes_with_the_next(tmp_path, monkeypatch):
    began, going_on = threading.Event(), threading.Event()

    def slow(folder):
        began.set()
        assert going_on.wait(10)
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(checkpoint, "write_checksums", slow)
    state = {"kernel": jax.numpy.ones(3)}
    with (
        pytest.raises(CheckpointError, match=r"cannot write .*/3: No space left"),
        Checkpoints(tmp_path) as checkpoints,
    ):
        checkpoints.save(1, Saved(state, {"next": 1}, None))
        assert began.wait(10)
        going_on.set()
        with pytest.raises(CheckpointError, match=r"cannot write .*/1: No space left"):
            checkpoints.save(2, Saved(state, {"next": 2}, None))
        began.clear()
        checkpoints.save(3, Saved(state, {"next": 3}, None))  # of which the end of the context tells


def test_what_is_saved_is_what_was_there_at_the_call(tmp_path, monkeypatch):
    going_on, whole = threading.Event(), checkpoint.Checkpoints._write

    def late(*arguments):
        assert going_on.wait(10)
        whole(*arguments)

    monkeypatch.setattr(checkpoint.Checkpoints, "_write", late)
    state = {"kernel": jax.numpy.ones(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, Saved(state, {"next": 1}, [0, 7]))
        state = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)(state)
        going_on.set()
        checkpoints.wait()
        saved = checkpoints.restore_last(lambda rows: {"kernel": jax.ShapeDtypeStruct((len(rows) + 1,), np.float32)})
    np.testing.assert_array_equal(saved.state["kernel"], np.ones(3))
    assert (saved.position, saved.rows) == ({"next": 1}, [0, 7])
