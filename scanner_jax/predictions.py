"""The predictions format: JSON lines that any system can write, and the same as columns for conlleval.

One object a line: `{"id": "...", "entities": [{"start": 0, "end": 2, "type": "PER", "box": [10, 20, 60, 80]}, ...]}`.
Words are counted from 0 and `end` is exclusive; `box` is x1, y1, x2, y2 in pixels of the image, and may be null or
missing. Scanner's own predictions have more fields, which a reader may use and scores do not.

Candidate boxes have lines of their own: `{"id": "...", "boxes": [[10, 20, 60, 80], ...]}`.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from scanner_jax.spill import SpilledDict
from scanner_jax.tags import tags_from_entities
from scanner_jax.types import Box, Entity, Example, Span

SHOWN_PROBLEMS = 50

CONLLEVAL_BOUNDARY = "-X-"
"""A word that conlleval takes for the end of a sentence."""


Content = TypeVar("Content")


class PredictionsError(ValueError):
    """A file that is not in the predictions format; the message lists every malformed line, the first 50 in words."""


class Predicted(NamedTuple):
    """A predicted entity with at most one box, the probability of its type, and the overlap score of its best object.

    `box_score` is None where there was no object to choose from, or none was asked for; it stands even where it is too
    low for a box.
    """

    entity: Entity
    score: float
    box_score: float | None = None


def prediction_record(example: Example, entities: Sequence[Predicted]) -> dict[str, Any]:
    """One line of the predictions format.

    Args:
        example: the sentence.
        entities: its predicted entities.

    Returns:
        `id` and `entities`; each entity with `start`, `end` (words, end exclusive), `start_char`, `end_char`
        (in the words joined by single spaces), `text`, `type`, `score`, `box` ([x1, y1, x2, y2] pixels or None) and
        `box_score`.
    """
    records = []
    for entity, score, box_score in sorted(entities, key=lambda item: item.entity.span):
        start_char, end_char = example.characters(entity)
        records.append(
            {
                "start": entity.start,
                "end": entity.end,
                "start_char": start_char,
                "end_char": end_char,
                "text": example.surface(entity),
                "type": entity.type,
                "score": round(score, 6),
                "box": list(entity.boxes[0]) if entity.boxes else None,
                "box_score": None if box_score is None else round(box_score, 6),
            }
        )
    return {"id": example.id, "entities": records}


def gold_record(example: Example) -> dict[str, Any]:
    """A sentence's gold in the predictions format; `box` is an entity's first box, and `boxes` are all of them."""
    record = prediction_record(example, [Predicted(entity, 1.0) for entity in example.entities])
    boxes = {entity.span: entity.boxes for entity in example.entities}
    for item in record["entities"]:
        item["boxes"] = [list(box) for box in boxes[Span(item["start"], item["end"])]]
    return record


def read_predictions(path: Path) -> SpilledDict[list[Entity]]:
    """Read a file in the predictions format, of whatever system.

    Of an entity only `start`, `end`, `type` and `box` are read. Blank lines are passed over.

    Args:
        path: the JSON lines file, in UTF-8.

    Returns:
        Each id's entities as they stand, in the file's order; whether ids and spans exist is not checked here.

    Raises:
        PredictionsError: a line is no JSON (NaN and Infinity are none), lacks a field, has one of another kind, or
            gives an id a second time.
        OSError: the file cannot be read.
    """
    return _read(path, _entities, SpilledDict[list[Entity]](pack=_packed, unpack=_unpacked))


def read_candidates(path: Path) -> SpilledDict[list[Box]]:
    """Read the candidate boxes of each id, in their order; arguments and errors as in `read_predictions`."""
    return _read(path, _boxes, SpilledDict[list[Box]](unpack=list))


def conll_lines(examples: Sequence[Example], predicted: Sequence[Sequence[Entity]]) -> Iterator[str]:
    """Write gold and prediction as the columns that conlleval reads: `conlleval -d '\\t' < predictions.conll`.

    Columns are separated by TAB, since words of tweets may hold spaces of all kinds but no TAB; a blank line ends a
    sentence. The word `-X-`, which conlleval takes for a sentence's end, becomes `-x-`.

    Args:
        examples: the sentences with their gold entities.
        predicted: non-overlapping entities of each.

    Yields:
        Lines of word, gold tag and predicted tag (IOB2).
    """
    for example, entities in zip(examples, predicted, strict=True):
        gold_tags = tags_from_entities(len(example.words), example.entities)
        predicted_tags = tags_from_entities(len(example.words), entities)
        for word, gold, guess in zip(example.words, gold_tags, predicted_tags, strict=True):
            yield f"{word.lower() if word == CONLLEVAL_BOUNDARY else word}\t{gold}\t{guess}\n"
        yield "\n"


def _read(
    path: Path, content: Callable[[Mapping[str, Any]], Content], found: SpilledDict[Content]
) -> SpilledDict[Content]:
    """What a JSON lines file says of each id, put into `found`."""
    problems: list[str] = []
    with path.open("rb") as file:  # binary, so that lines end at LF alone
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                record = _record(raw.removesuffix(b"\n").decode("utf-8-sig" if number == 1 else "utf-8"))
                read = content(record)
                if not isinstance(record.get("id"), str):
                    raise PredictionsError(f"id is {_shown(record.get('id'))}; expected a string")
                if record["id"] in found:
                    raise PredictionsError(f"id {record['id']!r} has a line already; expected one line for each id")
                found[record["id"]] = read
            except UnicodeDecodeError as error:
                problems.append(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start})")
            except PredictionsError as error:
                problems.append(f"{path}:{number}: {error}")
    if problems:
        more = [f"... and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise PredictionsError("\n".join([f"{len(problems)} malformed lines", *problems[:SHOWN_PROBLEMS], *more]))
    return found


def _record(line: str) -> Mapping[str, Any]:
    """The object that a line holds; a PredictionsError says what is wrong with it."""
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise PredictionsError(f"not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"not JSON that can be read ({error})") from None
    return record if isinstance(record, Mapping) else {}


def _entities(record: Mapping[str, Any]) -> list[Entity]:
    if not isinstance(record.get("entities"), list):
        raise PredictionsError('expected {"id": "...", "entities": [...]}')
    return [_entity(place, item) for place, item in enumerate(record["entities"], start=1)]


def _boxes(record: Mapping[str, Any]) -> list[Box]:
    if not isinstance(record.get("boxes"), list):
        raise PredictionsError('expected {"id": "...", "boxes": [[x1, y1, x2, y2], ...]}')
    return [_box(f"box {place}", item) for place, item in enumerate(record["boxes"], start=1)]


def _entity(place: int, item: Any) -> Entity:
    if not isinstance(item, Mapping):
        raise PredictionsError(f'entity {place} is {_shown(item)}; expected {{"start": 0, "end": 1, "type": "PER"}}')
    for name in ("start", "end"):
        if type(item.get(name)) is not int:  # True is an int as well
            raise PredictionsError(f"entity {place}: {name} is {_shown(item.get(name))}; expected a whole number")
    kind = item.get("type")
    if not isinstance(kind, str) or not kind.strip() or not kind.isprintable():
        raise PredictionsError(f"entity {place}: type is {_shown(kind)}; expected a printable string")
    box = item.get("box")
    boxes = () if box is None else (_box(f"entity {place}: box", box),)
    return _shared(item["start"], item["end"], sys.intern(kind), boxes)


@functools.lru_cache(maxsize=2**14)
def _shared(start: int, end: int, kind: str, boxes: tuple[Box, ...]) -> Entity:
    """An entity; equal ones, of which files are full, are one in memory."""
    return Entity(start, end, kind, boxes)


def _packed(entities: Sequence[Entity]) -> Any:
    return [(_storable(entity.start), _storable(entity.end), entity.type, entity.boxes) for entity in entities]


def _unpacked(packed: Any) -> list[Entity]:
    return [_shared(int(start), int(end), kind, boxes) for start, end, kind, boxes in packed]


def _storable(number: int) -> int | str:
    """JSON's whole numbers have no limit, where msgpack's have."""
    return number if abs(number) < 2**63 else str(number)


def _box(name: str, value: Any) -> Box:
    numbers = value if isinstance(value, list) and all(type(number) in (int, float) for number in value) else []
    if len(numbers) == 4:
        x1, y1, x2, y2 = map(_finite, numbers)
        if x1 <= x2 and y1 <= y2 and max(map(abs, (x1, y1, x2, y2))) < math.inf:
            return x1, y1, x2, y2
    raise PredictionsError(f"{name} is {_shown(value)}; expected [x1, y1, x2, y2] in pixels, x1 <= x2 and y1 <= y2")


def _finite(number: float) -> float:
    """A number as a float; infinity where it is too large for one (JSON's whole numbers have no limit)."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)[:60]
