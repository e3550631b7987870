"""Images' objects from VinVL's own TSV: a line is `key<TAB>{"objects": [...]}`, many gigabytes with the features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scanner_jax.images import without_extension
from scanner_jax.store.vinvl_rows import Row, with_attributes
from scanner_jax.types import Box

LINE_LIMIT = 64 * 2**20
"""Bytes of the longest line that is read; a hundred objects with their features need 1.2 million."""

FORM = 'key<TAB>{"objects": [{"rect": [x1, y1, x2, y2], "class": "...", "conf": 0.5}, ...]}'


def read_tsv(path: Path, label: str) -> Iterator[Row | str]:
    """Yield each line's image, or what is wrong with the line and where; a line is all that is held of the file.

    Features are not decoded. Where a `.lineidx` lies beside the file, as VinVL writes it, its length is compared.

    Args:
        path: the TSV.
        label: `objects` for the class alone, `attr_obj` for it with the attributes that VinVL's demo would show; of
            an object without `attributes` it is the class alone.
    """
    number = 0
    with path.open("rb") as file:
        while line := file.readline(LINE_LIMIT + 1):
            number += 1
            place = f"{path}:{number}"
            if not line.endswith(b"\n"):
                cut = "the file is cut short: its last line has no line end; fetch it again, or add one if it is whole"
                yield f"{place}: {f'longer than {LINE_LIMIT:,} bytes' if len(line) > LINE_LIMIT else cut}"
                return
            yield _row(line, place, label)
    index = path.with_suffix(".lineidx")
    if index.is_file() and (listed := _line_count(index)) != number:
        yield f"{path}: {number:,} lines, and {index.name} lists {listed:,}; fetch both again, or delete a stale index"


def _row(line: bytes, place: str, label: str) -> Row | str:
    """The image of one line, or what is wrong with it."""
    try:
        key, tab, text = line.decode("utf-8-sig").partition("\t")
        if not tab or not key.strip():
            return f"{place}: expected {FORM}, found {line[:60]!r}"
        # Numbers are read as floats: an integer of a million digits would be slow, and is no coordinate.
        items = json.loads(text, parse_int=float)["objects"]
        objects = tuple(_object(item, number, label) for number, item in enumerate(items))
        bare = label == "attr_obj" and any("attributes" not in item for item in items)
    except json.JSONDecodeError as error:
        return f"{place}: broken JSON ({error.msg}, character {error.pos + len(key) + 1})"
    except UnicodeDecodeError as error:
        return f"{place}: not UTF-8 ({error.reason} at byte {error.start})"
    except ValueError as error:
        return f"{place}: {error}"
    except (KeyError, TypeError, RecursionError):
        return f"{place}: expected {FORM}"
    return Row(without_extension(key) or key, place, objects, without_attributes=bare)


def _object(item: Mapping[str, Any], number: int, label: str) -> tuple[Box, str, float]:
    rect, name, score = item["rect"], item["class"], item["conf"]
    if not (isinstance(rect, list) and len(rect) == 4 and all(isinstance(side, float) for side in rect)):
        raise ValueError(f"object {number}: rect is {str(rect)[:60]}; expected [x1, y1, x2, y2]")
    if not isinstance(name, str) or not isinstance(score, float):
        raise ValueError(f"object {number}: expected a text as class and a number as conf")
    if label == "attr_obj" and "attributes" in item:
        name = with_attributes(name, *_attributes(item, number))
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"object {number}: the label is not valid Unicode") from error
    x1, y1, x2, y2 = rect
    return (x1, y1, x2, y2), name, score


def _attributes(item: Mapping[str, Any], number: int) -> tuple[list[str], list[float]]:
    """An object's attributes, and how likely each is."""
    names, scores = item["attributes"], item.get("attr_scores")
    if not (
        isinstance(names, list)
        and isinstance(scores, list)
        and len(names) == len(scores)
        and all(isinstance(name, str) for name in names)
        and all(isinstance(score, float) for score in scores)
    ):
        raise ValueError(f"object {number}: expected attributes and attr_scores, as many names as numbers")
    return names, scores


def _line_count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)
