"""The lock of a folder: the second waits and says for whom, and a holder that dies holds nothing."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scanner_jax.lock import LOCK, InUseError, locked

ROOT = Path(__file__).parent.parent
HOLDER = "import sys, pathlib, scanner_jax.lock as lock\nwith lock.locked(pathlib.Path(sys.argv[1])):\n    "


def hold(folder: Path, then: str) -> subprocess.Popen[str]:
    """A process that has the folder once it has said so."""
    command = [sys.executable, "-c", HOLDER + then, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_and_says_who_has_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = hold(tmp_path / "phase", "print('held', flush=True); sys.stdin.read()")
    entered = threading.Event()

    def second() -> None:
        with locked(tmp_path / "phase"):
            entered.set()

    waiting = threading.Thread(target=second)
    with caplog.at_level(logging.WARNING):
        waiting.start()
        assert not entered.wait(0.5)
        assert f"is in use by process {first.pid} on" in caplog.text and "since 20" in caplog.text
        first.communicate()  # ends its input, so it leaves
        assert entered.wait(10)
    waiting.join()
    assert (tmp_path / "phase" / LOCK).read_text().startswith(f'{{"pid": {os.getpid()},')


def test_a_killed_holder_blocks_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = hold(tmp_path, "print('held', flush=True); sys.stdin.read()")
    first.kill()
    first.communicate()
    assert str(first.pid) in (tmp_path / LOCK).read_text()  # its file is still there
    with locked(tmp_path):
        pass
    assert "in use" not in caplog.text


def test_who_waited_for_a_deleted_folder_makes_it_anew(tmp_path: Path) -> None:
    folder = tmp_path / "phase"
    first = hold(folder, "print('held', flush=True); sys.stdin.read()")
    found = []

    def second() -> None:
        with locked(folder):
            found.append((folder / LOCK).read_text())

    waiting = threading.Thread(target=second)
    waiting.start()
    waiting.join(0.3)
    assert not found
    shutil.rmtree(folder)
    first.communicate()
    waiting.join(10)
    assert str(os.getpid()) in found[0]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/phase"), locked(tmp_path / "file" / "phase"):
        pass


def test_who_does_not_wait_is_told_who_has_it(tmp_path: Path) -> None:
    first = hold(tmp_path, "print('held', flush=True); sys.stdin.read()")
    with pytest.raises(InUseError, match=f"is in use by process {first.pid} on"), locked(tmp_path, wait=False):
        pass
    first.communicate()
    with locked(tmp_path, wait=False):
        pass
