"""On a mesh of eight devices everything comes out as on one: losses, what models say, checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_recipe

from scanner_jax.files import read_json, read_json_lines
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.placement import ONE_DEVICE, PlacementError, place

ROOT = Path(__file__).parent.parent
EIGHT = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder):
    config = tiny_recipe.write_grounded_world(tmp_path_factory.mktemp("world"), tiny_encoder)
    config = config.copy_and_resolve_references().unlock()
    for stage in (config.detector, config.recognizer):
        stage.log_every = 1
    config.detector.update(awp_gamma=0.01, awp_start=0.3)
    config.recognizer.batch_size = 16  # few shapes, which all have to be compiled
    return config.lock()


@pytest.fixture(scope="module")
def found(world, tmp_path_factory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("mesh")
    (folder / "config.json").write_text(json.dumps(world.to_dict()))
    command = [sys.executable, "-m", "tests.mesh_training", str(folder / "config.json"), str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | EIGHT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return read_json(folder / "found.json")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["detector", "recognizer"])
def test_the_loss_curve_is_that_of_one_device(found, stage):
    """With AWP, Trust Your Teacher, the grounding loss, dropout, and packed rows that do not divide by eight."""
    one, mesh = (np.array(found[name][stage]) for name in ("1x1", "4x2"))
    assert len(one) == len(mesh) >= 4
    assert np.ptp(one) > 1e-2  # it learns
    np.testing.assert_allclose(mesh, one, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["detector", "recognizer"])
def test_what_a_model_says_of_a_split_is_in_its_order(found, stage):
    np.testing.assert_allclose(found["4x2"][f"dev_{stage}"], found["1x1"][f"dev_{stage}"], rtol=0, atol=1e-4)


@pytest.mark.slow
def test_the_longest_axis_that_divides_is_cut(found):
    cut = found["cut"]
    assert cut["embeddings/word/embedding"] in ("P('fsdp', None)", "P(None, 'fsdp')")
    assert cut["layer_0/feed_forward/up/kernel"] == "P(None, 'fsdp')"
    assert cut["layer_0/feed_forward/down/kernel"] == "P('fsdp', None)"
    assert cut["layer_0/attention/query/bias"] == "P(None,)"


@pytest.mark.slow
def test_a_checkpoint_is_restored_on_any_number_of_devices_bit_for_bit(found):
    assert found["kept"] == [True] * 3


def test_without_a_mesh_everything_stays_where_it_is():
    batch = {"token_ids": np.zeros((3, 4), np.int32)}
    assert place(data=1, fsdp=1) is place(data=-1, fsdp=1) is ONE_DEVICE
    assert ONE_DEVICE.put_batch(batch) is ONE_DEVICE.abstract_batch(batch) is batch


@pytest.mark.parametrize(
    ("data", "fsdp", "problem"),
    [(4, 2, "8 devices, but there are 1"), (0, 1, "expected 1 or more"), (1, 0, "expected"), (-1, 2, "2 devices, but")],
)
def test_a_mesh_that_cannot_be_says_why(data, fsdp, problem):
    with pytest.raises(PlacementError, match=problem):
        place(data=data, fsdp=fsdp)


def test_the_recipe_says_at_once_what_does_not_fit(world, tmp_path):
    config = world.copy_and_resolve_references().unlock()
    config.mesh.data = 3
    with pytest.raises(InputError, match=r"mesh.data=3, mesh.fsdp=1: 3 devices, but there are 1"):
        open_inputs(config, prepared=tmp_path)


@pytest.mark.slow
def test_the_whole_recipe_ends_with_the_same_report(world, tmp_path):
    command = tiny_recipe.command(world, tmp_path)
    curves, reports = [], []
    for options in ((), ("--config.mesh.data=-1", "--config.mesh.fsdp=2")):
        workdir = tmp_path / f"run{len(curves)}"
        subprocess.run(
            [*command, f"--workdir={workdir}", *options], cwd=ROOT, env=os.environ | EIGHT, check=True, timeout=600
        )
        lines = [read_json_lines(path) for path in sorted(workdir.glob("phases/*/metrics.jsonl"))]
        curves.append([record["loss"] for phase in lines for record in phase if "loss" in record])
        reports.append((workdir / "report" / "metrics.json").read_bytes())
    np.testing.assert_allclose(curves[1], curves[0], rtol=0, atol=1e-5)
    assert reports[0] == reports[1]
