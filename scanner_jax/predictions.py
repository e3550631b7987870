"""The predictions format: JSON lines that any system can write, and the same as columns for conlleval.

One object a line: `{"id": "...", "entities": [{"start": 0, "end": 2, "type": "PER"}, ...]}`. Words are counted from 0
and `end` is exclusive. Scanner's own predictions have more fields, which a reader may use and scores do not.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.tags import tags_from_entities
from scanner_jax.types import Entity, Example

SHOWN_PROBLEMS = 50

CONLLEVAL_BOUNDARY = "-X-"
"""A word that conlleval takes for the end of a sentence."""


class PredictionsError(ValueError):
    """A file that is not in the predictions format; the message lists every malformed line, the first 50 in words."""


def prediction_record(example: Example, entities: Sequence[tuple[Entity, float]]) -> dict[str, Any]:
    """One line of the predictions format.

    Args:
        example: the sentence.
        entities: its predicted entities with the probability of their type.

    Returns:
        `id` and `entities`; each entity with `start`, `end` (words, end exclusive), `start_char`, `end_char`
        (in the words joined by single spaces), `text`, `type`, `score` and `box` ([x1, y1, x2, y2] pixels or None).
    """
    records = []
    for entity, score in sorted(entities, key=lambda item: item[0].span):
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
            }
        )
    return {"id": example.id, "entities": records}


def read_predictions(path: Path) -> dict[str, list[Entity]]:
    """Read a file in the predictions format, of whatever system.

    Of an entity only `start`, `end` and `type` are read. Blank lines are passed over.

    Args:
        path: the JSON lines file, in UTF-8.

    Returns:
        Each id's entities as they stand, in the file's order; whether ids and spans exist is not checked here.

    Raises:
        PredictionsError: a line is no JSON (NaN and Infinity are none), lacks a field, has one of another kind, or
            gives an id a second time.
        OSError: the file cannot be read.
    """
    found: dict[str, list[Entity]] = {}
    problems: list[str] = []
    with path.open("rb") as file:  # binary, so that lines end at LF alone
        for number, raw in enumerate(file, start=1):
            if not raw.strip():
                continue
            try:
                identity, entities = _record(raw.removesuffix(b"\n").decode("utf-8-sig" if number == 1 else "utf-8"))
                if identity in found:
                    raise PredictionsError(f"id {identity!r} has a line already; expected one line for each id")
                found[identity] = entities
            except UnicodeDecodeError as error:
                problems.append(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start})")
            except PredictionsError as error:
                problems.append(f"{path}:{number}: {error}")
    if problems:
        more = [f"... and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        raise PredictionsError("\n".join([f"{len(problems)} malformed lines", *problems[:SHOWN_PROBLEMS], *more]))
    return found


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


def _record(line: str) -> tuple[str, list[Entity]]:
    """Id and entities of one line; a PredictionsError says what is wrong with it."""
    try:
        record = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise PredictionsError(f"not JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"not JSON that can be read ({error})") from None
    if not isinstance(record, Mapping) or not isinstance(record.get("entities"), list):
        raise PredictionsError('expected {"id": "...", "entities": [...]}')
    if not isinstance(record.get("id"), str):
        raise PredictionsError(f"id is {_shown(record.get('id'))}; expected a string")
    return record["id"], [_entity(place, item) for place, item in enumerate(record["entities"], start=1)]


def _entity(place: int, item: Any) -> Entity:
    if not isinstance(item, Mapping):
        raise PredictionsError(f'entity {place} is {_shown(item)}; expected {{"start": 0, "end": 1, "type": "PER"}}')
    for name in ("start", "end"):
        if type(item.get(name)) is not int:  # True is an int as well
            raise PredictionsError(f"entity {place}: {name} is {_shown(item.get(name))}; expected a whole number")
    kind = item.get("type")
    if not isinstance(kind, str) or not kind.strip() or not kind.isprintable():
        raise PredictionsError(f"entity {place}: type is {_shown(kind)}; expected a printable string")
    return _shared(item["start"], item["end"], sys.intern(kind))


@functools.lru_cache(maxsize=2**14)
def _shared(start: int, end: int, kind: str) -> Entity:
    """An entity; equal ones, of which files are full, are one in memory."""
    return Entity(start, end, kind)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value)[:60]
