"""Extraction on Ray: a worker that dies costs nothing but its task's time; what workers say comes back in words."""

from __future__ import annotations

import importlib.util
import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import msgpack
import pytest
from PIL import Image

from scanner_jax.images import find_images
from scanner_jax.knowledge.__main__ import SUBCOMMANDS, main
from scanner_jax.knowledge.extraction import Job, extract
from scanner_jax.knowledge.ray_workers import _tasks, _Worker, on_ray
from scanner_jax.knowledge.shards import Shard, merge
from scanner_jax.store import Store

ROOT = Path(__file__).parent.parent
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="needs Ray: pip install -r requirements-ray.txt")

SHIM = """
import sys

class Shim:
    def find_spec(self, name, path, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            from torchvision_shim import declare_operators
            declare_operators()

sys.meta_path.insert(0, Shim())
"""
"""A sitecustomize.py: Ray's workers are processes that no test can reach into."""


class Widths:
    """Describes images by their width."""

    batch_size = ahead = 2

    def prepare(self, key: str, image: Image.Image) -> int:
        return image.width

    def units(self, prepared: int) -> int:
        return 1

    def describe(self, prepared: Sequence[int]) -> list[dict[str, Any]]:
        if 13 in prepared:
            raise ValueError("unlucky")
        return [{"text": str(width)} for width in prepared]


