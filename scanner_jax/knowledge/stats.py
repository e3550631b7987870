"""`python -m scanner_jax.knowledge stats STORE`: what a store holds, in words or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.corpora import read_corpus
from scanner_jax.files import explain
from scanner_jax.knowledge.printing import printable
from scanner_jax.knowledge.statistics import OF_EXAMPLES, statistics
from scanner_jax.store import Store

PROGRAM = "python -m scanner_jax.knowledge stats"

DESCRIPTION = """What a knowledge store holds, per kind: records, lengths (words are what blanks separate), what failed
or was skipped and why, and where it came from. With --corpus also for how many of its images (of notes: its examples)
there is something, per split, and how many gold boxes an object covers."""

EPILOG = f"""examples:
  {PROGRAM} prepared/knowledge/twitter2015 --corpus data/twitter2015
  {PROGRAM} prepared/knowledge/twitter2015 --json | jq .kinds.captions.failures"""

_ALIKE = ("format", "kind", "count", "bytes", "keys_sha256", "sources")
"""Of the provenance, what says nothing about the source, or stands in lines of its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand; returns its exit status: 0, or 1 with what is wrong on standard error."""
    options = _parser().parse_args(arguments)
    try:
        corpus = None if options.corpus is None else read_corpus(options.corpus)
        found = statistics(Store.open(options.store), corpus)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    except ValueError as error:  # StoreError, CorpusError
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found, indent=2) if options.json else "\n".join(map(printable, _lines(found))))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="store folder: prepared/knowledge/NAME")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="the corpus: data/twitter2015")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    return parser


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"{found['store']}: {', '.join(found['kinds'])}"
    if "corpus" in found:
        yield f"corpus: {found['corpus']['name']} ({found['corpus']['variant']})"
    for shards in found["begun"]:
        listed = ", ".join(map(str, shards["shards"]))
        yield f"begun, not merged: {shards['kind']}, shards {listed} of {shards['of']}"
    for kind, told in found["kinds"].items():
        yield ""
        yield from _kind_lines(kind, told)


def _kind_lines(kind: str, told: Mapping[str, Any]) -> Iterator[str]:
    unit = "examples" if kind in OF_EXAMPLES else "images"
    yield f"{kind}: {told['records']:,} {unit}" + (f", {told['empty']:,} of them empty" if told["empty"] else "")
    for split, share in told.get("coverage", {}).items():
        percent = "" if share["percent"] is None else f" ({share['percent']:.2f} %)"
        yield f"  {split}: {share['have']:,} of {share['of']:,} {unit}{percent}"
    for split, reach in told.get("reach", {}).items():
        if reach["support"]:
            share = f"{reach['covered']:,} of {reach['support']:,} ({reach['recall']:.2f} %)"
            rank = f", the first of them at rank {reach['last_rank']} or before" if reach["covered"] else ""
            yield f"  {split}, groundable entities with an object that is theirs: {share}{rank}"
    if told.get("other_boxes"):
        yield f"  of other boxes than objects has, so of no use: {told['other_boxes']:,}"
    for of, length in told["lengths"].items():
        middle = f"mean {length['mean']:,}, median {length['median']:,}"
        yield f"  {of}: {middle}, 95 % to {length['p95']:,}, at most {length['max']:,}"
    if "labels" in told:
        common = ", ".join(f"{label} ({count:,})" for label, count in told["labels"]["common"])
        yield f"  labels: {told['labels']['different']:,}" + (f", above all {common}" if common else "")
    for reason, failed in told["failures"].items():
        shown = ", ".join([*failed["places"], *(["..."] if failed["count"] > len(failed["places"]) else [])])
        yield f"  {reason}: {failed['count']:,}" + (f" ({shown})" if failed["places"] else "")
    yield from _provenance_lines(told["provenance"])


def _provenance_lines(provenance: Mapping[str, Any]) -> Iterator[str]:
    for name, value in provenance.items():
        if name not in _ALIKE:
            yield f"  {name.replace('_', ' ')}: {_flat(value)}"
    for source in provenance.get("sources", ()):
        yield f"  source: {_flat(source)}"


def _flat(value: Any) -> str:
    """JSON in a line that reads well."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_flat(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "; ".join(map(_flat, value))
    return value if isinstance(value, str) else json.dumps(value)
