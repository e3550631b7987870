"""`launch/bench_gpu.sh`: its quick way on a CPU, and the table from whatever there is."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from gpu_table import table
from step_cases import CORPUS

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "launch" / "bench_gpu.sh"
MACHINE = {"device": "abacus", "processor": "wood", "jax": "1"}


def test_the_table_has_what_was_measured_and_says_what_was_not() -> None:
    row = {"case": "stage 1", "side": "scanner_jax", "tokens": 100.0, "seconds": 0.05, "mfu": 0.5}
    steps = {
        "rows": [
            row | {"peak_bytes": 2e9, "over_ours": 1.0},
            row | {"side": "PyTorch", "not_measured": "no time left"},
        ],
        "targets": [{"what": "MFU", "target": ">= 55", "found": "not measured"}],
    }
    recipe = {"parts": {"detector, steps": 10.0}, "seconds": 10.0, "machine": MACHINE}
    lines = table(steps, recipe)
    assert lines[2] == "| stage 1 | scanner_jax | 50.0 | 2,000 | 50.0 | 2.0 | 1.00 |"
    assert lines[3] == "| stage 1 | PyTorch | not measured: no time left | | | | |"
    assert lines[4] == "| MFU (>= 55) | | not measured | | | | |"
    assert lines[6].startswith("| the whole recipe, estimated (target: 480 s, on an H200) | scanner_jax | 10.0 s |")
    assert {line.count("|") for line in lines[:7]} == {8}
    assert [line.count("not measured") for line in table(None, None)[2:]] == [1, 1]


def test_other_options_are_refused() -> None:
    done = subprocess.run(["bash", SCRIPT, "--fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "unknown option --fast; it has --quick and --f1" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / CORPUS).is_dir(), reason=f"{CORPUS} is not there")
def test_its_quick_way_measures_everything(tmp_path: Path, tiny_encoder: Callable[[Sequence[str]], Path]) -> None:
    encoder = tiny_encoder(["we", "love", "it"])
    sizes = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps(sizes | {"max_position_embeddings": 200}))  # prompts have 160
    own = {"PYTHON": sys.executable, "ENCODER": str(encoder), "OUT": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", SCRIPT, "--quick"], capture_output=True, text=True, check=False, env={**os.environ, **own}
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert lines == [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    rows = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines[2:]}
    measured = {(case, side) for case, side, found in rows if not found.startswith("not measured")}
    cases, sides = ("stage 1, 4 tweets", "stage 2, 8 x 32"), ("scanner_jax", "PyTorch, eager")
    assert set(itertools.product(cases, sides)) < measured
    parts = {"detector, steps", "detector, tagging", "recognizer, steps", "recognizer, judging"}
    assert parts < {case for case, _ in measured}
