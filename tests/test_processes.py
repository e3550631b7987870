"""Two real processes on one machine: they train what one trains, leave together, and neither waits for a dead one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_recipe
from line_training import closeness, run

from scanner_jax.files import read_json_lines
from scanner_jax.processes import ProcessesError, join

ROOT = Path(__file__).parent.parent
TRAINING = """
    --until=detector-teacher --config.epochs.detector_teacher=12 --config.detector.batch_size=4
    --config.detector.log_every=1 --config.detector.learning_rate=1e-3
""".split()
EACH_HAS_TWO_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def start(command: list[str], own: dict[str, str]) -> subprocess.Popen[str]:
    environment = os.environ | own
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    )


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Each process's code, output and errors; none may hang."""
    try:
        return [(process.wait(300), *process.communicate()) for process in processes]
    finally:
        for process in processes:
            process.kill()


def lines(folder: Path, *options: str) -> list[tuple[int, str, str]]:
    """Two processes of `line_training`; the options are the second one's."""
    port, command = free_port(), [sys.executable, "-m", "tests.line_training", str(folder)]
    commands = [command, [*command, *options]]
    return ends([start(each, {"PROCESSES": f"{port} 2 {index}"}) for index, each in enumerate(commands)])


def losses(folder: Path) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_json_lines(folder / "metrics.jsonl") if "loss" in record}


def test_a_signal_to_one_stops_both_at_one_step_and_both_go_on(tmp_path):
    run(tmp_path / "one", evaluate=closeness)
    left = lines(tmp_path / "two", "batch", "7", "SIGTERM")
    assert [code for code, _, _ in left] == [143, 143], left
    assert left[0][1].splitlines()[-1:] == left[1][1].splitlines()[-1:]  # both say up to which step it is saved
    assert len(list((tmp_path / "two" / "checkpoints").glob("*/checksums.json"))) >= 1
    assert 15 not in losses(tmp_path / "two")
    again = lines(tmp_path / "two")
    assert [code for code, _, _ in again] == [0, 0], again
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert {*one} <= {*two} and 15 in two
    np.testing.assert_allclose([two[15]], [one[15]], rtol=0, atol=1e-5)


def test_neither_waits_for_one_that_was_killed(tmp_path):
    began = time.monotonic()
    waiting, killed = lines(tmp_path, "saved", "1", "SIGKILL")
    assert killed[0] == -9 and waiting[0] not in (0, None), waiting
    assert "Gloo" in waiting[2] or "another task died" in waiting[2]
    assert time.monotonic() - began < 250


@pytest.mark.parametrize(
    ("coordinator", "count", "index"), [("host:1", None, 0), ("host:1", 2, 2), ("host", 2, 0), ("auto", 2, None)]
)
def test_processes_that_do_not_fit_are_told_so(coordinator, count, index):
    with pytest.raises(ProcessesError, match=f"--coordinator={coordinator} --processes={count} --process={index}"):
        join(coordinator=coordinator, count=count, index=index)


def test_without_a_cluster_auto_is_told_what_to_give():
    code = "from scanner_jax.processes import join; join(coordinator='auto', count=None, index=None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "ProcessesError" in done.stderr and "says who takes part, so give all three" in done.stderr


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder):
    return tiny_recipe.write_world(tmp_path_factory.mktemp("world"), tiny_encoder)


@pytest.fixture(scope="module")
def one(world, tmp_path_factory):
    """The losses of a phase in one process and on one device."""
    folder = tmp_path_factory.mktemp("one")
    ((code, _, err),) = ends([start([*tiny_recipe.command(world, folder), *TRAINING], EACH_HAS_TWO_DEVICES)])
    assert code == 0, err
    return losses(next(folder.glob("run/phases/detector-teacher-*")))


def hosts(world, folder: Path) -> list[subprocess.Popen[str]]:
    """The script for several hosts, twice on this one."""
    command = ["bash", "launch/train_multihost.sh", *tiny_recipe.command(world, folder)[3:], *TRAINING]
    command.append("--config.mesh.fsdp=2")
    common = EACH_HAS_TWO_DEVICES | {"COORDINATOR": f"127.0.0.1:{free_port()}", "PROCESSES": "2"}
    return [start(["setsid", *command], common | {"PROCESS": str(index)}) for index in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_killed_the_other_says_so_and_both_end_as_one_device_does(world, one, tmp_path, victim):
    processes = hosts(world, tmp_path)
    while all(each.poll() is None for each in processes) and not list(tmp_path.glob("run/phases/*/checkpoints/6")):
        time.sleep(0.005)
    os.killpg(processes[victim].pid, signal.SIGKILL)
    code, _, err = ends(processes)[1 - victim]
    assert code not in (0, -9), err
    assert "one has ended first, and its output says why" in err.splitlines()[-1], err
    assert not list(tmp_path.glob("run/phases/*/result.json"))
    again = ends(hosts(world, tmp_path))
    assert [code for code, _, _ in again] == [0, 0], again
    ours = losses(next(tmp_path.glob("run/phases/detector-teacher-*")))
    assert ours.keys() == one.keys()
    np.testing.assert_allclose([*ours.values()], [*one.values()], rtol=0, atol=1e-5)
