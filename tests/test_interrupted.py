"""The train command when it is told to leave, when the disk is full, and when it may not write."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest
import tiny_recipe

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder):
    return tiny_recipe.write_world(tmp_path_factory.mktemp("world"), tiny_encoder)


@pytest.fixture(scope="module")
def left(world, tmp_path_factory):
    """A long training that was sent SIGTERM after its first checkpoint: its folder, command, answer, and seconds."""
    folder = tmp_path_factory.mktemp("left")
    command = [*tiny_recipe.command(world, folder), "--config.epochs.detector_teacher=2000", "--config.detector.awp=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    while process.poll() is None and not list(folder.glob("run/phases/*/checkpoints/*/checksums.json")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    out, err = process.communicate(timeout=120)
    return folder, command, (process.returncode, out, err), time.monotonic() - sent


def run(command, *, file_size=None):
    """Run a command that may write no file beyond a size, which is what a full disk is like."""

    def limit():
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT, preexec_fn=limit)


def test_sigterm_saves_and_says_so(left):
    folder, _, (code, _, err), seconds = left
    assert code == 143, err
    said = err.strip().splitlines()[-1]
    assert said.startswith("Stopped by SIGTERM: detector-teacher is saved up to step ")
    assert said.endswith("; the same command goes on from there.")
    assert "Traceback" not in err
    step = said.split("step ")[1].split()[0]
    assert list(folder.glob(f"run/phases/detector-teacher-*/checkpoints/{step}/checksums.json"))
    assert seconds < 30  # which SLURM gives


def test_ctrl_c_outside_of_training_leaves_at_once(world, tmp_path):
    command = tiny_recipe.command(world, tmp_path)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    while process.poll() is None and not (tmp_path / "prepared").exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Stopped by SIGINT: " in err and "the same command goes on" in err and "Traceback" not in err


def test_a_full_disk_ends_in_a_sentence_and_keeps_the_checkpoint_before(left):
    folder, command, _, _ = left
    before = {path: path.read_bytes() for path in folder.glob("run/phases/*/checkpoints/*/**/*") if path.is_file()}
    full = run([*command, "--config.detector.checkpoint_every=1"], file_size=20_000)
    assert full.returncode == 1
    said = full.stderr.strip().splitlines()[-1]
    assert said.startswith("The recipe stopped: cannot write ")
    assert "File too large; see that the disk has room" in said
    assert "Traceback" not in full.stderr
    assert before and all(path.read_bytes() == content for path, content in before.items())
    assert not list(folder.glob("run/phases/*/result.json"))


def test_a_disk_too_full_for_the_corpus(world, tmp_path):
    full = run(tiny_recipe.command(world, tmp_path), file_size=1_000)
    assert full.returncode == 1
    assert "cannot write" in full.stderr and f"{tmp_path / 'prepared'}" in full.stderr
    assert "Traceback" not in full.stderr


@pytest.mark.parametrize("flag", ["workdir", "phases", "prepared"])
def test_a_folder_that_cannot_be_written_is_named(world, left, tmp_path, flag):
    (tmp_path / "file").write_text("in the way; root may write wherever permissions forbid it")
    command = [*tiny_recipe.command(world, tmp_path), f"--prepared={left[0] / 'prepared'}"]
    answer = run([*command, f"--{flag}={tmp_path / 'file' / 'below'}"])
    assert answer.returncode == 1
    assert f"{tmp_path / 'file' / 'below'}" in answer.stderr and "Not a directory" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write wherever permissions forbid it")
def test_a_folder_without_permission_is_named(world, left, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    command = [*tiny_recipe.command(world, tmp_path), f"--prepared={left[0] / 'prepared'}"]
    answer = run([*command, f"--workdir={tmp_path / 'closed' / 'run'}"])
    assert answer.returncode == 1
    assert "closed" in answer.stderr and "Permission denied" in answer.stderr and "Traceback" not in answer.stderr
