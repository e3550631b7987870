"""Phases: what the hash covers, run once, half-finished is not finished."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scanner_jax import phases
from scanner_jax.files import read_json
from scanner_jax.phases import DamagedPhaseError, Phase

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
    assert sorted(path.name for path in calls[0].iterdir()) == [
        "checksums.json",
        "lock",
        "phase.json",
        "result.json",
    ]
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


def body(folder):
    (folder / "params").mkdir(exist_ok=True)
    (folder / "params" / "d").write_bytes(b"\0\1" * 500)
    (folder / "spans.jsonl").write_text('{"id": "1"}\n')
    (folder / "metrics.jsonl").write_text("")
    (folder / "events.out.tfevents.1.host").write_text("")
    return {"f1": 79.38}


def test_checksums_cover_what_the_phase_is_used_for(tmp_path):
    phases.run(PHASE, tmp_path, body)
    folder = PHASE.folder(tmp_path)
    covered = {"params/d", "phase.json", "result.json", "spans.jsonl"}
    assert set(read_json(folder / "checksums.json")) == covered
    for name in ("metrics.jsonl", "events.out.tfevents.1.host", "lock"):
        (folder / name).write_text("may change")
    (folder / "notes.txt").write_text("a person's own")
    assert phases.run(PHASE, tmp_path, pytest.fail) == {"f1": 79.38}


@pytest.mark.parametrize("name", ["params/d", "phase.json", "result.json", "spans.jsonl", "checksums.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_file_of_a_finished_phase_is_named(tmp_path, name, damage):
    if (name, damage) in [("result.json", "remove"), ("checksums.json", "remove")]:
        pytest.skip("then it is not finished, or was by a version that had no checksums")
    phases.run(PHASE, tmp_path, body)
    folder = PHASE.folder(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    if damage == "remove":
        (folder / name).unlink()
    with pytest.raises(DamagedPhaseError, match=f"delete {folder} and give the same command again") as caught:
        phases.run(PHASE, tmp_path, pytest.fail)
    assert str(folder / name) in str(caught.value) or name == "checksums.json"
    shutil.rmtree(folder)
    assert phases.run(PHASE, tmp_path, body) == {"f1": 79.38}


def test_a_phase_from_before_checksums_is_used_with_a_warning(tmp_path, caplog):
    phases.run(PHASE, tmp_path, body)
    (PHASE.folder(tmp_path) / "checksums.json").unlink()
    assert phases.run(PHASE, tmp_path, pytest.fail) == {"f1": 79.38}
    assert "used unchecked" in caplog.text


@pytest.mark.parametrize("last", ["params", "checksums.json"])
def test_a_phase_without_its_result_is_run_again(tmp_path, last):
    """A kill just before the result is written, or a folder that was being deleted."""
    phases.run(PHASE, tmp_path, body)
    folder = PHASE.folder(tmp_path)
    (folder / "result.json").unlink()
    if last == "params":
        shutil.rmtree(folder / "params")
    assert not phases.finished(PHASE, tmp_path)
    assert phases.run(PHASE, tmp_path, body) == phases.run(PHASE, tmp_path, pytest.fail) == {"f1": 79.38}


def test_what_killed_writers_left_is_removed(tmp_path):
    folder = PHASE.folder(tmp_path)
    aside = folder / "checkpoints" / "12.orbax-checkpoint-tmp"
    for name in (aside, folder / "params.orbax-checkpoint-tmp", folder / "checkpoints" / "9"):
        name.mkdir(parents=True)
    (folder / "spans.jsonl.4711.tmp").write_text("ha")

    def look(folder):
        assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "lock", "phase.json"]
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["9"]
        return {"f1": 1.0}

    phases.run(PHASE, tmp_path, look)


def test_of_two_processes_one_runs_the_phase(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(
        "import logging, pathlib, sys, time\n"
        "from scanner_jax import phases\n"
        "logging.getLogger('scanner_jax').setLevel(logging.INFO)\n"
        "def body(folder):\n"
        "    (folder / 'ran').open('a').write('once\\n')\n"
        "    time.sleep(3)\n"
        "    return {'f1': 1.0}\n"
        "phase = phases.Phase(name='teacher', version=1, config={}, inputs={})\n"
        "print(phases.run(phase, pathlib.Path(sys.argv[1]), body))\n"
    )
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({str(script)!r})", str(tmp_path / "phases")]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": Path(__file__).parent.parent}
    both = [subprocess.Popen(command, **options) for _ in range(2)]
    answers = [process.communicate(timeout=100) for process in both]
    assert [out for out, _ in answers] == ["{'f1': 1.0}\n"] * 2
    (ran,) = (tmp_path / "phases").glob("teacher-*/ran")
    assert ran.read_text() == "once\n"
    # The second found the first at work or, where it was slow to start, had only to read its result.
    assert sum("running in" in err for _, err in answers) == 1
    assert sum("finished before" in err for _, err in answers) == 1
