"""An extraction that is killed or told to leave goes on where it was; shards of one folder give what one run gives."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from scanner_jax.knowledge.__main__ import main
from scanner_jax.store import Store

ROOT = Path(__file__).parent.parent
COUNT = 40


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        Image.linear_gradient("L").rotate(6 * number).convert("RGB").resize((40, 30)).save(folder / f"{number}.png")
    return folder


def start(photos: Path, store: Path, model: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "tests/torchvision_shim.py", "-m", "scanner_jax.knowledge", "captions"]
    more = ["--model", str(model), "--batch-size", "1", "--max-new-tokens", "12"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, str(photos), str(store), *more], cwd=ROOT, env=environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def done(store: Path) -> int:
    """Images that a running extraction has kept."""
    try:
        with sqlite3.connect(f"file:{store}/.extracting/captions-1-of-1/progress.sqlite?mode=ro", uri=True) as file:
            return int(file.execute("SELECT count(*) FROM done").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def stopped(photos: Path, store: Path, model: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a signal when some batches are kept; the exit status and what was said."""
    process = start(photos, store, model)
    before = done(store)
    while process.poll() is None and done(store) < before + 3:
        time.sleep(0.01)
    process.send_signal(number)
    return process.wait(timeout=60), process.stderr.read() if process.stderr else ""


def test_killed_told_to_leave_and_gone_on_with(
    photos: Path, tiny_experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_experts / "blip2"
    code, _ = stopped(photos, tmp_path / "store", model, signal.SIGKILL)
    killed = done(tmp_path / "store")
    assert code == -9 and 3 <= killed < COUNT
    code, said = stopped(photos, tmp_path / "store", model, signal.SIGTERM)
    assert code == 143 and said.endswith("stopped by SIGTERM; the same command goes on from here\n"), said
    kept = done(tmp_path / "store")
    assert killed + 3 <= kept < COUNT
    assert not (tmp_path / "store" / "captions").exists()

    arguments = ["--model", str(model), "--batch-size", "8", "--max-new-tokens", "12"]
    assert main(["captions", str(photos), str(tmp_path / "store"), *arguments]) == 0
    assert f"done before: {kept}, now: {COUNT - kept}" in capsys.readouterr().out
    for shard in ("2/2", "1/2"):
        assert main(["captions", str(photos), str(tmp_path / "parts"), *arguments, "--shard", shard]) == 0
    assert "merge" in capsys.readouterr().out
    assert main(["merge", str(tmp_path / "parts"), "captions"]) == 0
    whole, parts = Store.open(tmp_path / "store"), Store.open(tmp_path / "parts")
    assert len(whole.keys("captions")) == COUNT
    assert whole.fingerprint(("captions",)) == parts.fingerprint(("captions",))
