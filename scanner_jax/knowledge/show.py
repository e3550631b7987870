"""`python -m scanner_jax.knowledge show STORE ID`: what a store knows of one image, or of one example."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.files import explain
from scanner_jax.knowledge.printing import printable
from scanner_jax.store import Store, StoreError, import_command

PROGRAM = "python -m scanner_jax.knowledge show"

DESCRIPTION = """What a knowledge store has of an image: its caption, and its objects in order, each with score, box
(x1, y1, x2, y2 in pixels), label and its region's caption. Of an example, its notes. An id that is both gives both."""

EPILOG = f"""examples:
  {PROGRAM} prepared/knowledge/twitter2015 17_06_4705
  {PROGRAM} prepared/knowledge/twitter2015 17_06_4705 --span "Steve Kerr"
  {PROGRAM} prepared/knowledge/own train-0"""

CLOSEST = 5

DETECTOR_ORDER = "the detector's score"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand; returns its exit status: 0, or 1 with what is wrong on standard error."""
    options = _parser().parse_args(arguments)
    try:
        store = Store.open(options.store)
        order, ordered_by = _by_clip(store, options) if options.span else (None, DETECTOR_ORDER)
        found = look_up(store, options.id, order=order, ordered_by=ordered_by)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except ValueError as error:  # StoreError
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if options.json else "\n".join(map(printable, _lines(found))))
    return 0


def look_up(
    store: Store, key: str, *, order: Sequence[int] | None = None, ordered_by: str = DETECTOR_ORDER
) -> dict[str, Any]:
    """What a store knows of one image or example.

    Args:
        store: an opened store.
        key: an image's id, an example's, or one that is both.
        order: places of the image's objects, as they shall stand; None leaves them as they are.
        ordered_by: what that is the order of.

    Returns:
        JSON: `id`; `caption`; `objects` with `box`, `label`, `score` and `caption`, in the order that `order` tells;
        `notes`, the one on the example, and `span_notes`, [start, end, text]. What the store has not is left out.

    Raises:
        StoreError: it knows no such id; names those closest to it. Or a record is damaged.
    """
    kinds = [kind for kind in ("captions", "objects", "notes") if kind in store.kinds and store.get(kind, key)]
    if not kinds:
        raise StoreError(_unknown(store, key))
    found: dict[str, Any] = {"id": key}
    if "captions" in kinds:
        found["caption"] = store.caption(key)
    if "objects" in kinds:
        objects = store.objects(key)
        places = range(len(objects)) if order is None else order
        found |= {"order": ordered_by, "objects": [dataclasses.asdict(objects[place]) for place in places]}
    if "notes" in kinds:
        found["notes"] = store.notes(key) or ""
        found["span_notes"] = [[span.start, span.end, text] for span, text in store.span_notes(key).items()]
    return found


def _by_clip(store: Store, options: argparse.Namespace) -> tuple[list[int] | None, str]:
    """The order of the image's objects by CLIP, as in a recipe's prompts, and its name."""
    if "clip" not in store.kinds:
        command = import_command("clip", store.folder)
        return None, f"{DETECTOR_ORDER}, as the store has no vectors of CLIP ({command})"
    ranking = importlib.import_module("scanner_jax.knowledge.ranking")  # torch, which nothing else here needs
    ranker = ranking.open_ranker(store, options.model)
    (order,) = ranker.orders([ranking.Query(options.id, options.span)])
    text = ranker.template.replace("{}", options.span)
    none = f"{DETECTOR_ORDER}, as the image has no vectors of CLIP"
    return order, none if order is None else f"CLIP's similarity to {printable(text)!r}"


def _unknown(store: Store, key: str) -> str:
    known = dict.fromkeys(known for kind in store.kinds for known in store.keys(kind))
    closest = difflib.get_close_matches(key, known, n=CLOSEST)
    said = "the closest are" if closest else "it knows, for instance,"
    listed = ", ".join(map(printable, closest or list(known)[:CLOSEST]))
    return f"{store.folder} knows no image or example {printable(key)}; {said} {listed}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="store folder: prepared/knowledge/NAME")
    parser.add_argument("id", metavar="ID", help="an image's id, or an example's")
    parser.add_argument(
        "--span", metavar="TEXT", help="words of a sentence: objects in the order of CLIP's similarity to them"
    )
    parser.add_argument("--model", help="for --span, the CLIP that made the vectors; by default as the store names it")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    return parser


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield found["id"]
    if "caption" in found:
        yield f"caption: {found['caption']}"
    if "objects" in found:
        yield f"objects: {len(found['objects']):,}, in the order of {found['order']}"
    for number, item in enumerate(found.get("objects", ()), 1):
        box = ", ".join(f"{side:.0f}" for side in item["box"])
        caption = f": {item['caption']}" if item["caption"] else ""
        yield f"  {number:3}. {item['score']:.2f}  [{box}]  {item['label']}{caption}"
    if found.get("notes"):
        yield f"notes: {found['notes']}"
    for start, end, text in found.get("span_notes", ()):
        yield f"notes on words {start} to {end - 1}: {text}"
