"""The command on a tiny recipe, and `--config.profile`: numbers that agree with each other, traces that open."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import jax
import pytest
from tiny_recipe import command, write_world

from scanner_jax.files import read_json
from scanner_jax.inputs import open_inputs
from scanner_jax.recipe import recipe_steps
from scanner_jax.runs import Run


def run(arguments: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **more}
    return subprocess.run(arguments, capture_output=True, text=True, timeout=300, env=environment, check=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder):
    return write_world(tmp_path_factory.mktemp("world"), tiny_encoder)


@pytest.fixture(scope="module")
def profiled(world, tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The command without weights in the encoder's folder, which --random_weights does without."""
    folder = tmp_path_factory.mktemp("profiled")
    with world.copy_and_resolve_references().unlocked() as small:
        small.detector.pack_width = small.recognizer.pack_width = 0  # two shapes to compile
        small.encoder = str(folder / "encoder")
    (folder / "encoder").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / "encoder" / name).write_bytes((Path(world.encoder) / name).read_bytes())
    own = command(small, folder)
    options = ["--device=NVIDIA H100", "--steps=2", f"--out={folder / 'out'}", "--random_weights"]
    return run([*own[:2], "scanner_jax.profiling", own[3], own[5], *options]), folder / "out"


def test_the_command_measures_both_stages(profiled, world):
    done, out = profiled
    assert done.returncode == 0, done.stderr
    record = read_json(out / "profile.json")
    assert record["floors_of"]["name"] == "NVIDIA H100" and record["floors_of"]["precision"] == "tf32"
    assert record["here"]["name"] == jax.devices()[0].device_kind
    detector, recognizer = record["stages"]["detector"], record["stages"]["recognizer"]
    # 24 sentences, 8 to a batch; stage 1 before and after AWP's start, stage 2 has none.
    for gradients in (1, 2):
        assert sum(row["batches"] for row in detector if row["gradients"] == gradients) == 3
    assert {row["gradients"] for row in recognizer} == {1}
    for row in detector + recognizer:
        assert row["steps"] == 2 and row["rows"] == 8 and not row["shared"]
        assert row["examples_per_second"] == pytest.approx(8 / row["step_seconds"])
        real = row["rows"] * row["tokens"] * (1 - row["padding_share"])
        assert row["tokens_per_second"] == pytest.approx(real / row["step_seconds"])
        assert row["arithmetic_floor"] == row["flops"] / 494.7e12
        assert row["bandwidth_floor"] == row["bytes"] / 3.35e12
        assert row["utilization"] == pytest.approx(
            row["model_flops"] / row["step_seconds"] / record["here"]["peaks"]["float32"]
        )
    assert "floors: NVIDIA H100 (495 TFLOP/s tf32, 3,350 GB/s; NVIDIA's H100 data sheet, SXM)" in done.stdout
    assert "measured here" in done.stdout and "keeps no count" in done.stdout


def test_a_mesh_is_refused(world, tmp_path):
    own = command(world, tmp_path)
    arguments = [*own[:2], "scanner_jax.profiling", own[3], own[5], f"--out={tmp_path}", "--config.mesh.data=2"]
    done = run(arguments, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert done.returncode == 1 and "the mesh has 2 devices, but steps are timed on one" in done.stderr


def steps_in(trace: Path) -> list[int]:
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    events = [event for plane in planes for line in plane.lines for event in line.events]
    assert any(dict(event.stats).get("hlo_module") == "jit_train_step" for event in events)
    return sorted(dict(event.stats)["step_num"] for event in events if event.name == "train")


def test_the_command_leaves_a_trace_of_each_stage(profiled):
    _, out = profiled
    detector, recognizer = (sorted((out / stage).rglob("*.xplane.pb")) for stage in ("detector", "recognizer"))
    assert [steps_in(path) for path in detector + recognizer] == [[0, 1, 2, 3], [0, 1]]


def test_xprof_opens_the_trace(profiled):
    convert = pytest.importorskip("xprof.convert.raw_to_tool_data", reason="xprof is not installed")
    _, out = profiled
    (path,) = (out / "detector").rglob("*.xplane.pb")
    assert {"trace_viewer@", "overview_page"} <= set(convert.xspace_to_tool_names([str(path)]))
    data, kind = convert.xspace_to_tool_data([str(path)], "trace_viewer", {})
    assert kind == "application/json"
    events = json.loads(data)["traceEvents"]
    names = [event.get("name", "") for event in events]
    assert sorted(name for name in names if name.startswith("train ")) == ["train 0", "train 1", "train 2", "train 3"]
    assert any(event.get("args", {}).get("hlo_module") == "jit_train_step" for event in events)


def test_profile_is_no_part_of_a_phases_hash(world, tmp_path):
    with world.copy_and_resolve_references().unlocked() as profiling:
        profiling.profile = True
    inputs = open_inputs(world, prepared=tmp_path / "prepared")
    plain = Run(config=world, inputs=inputs, root=tmp_path / "plain")
    watched = Run(config=profiling, inputs=inputs, root=tmp_path / "watched", profile=tmp_path / "profile")
    names = {name: step.phase.hash for name, step in recipe_steps(plain).items()}
    assert {name: step.phase.hash for name, step in recipe_steps(watched).items()} == names


@pytest.mark.slow  # a whole recipe
def test_train_leaves_a_profile_of_every_phase(world, tmp_path):
    done = run([*command(world, tmp_path), "--config.profile=True"])
    assert done.returncode == 0, done.stderr
    profiles = {path.parent.name: read_json(path) for path in (tmp_path / "run" / "profile").glob("*/profile.json")}
    assert set(profiles) == {"detector-teacher", "detector-fold-0", "detector-fold-1", "detector-student"} | {
        "recognizer-teacher",
        "recognizer-student",
    }
    assert profiles["detector-teacher"]["measured"] and profiles["recognizer-student"]["measured"]
    assert all(f"{name}: " in done.stderr for name in profiles)
    # A fold of four steps has none to spare.
    timed = [name for name, profile in profiles.items() if profile["measured"]]
    assert done.stderr.count("step ms") == len(timed)
    assert done.stderr.count("no step was timed") == len(profiles) - len(timed)
    plain = run([*command(world, tmp_path / "plain")])
    assert plain.returncode == 0, plain.stderr
    reports = [folder / "run" / "report" / "metrics.json" for folder in (tmp_path, tmp_path / "plain")]
    assert reports[0].read_bytes() == reports[1].read_bytes()
