"""Import notes from JSON lines, keyed by example, or by a span of one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scanner_jax.store.layout import Value
from scanner_jax.store.sources import Imported, lines, refuse
from scanner_jax.types import Example

FORMS = '{"id": "...", "text": "..."} or {"id": "...", "start": 0, "end": 2, "text": "..."}'


class _Note(NamedTuple):
    """One line: a note on an example (`span` None) or on some of its words, end exclusive."""

    id: str
    span: tuple[int, int] | None
    text: str


def read_notes_jsonl(path: Path, corpus: Mapping[str, Sequence[Example]] | None = None) -> Imported:
    """Read notes, one object a line: on an example as a whole, or on words `start` to `end` of it, end exclusive.

    Other fields are ignored, notes without text are skipped.

    Args:
        path: the JSONL file, in UTF-8.
        corpus: split name -> its examples. Notes on ids that it has not are skipped and listed, spans are checked
            against its words, and examples without notes are counted. None checks neither.

    Raises:
        StoreError: lists lines of another form, spans that the example has not, and notes that come twice.
    """
    examples = {example.id: example for split in (corpus or {}).values() for example in split}
    problems: list[str] = []
    empty: list[str] = []
    unknown: list[str] = []
    places: dict[tuple[str, tuple[int, int] | None], str] = {}
    texts: dict[str, Value] = {}
    for place, line in lines([path], problems):
        note = _note(line)
        if isinstance(note, str):
            problems.append(f"{place}: {note}")
        elif not note.text.strip():
            empty.append(place)
        elif corpus is not None and note.id not in examples:
            unknown.append(f"{place} {note.id}")
        elif note.span is not None and note.id in examples and note.span[1] > len(examples[note.id].words):
            words = len(examples[note.id].words)
            problems.append(f"{place}: end {note.span[1]}, but example {note.id} has {words} words")
        elif (key := (note.id, note.span)) in places:
            problems.append(f"{place}: the same note's place as in {places[key]}; keep one of the two")
        else:
            places[key] = place
            value = texts.setdefault(note.id, {"text": "", "spans": []})
            if note.span is None:
                value["text"] = note.text.strip()
            else:
                value["spans"].append([*note.span, note.text.strip()])
    if not texts and not problems:
        reason = f"; of its ids none is the corpus's: {unknown[0].rpartition(' ')[2]}" if unknown else ""
        problems.append(f"{path}: no note with text{reason}; expected lines of {FORMS}")
    refuse(problems)
    without = tuple(identity for identity in examples if identity not in texts)
    remarks = {"skipped, empty": tuple(empty), "skipped, id not in the corpus": tuple(unknown)}
    remarks |= {"examples without notes": without} if corpus is not None else {}
    records = tuple((identity, _record(value)) for identity, value in texts.items())
    return Imported(records, remarks, (path,))


def _note(line: str) -> _Note | str:
    """The note of one line, or what is wrong with it."""
    try:
        record = json.loads(line)
        identity, text = record["id"], record["text"]
        (identity + text).encode()  # refuses what is no text, and lone surrogates, which the store can't hold
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}, column {error.colno})"
    except UnicodeError:
        return "not valid Unicode"
    except (KeyError, TypeError, AttributeError, RecursionError):
        return f"expected {FORMS}"
    if not identity:
        return "the id is empty"
    if "start" not in record and "end" not in record:
        return _Note(identity, None, text)
    start, end = record.get("start"), record.get("end")
    if type(start) is not int or type(end) is not int or not 0 <= start < end:
        return f"start {start!r} and end {end!r}; expected words counted from 0, end exclusive, start < end"
    return _Note(identity, (start, end), text)


def _record(value: Value) -> Value:
    """The store's form: spans sorted, and left out where there are none, as in notes of other importers."""
    return {"text": value["text"]} | ({"spans": sorted(value["spans"])} if value["spans"] else {})
