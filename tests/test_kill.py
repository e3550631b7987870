"""A recipe that is killed again and again ends as one that nobody disturbed.

    python -m pytest -m slow -s tests/test_kill.py

kills it twenty times and prints where the kills fell.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_recipe

from scanner_jax.files import read_json, read_json_lines

ROOT = Path(__file__).parent.parent
LEARNING = """
    --config.detector.batch_size=2 --config.detector.learning_rate=2e-2 --config.detector.checkpoint_every=31
    --config.recognizer.batch_size=4 --config.recognizer.learning_rate=2e-2 --config.recognizer.checkpoint_every=11
    --config.epochs.detector_teacher=10 --config.epochs.detector_student=10 --config.epochs.recognizer_teacher=4
    --config.epochs.recognizer_student=4
""".split()
"""Enough for scores that are not all zero, and checkpoints within epochs and at their ends."""

WITHOUT_TEACHERS = "--config.tyt.detector=False --config.tyt.recognizer=False --config.detector.awp=False".split()
PHASES = ("detector-teacher", "detector-fold-0", "detector-fold-1", "detector-student", "candidates")
PHASES += ("recognizer-teacher", "recognizer-student")
MOMENTS = {
    "at some time": "phase.json",
    "at another time": "phase.json",
    "as it began": "phase.json",
    "writing a checkpoint": "checkpoints/*tmp*",
    "before a checkpoint's checksums": "checkpoints/*[0-9]",
    "after a checkpoint": "checkpoints/*/checksums.json",
    "writing its parameters": "params*",
    "before its result": "checksums.json",
    "as it ended": "result.json",
}
"""Where in a phase that trains, and the file that shows it."""


class Kill(NamedTuple):
    """When to kill.

    Attributes:
        phase: where a person would say that it falls.
        moment: in words.
        sign: pattern of the files that show that it has come; a run before this one may have left some too.
        over: pattern of a file that shows that it has passed.
        delay: seconds to wait after that.
    """

    phase: str
    moment: str
    sign: str
    over: str
    delay: float


BOUNDARIES = [
    Kill("preparing the corpus", "writing it", "prepared/corpora/*/*/*/*", "run/phases/*", 0),
    Kill("candidates", "writing them", "run/phases/candidates-*/t*.jsonl*", "run/phases/candidates-*/result.json", 0),
    Kill("report", "writing it", "run/report/*", "run/run.json", 0),
]


def plan(count: int, trainings: list[str], *, seed: int) -> list[Kill]:
    """Seeded kills in the order in which a recipe comes by."""
    rng = random.Random(seed)
    drawn = rng.sample([(phase, moment) for phase in trainings for moment in MOMENTS], count)
    kills = []
    for phase, moment in sorted(drawn, key=lambda pair: (trainings.index(pair[0]), [*MOMENTS].index(pair[1]))):
        delay = rng.uniform(0, 3) if "time" in moment else rng.choice([0, rng.uniform(0, 0.03)])
        folder = f"run/phases/{phase}-*"
        kills.append(Kill(phase, moment, f"{folder}/{MOMENTS[moment]}", f"{folder}/result.json", delay))
    return kills


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    # All compiled steps are kept, so that what is started again has little to compile.
    least = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    fast = os.environ | least | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=fast)


def run_to_its_end(command: list[str], folder: Path) -> None:
    assert start(command, folder).wait(timeout=600) == 0, (folder / "log").read_text()[-3000:]


def matches(folder: Path, pattern: str) -> set[tuple[Path, int]]:
    found = set()
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # it may just have been renamed
            found.add((path, path.stat().st_mtime_ns))
    return found


def kill_when_due(process: subprocess.Popen[bytes], kill: Kill, folder: Path) -> bool:
    """Kill the process at the moment, or some seconds after its start if that has passed; whether it was alive."""
    before, passed = matches(folder, kill.sign), matches(folder, kill.over)
    while process.poll() is None and not passed:
        if matches(folder, kill.sign) - before or matches(folder, kill.over):
            break
        time.sleep(0.001)
    time.sleep(5 + 5 * kill.delay if passed else kill.delay)
    process.kill()
    return process.wait() == -9


def where(folder: Path) -> str:
    """The first phase that has no result."""
    begun = [name for name in PHASES if list(folder.glob(f"run/phases/{name}-*"))]
    return next((name for name in begun if not list(folder.glob(f"run/phases/{name}-*/result.json"))), "between phases")


def results(folder: Path) -> tuple[bytes, list[dict]]:
    report = folder / "run" / "report"
    return (report / "metrics.json").read_bytes(), read_json_lines(report / "predictions.jsonl")


def killed(command: list[str], folder: Path, kills: list[Kill]) -> Iterator[str]:
    """Run a recipe to its end in spite of all the kills; yield where each was aimed and where it fell."""
    for kill in kills:
        assert kill_when_due(start(command, folder), kill, folder), f"ended before {kill}"
        yield f"{kill.phase}, {kill.moment}: fell in {where(folder)}"
    run_to_its_end(command, folder)
    phases = folder / "run" / "phases"
    assert not [*phases.rglob("*.tmp"), *phases.rglob("*orbax-checkpoint-tmp*"), *phases.rglob("checkpoints/*")]


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_encoder):
    return tiny_recipe.write_world(tmp_path_factory.mktemp("world"), tiny_encoder)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """A recipe without teachers that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_its_end([*tiny_recipe.command(world, folder), *LEARNING, *WITHOUT_TEACHERS], folder)
    metrics = read_json(folder / "run" / "report" / "metrics.json")
    assert metrics["detector"]["dev"]["f1"] > 0 and metrics["recognizer"]["dev"]["micro"]["f1"] > 0
    return folder


