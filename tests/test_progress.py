"""Progress: numbers as JSON lines, a line per evaluation, a bar."""

from __future__ import annotations

import io
from pathlib import Path

import rich.console

from scanner_jax.files import read_json_lines
from scanner_jax.progress import Progress, open_progress


def test_records_are_appended_and_readable_at_once(tmp_path: Path) -> None:
    with open_progress("detector-teacher", tmp_path) as progress:
        progress.record(50, {"loss": 0.5})
        (record,) = read_json_lines(tmp_path / "metrics.jsonl")
        assert {key: record[key] for key in ("step", "loss")} == {"step": 50, "loss": 0.5}
        assert record["time"] > 0
    with open_progress("detector-teacher", tmp_path) as progress:
        progress.record(100, {"span_f1": 80.94})
    assert [record["step"] for record in read_json_lines(tmp_path / "metrics.jsonl")] == [50, 100]


def test_what_a_person_sees() -> None:
    screen, file = io.StringIO(), io.StringIO()
    console = rich.console.Console(file=screen, width=120, force_terminal=True, color_system=None)
    progress = Progress("recognizer-teacher", file, console)
    progress.record(10, {"loss": 1.25})
    assert screen.getvalue() == ""
    progress.record(20, {"f1": 79.38}, say="dev f1 79.38")
    assert "recognizer-teacher step 20: dev f1 79.38\n" in screen.getvalue()
    with progress.bar(40, start=20) as advance:
        advance(30, 0.125)
    assert "30/40" in screen.getvalue()
    assert "loss 0.1250" in screen.getvalue()
    assert len(file.getvalue().splitlines()) == 2
