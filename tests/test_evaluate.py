"""The report: the predictions' format and the three files."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.evaluate import prediction_record, write_report
from scanner_jax.metrics import metrics_table
from scanner_jax.types import Entity, Example

TWEET = Example("test-7", ("Łódź", "loves", "Mira", "Okafor", "🕊", "!"))
METRICS = {
    "detector": {"dev": None, "test": {"precision": 80.0, "recall": 75.0, "f1": 77.42, "support": 4}},
    "recognizer": {"dev": None, "test": {"micro": {"precision": 50.0, "recall": 25.0, "f1": 33.33, "support": 4}}},
}


def test_prediction_record() -> None:
    found = [(Entity(2, 4, "PER", ((1.0, 2.0, 30.5, 40.0),)), 0.123456789), (Entity(0, 1, "LOC"), 0.75)]
    assert prediction_record(TWEET, found) == {
        "id": "test-7",
        "entities": [
            {
                "start": 0,
                "end": 1,
                "start_char": 0,
                "end_char": 4,
                "text": "Łódź",
                "type": "LOC",
                "score": 0.75,
                "box": None,
            },
            {
                "start": 2,
                "end": 4,
                "start_char": 11,
                "end_char": 22,
                "text": "Mira Okafor",
                "type": "PER",
                "score": 0.123457,
                "box": [1.0, 2.0, 30.5, 40.0],
            },
        ],
    }
    assert prediction_record(TWEET, []) == {"id": "test-7", "entities": []}


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8), st.data())
def test_offsets_cut_the_text_out_of_the_joined_words(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    (entity,) = prediction_record(Example("1", tuple(words)), [(Entity(start, end, "PER"), 1.0)])["entities"]
    assert " ".join(words)[entity["start_char"] : entity["end_char"]] == entity["text"] == " ".join(words[start:end])


def test_write_report(tmp_path: Path) -> None:
    records = [prediction_record(TWEET, [(Entity(2, 4, "PER"), 0.5)]), prediction_record(Example("8", ("x",)), [])]
    tables = [write_report(tmp_path / name / "report", METRICS, records) for name in ("first", "second")]
    first, second = (tmp_path / name / "report" for name in ("first", "second"))
    assert sorted(path.name for path in first.iterdir()) == ["metrics.json", "metrics.txt", "predictions.jsonl"]
    assert json.loads((first / "metrics.json").read_text()) == METRICS
    assert (first / "metrics.txt").read_text() == tables[0] == metrics_table(METRICS)
    lines = (first / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == records
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
