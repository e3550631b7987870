"""Importing notes as JSON lines, on examples and on spans, with a corpus to check them against and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanner_jax.store import Store, StoreError
from scanner_jax.store.__main__ import main
from scanner_jax.store.notes_jsonl import read_notes_jsonl
from scanner_jax.types import Example, Span

CORPUS = {"train": (Example("train-0", ("Mira", "Okafor", "sails")),), "test": (Example("17#2", ("Oslo",)),)}


def write(folder: Path, *records: object) -> Path:
    path = folder / "notes.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_notes_on_examples_and_spans_reach_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split in ("train", "test"):
        (corpus / f"{split}.txt").write_text("Mira B-PER\nOkafor I-PER\nsails O\n")
    path = write(
        tmp_path,
        {"id": "train-0", "start": 2, "end": 3, "text": "To sail.", "by": "a model"},
        {"id": "train-0", "text": " About sailing. "},
        {"id": "train-0", "start": 0, "end": 2, "text": "A sailor."},
        {"id": "dev-9", "text": "Unknown."},
        {"id": "test-0", "text": " "},
    )
    assert main(["import", "notes-jsonl", str(path), str(tmp_path / "store"), "--corpus", str(corpus)]) == 0
    printed = capsys.readouterr().out
    assert "1 notes -> " in printed
    assert f"skipped, empty: 1 ({path}:5)" in printed
    assert f"skipped, id not in the corpus: 1 ({path}:4 dev-9)" in printed
    assert "examples without notes: 1 (test-0)" in printed
    store = Store.open(tmp_path / "store")
    assert store.notes("train-0") == "About sailing."
    assert store.span_notes("train-0") == {Span(0, 2): "A sailor.", Span(2, 3): "To sail."}
    assert store.span_notes("test-0") == {} and store.notes("test-0") is None
    assert store.provenance("notes")["corpus"]["name"] == "corpus"


def test_without_a_corpus_every_id_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "x", "start": 70, "end": 80, "text": "Far out."}, {"id": "y", "text": "So."})
    imported = read_notes_jsonl(path)
    assert dict(imported.records) == {"x": {"text": "", "spans": [[70, 80, "Far out."]]}, "y": {"text": "So."}}
    assert "examples without notes" not in imported.remarks


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (["train-0", "note"], 'expected {"id": "...", "text": "..."} or'),
        ({"id": "train-0"}, 'expected {"id"'),
        ({"id": 7, "text": "note"}, 'expected {"id"'),
        ({"id": "", "text": "note"}, "the id is empty"),
        ({"id": "\ud800", "text": "note"}, "not valid Unicode"),
        ({"id": "train-0", "start": 0, "text": "note"}, "start 0 and end None; expected words counted from 0"),
        ({"id": "train-0", "start": 2, "end": 2, "text": "note"}, "start 2 and end 2"),
        ({"id": "train-0", "start": -1, "end": 2, "text": "note"}, "start -1 and end 2"),
        ({"id": "train-0", "start": 0.0, "end": 2, "text": "note"}, "start 0.0 and end 2"),
        ({"id": "train-0", "start": False, "end": True, "text": "note"}, "start False and end True"),
        ({"id": "train-0", "start": 1, "end": 4, "text": "note"}, "end 4, but example train-0 has 3 words"),
        ({"id": "train-0", "start": 0, "end": 2, "text": "again"}, "the same note's place as in "),
    ],
)
def test_malformed_lines_are_told_with_their_line(tmp_path: Path, record: object, message: str) -> None:
    good = {"id": "train-0", "start": 0, "end": 2, "text": "note"}
    path = write(tmp_path, good, record)
    with pytest.raises(StoreError) as raised:
        read_notes_jsonl(path, CORPUS)
    assert f"{path}:2: {message}" in str(raised.value)


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(b'{"id": "train-0"\n\n{"id": "17#2", "text": 3}\n\xff\n{"id": "17#2", "text": "fine"}\n')
    with pytest.raises(StoreError) as raised:
        read_notes_jsonl(path, CORPUS)
    found = [line.removeprefix(f"{path}:").partition(":")[0] for line in str(raised.value).splitlines()[1:]]
    assert found == ["1", "3", "4"]


def test_nothing_to_import_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no note with text; expected lines of"):
        read_notes_jsonl(write(tmp_path), CORPUS)
    with pytest.raises(StoreError, match="of its ids none is the corpus's: other"):
        read_notes_jsonl(write(tmp_path, {"id": "other", "text": "note"}), CORPUS)
    with pytest.raises(StoreError, match="does not exist"):
        read_notes_jsonl(tmp_path / "nowhere", CORPUS)
