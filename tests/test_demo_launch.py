"""The whole demo as a newcomer runs it, in a copy of the checkout: minutes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def launch(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "launch/demo.sh"], cwd=checkout, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_knowledge_is_worth_its_points(tmp_path: Path) -> None:
    for part in ("scanner_jax", "configs", "launch"):
        shutil.copytree(ROOT / part, tmp_path / part)
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (tmp_path / "launch" / "setup.sh").write_text("echo 'this environment is set up'\n")
    run = launch(tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    reports = [tmp_path / "runs" / name / "report" / "metrics.json" for name in ("demo", "demo-without-knowledge")]
    with_knowledge, without = (json.loads(report.read_text()) for report in reports)
    assert with_knowledge["detector"] == without["detector"]
    assert with_knowledge["detector"]["test"]["f1"] > 85
    unseen = [metrics["recognizer"]["test"]["unseen"]["f1"] for metrics in (with_knowledge, without)]
    assert unseen[0] > unseen[1] + 10
    grounded = with_knowledge["recognizer"]["test"]
    assert grounded["gmner"]["f1"] > grounded["always_none"]["f1"] + 10
    table = run.stdout[run.stdout.index("F1 on test") :]
    assert f"{grounded['gmner']['f1']:.2f}" in table
    assert all(f"{score:.2f}" in table for score in unseen)

    phases = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "demo-phases").glob("*/result.json")}
    again = launch(tmp_path)
    assert again.returncode == 0 and again.stdout.endswith(table)
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "runs" / "demo-phases").glob("*/result.json")
    } == phases


def test_it_stops_where_something_fails(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    (tmp_path / "launch" / "setup.sh").write_text("echo 'setup: no Python' >&2; exit 1\n")
    run = launch(tmp_path)
    assert run.returncode == 1 and "setup: no Python" in run.stderr
    assert "2/5" not in run.stdout