def load_nothing() -> Widths:
    raise ValueError("no such model")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Images of 1 to 40 pixels, but for one in colours of its own each, and a broken one."""
    folder = tmp_path / "images"
    folder.mkdir()
    for width in range(1, 41):
        Image.new("RGB", (width, 5), (5 * width, 3 * width, 255 - width)).save(folder / f"i{width:02}.png")
    (folder / "i07.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def tiny_blip2(transformers: ModuleType, tmp_path: Path) -> Path:
    from tiny_experts import write_blip2

    write_blip2(tmp_path / "blip2")
    return tmp_path / "blip2"


def worked(load: Callable[[], Widths], images: dict[str, Path | None]) -> list[dict[str, Any]]:
    """What a worker makes of tasks of three images each."""
    worker = _Worker(pickle.dumps(load), os.getcwd(), 1)
    rows = worker({"task": list(_tasks(images, 3))})["found"]
    return [msgpack.unpackb(row) for row in rows]


def test_a_worker_describes_tasks(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", pickle)
    (images / os.fsdecode(b"folder-\xff")).mkdir()
    odd = images / os.fsdecode(b"folder-\xff") / "i50.png"
    shutil.copy(images / "i01.png", odd)
    given = {"i05": images / "i05.png", "i06": images / "i06.png", "i07": images / "i07.png", "no": None, "odd": odd}
    first, second = worked(Widths, given)
    done = [pair for batch in first["batches"] for pair in batch[0]]
    failed = [pair for batch in first["batches"] for pair in batch[1]]
    assert done == [["i05", {"text": "5"}], ["i06", {"text": "6"}]] and failed == [["i07", "not an image"]]
    assert "scanner_jax" in first["batches"][0][2]
    assert [pair for batch in second["batches"] for pair in batch[0]] == [["odd", {"text": "1"}]]


def test_what_is_wrong_on_a_worker_comes_back_in_words(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", pickle)
    assert worked(load_nothing, {"i05": images / "i05.png"}) == [{"problem": "no such model"}]
    assert worked(Widths, {"i13": images / "i13.png"}) == [{"problem": "unlucky"}]


def test_without_ray_the_command_says_what_to_install(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["captions", str(images), str(tmp_path / "store"), "--model", str(tmp_path), "--ray-workers", "2"]
    assert main(command) == 1
    assert 'error: --ray-workers needs Ray: pip install "scanner_jax[ray]"' in capsys.readouterr().err


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The script with stand-ins: a Python that writes down its arguments, and a set-up that has nothing to do."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "extract_ray.sh", tmp_path / "launch")
    (tmp_path / "launch" / "setup.sh").write_text("")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nif [ "$1" = -c ]; then exit "${NO_RAY:-0}"; else echo "$@"; fi\n')
    python.chmod(0o755)
    return tmp_path


def launched(checkout: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(checkout / "launch" / "extract_ray.sh"), *arguments]
    path = f"{checkout}/bin:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_script_gives_a_command_that_exists(checkout: Path) -> None:
    given = launched(checkout, "captions", "my images", "store", "--ray-workers", "8")
    assert given.stdout == "-m scanner_jax.knowledge captions my images store --ray-workers 8\n"
    assert "captions" in SUBCOMMANDS
    for gpus, workers in (("echo a; echo b; echo c", 3), ("exit 9", 2)):
        (checkout / "bin").mkdir(exist_ok=True)
        (checkout / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{gpus}\n")
        (checkout / "bin" / "nvidia-smi").chmod(0o755)
        assert launched(checkout, "objects", "i", "s").stdout.endswith(f"objects i s --ray-workers {workers}\n")


def test_the_script_without_arguments_or_ray_says_what_is_needed(checkout: Path) -> None:
    usage = launched(checkout, "captions")
    assert usage.returncode == 2 and "bash launch/extract_ray.sh captions IMAGES STORE" in usage.stderr
    bare = launched(checkout, "captions", "i", "s", NO_RAY="1")
    assert bare.returncode == 1 and "pip install -r requirements-ray.txt" in bare.stderr


@needs_ray
@pytest.mark.slow
def test_a_worker_that_dies_costs_its_task_alone(images: Path, tmp_path: Path) -> None:
    task_images = 3
    log, store = tmp_path / "log", tmp_path / "store"

    def load() -> Any:  # a class in a function is sent to the workers whole, as they can't import a test

        class Logged:
            batch_size = ahead = 2

            def __init__(self) -> None:
                self.note("loaded")

            def note(self, text: str) -> None:
                with log.open("a") as file:
                    file.write(f"{text} {os.getpid()}\n")

            def prepare(self, key: str, image: Image.Image) -> int:
                self.note(key)
                return image.width

            def units(self, prepared: int) -> int:
                return 1

            def describe(self, prepared: Sequence[int]) -> list[dict[str, Any]]:
                time.sleep(0.2)
                return [{"text": str(width)} for width in prepared]

        return Logged()

    def kill() -> None:
        while not log.exists() or len(log.read_text().splitlines()) < 12:
            time.sleep(0.01)
        os.kill(int(log.read_text().split()[-1]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    job = Job("captions", {"expert": "widths"}, dict(find_images(images)), load)
    outcome = extract(store, job, Shard(), threads=1, describe=on_ray(workers=2, task_images=task_images, gpus=0))
    killer.join()
    assert (outcome.done, outcome.failures) == (39, (("i07", "not an image"),))
    merge(store, "captions")
    opened = Store.open(store)
    assert {key: opened.caption(key) for key in opened.keys("captions")} == {
        f"i{width:02}": str(width) for width in range(1, 41) if width != 7
    }
    noted = Counter(line.split()[0] for line in log.read_text().splitlines())
    assert noted.pop("loaded") == 3  # two workers, and the one in the dead one's place
    assert len(noted) == 39 and set(noted.values()) == {1, 2}
    assert sum(count == 2 for count in noted.values()) <= task_images


@needs_ray
@pytest.mark.slow
def test_a_real_expert_on_two_workers_one_of_them_killed(images: Path, tmp_path: Path, tiny_blip2: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SHIM)
    paths = [str(tmp_path), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    plain, store = tmp_path / "plain", tmp_path / "store"

    def command(target: Path, *options: str) -> list[str]:
        given = ["captions", str(images), str(target), "--model", str(tiny_blip2), "--device", "cpu"]
        return [sys.executable, "-m", "scanner_jax.knowledge", *given, *options]

    subprocess.run(command(plain), env=environment, cwd=ROOT, check=True, capture_output=True)
    on_two = command(store, "--ray-workers", "2", "--ray-task", "2", "--batch-size", "2")
    with subprocess.Popen(on_two, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        while done(store) < 4 and process.poll() is None:
            time.sleep(0.02)
        victim = next(pid for pid in descendants(process.pid) if b"ray::MapWorker" in command_line(pid))
        os.kill(victim, signal.SIGKILL)
        assert done(store) < 40  # in the middle
        printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "captions of 39 images" in printed and "failed: 1" in printed
    made = [Store.open(folder).provenance("captions")["fingerprint"] for folder in (plain, store)]
    assert made[0] == made[1]


def done(store: Path) -> int:
    """Images that are kept so far."""
    path = Shard().folder(store, "captions") / "progress.sqlite"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM done").fetchone()[0])
    except sqlite3.OperationalError:  # it is not there yet, or being written
        return 0


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid: int) -> list[int]:
    """The processes that a process started, theirs included."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]