@pytest.fixture
def command(world, whole, tmp_path):
    """The same in another folder, which has the compiled steps already."""
    shutil.copytree(whole / "prepared" / "xla", tmp_path / "prepared" / "xla")
    return [*tiny_recipe.command(world, tmp_path), *LEARNING, *WITHOUT_TEACHERS]


def test_two_kills_change_nothing(whole, command, tmp_path):
    fallen = list(killed(command, tmp_path, plan(2, ["detector-student", "recognizer-student"], seed=1)))
    assert results(tmp_path) == results(whole), fallen


@pytest.mark.slow
def test_same_seed_in_another_folder_gives_the_same_files(whole, command, tmp_path):
    run_to_its_end(command, tmp_path)
    assert results(tmp_path) == results(whole)


@pytest.mark.slow
def test_compiled_steps_that_were_cut_short_are_compiled_again(whole, command, tmp_path):
    """What a kill can leave in prepared/xla, since JAX does not write aside there."""
    for path in (tmp_path / "prepared" / "xla").iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    run_to_its_end([*command, "--until=detector-fold-0"], tmp_path)
    (ours,) = tmp_path.glob("run/phases/detector-fold-0-*/held-out-spans.jsonl")
    (theirs,) = whole.glob("run/phases/detector-fold-0-*/held-out-spans.jsonl")
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_twenty_kills_change_nothing(world, tmp_path, seed):
    whole, again = tmp_path / "whole", tmp_path / "again"
    run_to_its_end([*tiny_recipe.command(world, whole), *LEARNING], whole)
    shutil.copytree(whole / "prepared" / "xla", again / "prepared" / "xla")
    trainings = [name for name in PHASES if name != "candidates"]
    kills = plan(20 - len(BOUNDARIES), trainings, seed=seed) + BOUNDARIES
    kills.sort(key=lambda kill: ["preparing the corpus", *PHASES, "report"].index(kill.phase))
    print(f"\n{len(kills)} kills, seed {seed}:")
    for fallen in killed([*tiny_recipe.command(world, again), *LEARNING], again, kills):
        print(f"  {fallen}", flush=True)
    assert results(again) == results(whole)
    print("metrics.json and predictions are those of the undisturbed run")
