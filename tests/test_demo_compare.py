"""The demo's closing table, and what is said where there is nothing to compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanner_jax.demo.__main__ import main


def report(folder: Path, spans: float, *scores: float) -> Path:
    """A run with a report of these F1: spans, then micro, seen and unseen."""
    recognizer = {name: {"f1": score} for name, score in zip(("micro", "seen", "unseen"), scores, strict=False)}
    metrics = {"detector": {"test": {"f1": spans}}, "recognizer": {"test": recognizer} if scores else None}
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    report(Path("with"), 91.5, 80.0, 85.25, 77.0)
    report(Path("without"), 91.5, 60.0, 86.0, 41.5)
    assert main(["compare", "with", "without"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0][-4:] == ["spans", "all", "seen", "unseen"]
    assert rows[1] == ["with", "91.50", "80.00", "85.25", "77.00"]
    assert rows[2] == ["without", "91.50", "60.00", "86.00", "41.50"]
    assert rows[3] == ["with", "-", "without", "+0.00", "+20.00", "-0.75", "+35.50"]


def test_boxes_have_a_table_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    report(Path("without"), 91.5, 60.0, 86.0, 41.5)
    metrics = json.loads((report(Path("with"), 91.5, 80.0, 85.25, 77.0) / "report" / "metrics.json").read_text())
    boxes = {"gmner": 61.5, "always_none": 30.25, "mner": 80.0, "eeg": 70.0}
    metrics["recognizer"]["test"] |= {name: {"f1": score} for name, score in boxes.items()}
    Path("with/report/metrics.json").write_text(json.dumps(metrics))
    assert main(["compare", "with", "without"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[4] == "" and lines[5].split() == ["with", "boxes", "gmner", "no", "boxes", "mner", "eeg"]
    assert [line.split() for line in lines[6:]] == [["with", "61.50", "30.25", "80.00", "70.00"]]


def test_all_that_cannot_be_compared_is_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path / "half", 90.0)
    report(tmp_path / "broken", 90.0, 1.0, 1.0, 1.0)
    (tmp_path / "broken" / "report" / "metrics.json").write_text("{")
    assert main(["compare", *(str(tmp_path / name) for name in ("none", "half", "broken"))]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert "none/report/metrics.json is missing" in captured.err
    assert "half/report/metrics.json has no recognizer's scores yet" in captured.err
    assert "broken/report/metrics.json can't be read" in captured.err
