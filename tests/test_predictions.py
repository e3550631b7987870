"""The predictions format, written and read, and its columns for conlleval."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import conlleval
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.metrics import Counts, entity_counts
from scanner_jax.predictions import (
    Predicted,
    PredictionsError,
    conll_lines,
    gold_record,
    prediction_record,
    read_candidates,
    read_predictions,
)
from scanner_jax.tags import entities_from_tags
from scanner_jax.types import Entity, Example

TWEET = Example("test-7", ("Łódź", "loves", "Mira", "Okafor", "🕊", "!"))


def test_prediction_record() -> None:
    found = [
        Predicted(Entity(2, 4, "PER", ((1.0, 2.0, 30.5, 40.0),)), 0.123456789, 0.87654321),
        Predicted(Entity(0, 1, "LOC"), 0.75),
    ]
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
                "box_score": None,
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
                "box_score": 0.876543,
            },
        ],
    }
    assert prediction_record(TWEET, []) == {"id": "test-7", "entities": []}


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8), st.data())
def test_offsets_cut_the_text_out_of_the_joined_words(words: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(start + 1, len(words)))
    (entity,) = prediction_record(Example("1", tuple(words)), [Predicted(Entity(start, end, "PER"), 1.0)])["entities"]
    assert " ".join(words)[entity["start_char"] : entity["end_char"]] == entity["text"] == " ".join(words[start:end])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    entities = [Entity(0, 1, "LOC"), Entity(2, 4, "PER", ((1.0, 2.0, 30.5, 40.0),))]
    lines = [json.dumps(prediction_record(TWEET, [Predicted(entity, 0.5) for entity in entities])), ""]
    lines += [
        '{"id": "other", "entities": [{"start": -3, "end": 99, "type": "X", "more": [1], "box": null}]}\r',
        '{"id": "", "entities": []}',
    ]
    path.write_bytes("\n".join(lines).encode("utf-8-sig"))
    assert read_predictions(path) == {"test-7": entities, "other": [Entity(-3, 99, "X")], "": []}


def test_gold_has_all_boxes(tmp_path: Path) -> None:
    boxes = ((1.0, 2.0, 30.5, 40.0), (5.0, 5.0, 6.0, 6.0))
    gold = dataclasses.replace(TWEET, entities=(Entity(0, 1, "LOC"), Entity(2, 4, "PER", boxes)))
    record = gold_record(gold)
    assert [entity["boxes"] for entity in record["entities"]] == [[], [list(box) for box in boxes]]
    path = tmp_path / "gold.jsonl"
    path.write_text(json.dumps(record))
    assert read_predictions(path) == {"test-7": [Entity(0, 1, "LOC"), Entity(2, 4, "PER", boxes[:1])]}


def test_candidates(tmp_path: Path) -> None:
    path = tmp_path / "candidates.jsonl"
    path.write_text('{"id": "1", "boxes": [[0, 0, 1.5, 2], [3, 3, 3, 3]]}\n{"id": "2", "boxes": []}\n')
    assert read_candidates(path) == {"1": [(0.0, 0.0, 1.5, 2.0), (3.0, 3.0, 3.0, 3.0)], "2": []}
    path.write_text('{"id": "1", "entities": []}\n{"id": "2", "boxes": [[0, 0, 1, 1], [5, 0, 1, 1]]}\n')
    with pytest.raises(PredictionsError) as caught:
        read_candidates(path)
    assert f'{path}:1: expected {{"id": "...", "boxes": [[x1, y1, x2, y2], ...]}}' in str(caught.value)
    assert f"{path}:2: box 2 is [5, 0, 1, 1]; expected [x1, y1, x2, y2] in pixels, x1 <= x2" in str(caught.value)


MALFORMED = {
    '{"id": "1", "entities": [}': "not JSON",
    "[]": "expected",
    '{"id": "1"}': '"entities": [...]',
    '{"id": "1", "entities": {}}': '"entities": [...]',
    '{"id": 1, "entities": []}': "id is 1; expected a string",
    '{"entities": []}': "id is missing",
    '{"id": "1", "entities": [[0, 1, "PER"]]}': "entity 1 is [0, 1",
    '{"id": "1", "entities": [{"start": 0, "end": 1}]}': "type is missing",
    '{"id": "1", "entities": [{"start": true, "end": 1, "type": "PER"}]}': "start is true; expected a whole number",
    '{"id": "1", "entities": [{"start": 0, "end": 1.0, "type": "PER"}]}': "end is 1.0",
    '{"id": "1", "entities": [{"start": "0", "end": 1, "type": "PER"}]}': 'start is "0"',
    '{"id": "1", "entities": [{"start": NaN, "end": 1, "type": "PER"}]}': "NaN is no JSON number",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "PER", "score": Infinity}]}': "Infinity",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": 3}]}': "type is 3",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": " "}]}': 'type is " "',
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "\\ud800"}]}': "expected a printable string",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "A\\u001b[2J"}]}': "expected a printable string",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "PER"}, 3]}': "entity 2 is 3",
    **{
        f'{{"id": "1", "entities": [{{"start": 0, "end": 1, "type": "PER", "box": {box}}}]}}': f"entity 1: box is {box}"
        for box in ("[1, 2, 3]", "[1, 2, 3, true]", '"none"', "[3, 0, 1, 1]", "[0, 3, 1, 1]", "[]")
    },
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "PER", "box": [1, 2, 3, 1e999]}]}': "entity 1: box is [1",
    '{"id": "1", "entities": [{"start": 0, "end": 1, "type": "PER", "box": [1, 2, 3, 1' + "0" * 400 + "]}]}": (
        "entity 1: box is [1"
    ),
    "[" * 100_000: "not JSON",
    '{"id": "1", "entities": [' + "9" * 5000 + "]}": "not JSON",
    '{"id": "given", "entities": []}': "id 'given' has a line already",
}


@pytest.mark.parametrize(("line", "said"), MALFORMED.items(), ids=range(len(MALFORMED)))
def test_a_malformed_line_is_told_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "given", "entities": []}\n\n' + line + "\n")
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    assert f"{path}:3: " in str(caught.value) and said in str(caught.value)


def test_all_malformed_lines_are_counted_and_the_first_are_told(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\n" + b"nothing\n" * 70)
    with pytest.raises(PredictionsError) as caught:
        read_predictions(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "71 malformed lines" and "not UTF-8" in lines[1] and len(lines) == 52
    assert lines[-1] == "... and 21 more"


TAGS = st.sampled_from(["O", "B-PER", "I-PER", "B-LOC", "I-LOC"])
WORDS = st.sampled_from(["Mira", "-X-", "\xa0", "a b", "-DOCSTART-", "O", "#", "\u2028", "B-PER"])


@given(st.lists(st.lists(st.tuples(WORDS, TAGS, TAGS), max_size=6), min_size=1, max_size=4))
def test_conlleval_counts_what_we_count(sentences: list[list[tuple[str, str, str]]]) -> None:
    examples = [
        Example(str(number), tuple(row[0] for row in rows), entities_from_tags([row[1] for row in rows]))
        for number, rows in enumerate(sentences)
    ]
    predicted = [entities_from_tags([row[2] for row in rows]) for rows in sentences]
    lines = "".join(conll_lines(examples, predicted)).split("\n")
    # With a delimiter of one's own, the port refuses the blank lines that the original takes.
    found = conlleval.evaluate((line or "-X-\tO\tO" for line in lines), delimiter="\t")["overall"]
    stats = found["chunks"]["stats"]
    counts = entity_counts([example.entities for example in examples], predicted)
    assert Counts(stats["correct"], stats["pred"], stats["gold"]) == counts
    assert found["tags"]["stats"]["gold"] == sum(map(len, sentences))  # no word is lost, none is a boundary
