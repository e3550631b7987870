"""Command line of the knowledge store: `python -m scanner_jax.store import {captions,notes,wikipedia} ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scanner_jax.corpora import read_corpus
from scanner_jax.store.importers import Imported, file_sha256, read_captions, read_notes, read_pages
from scanner_jax.store.writer import write_kind

SHOWN_PLACES = 5

EPILOG = """examples:
  python -m scanner_jax.store import captions data/captions/BLIP2_15.txt prepared/knowledge/twitter2015
  python -m scanner_jax.store import notes data/chatgpt/twitter2015 prepared/knowledge/twitter2015 \\
      --corpus data/twitter2015
  python -m scanner_jax.store import wikipedia data/wikipedia/abstracts.jsonl prepared/wikipedia.sqlite

Captions and notes of one corpus share one store: each import replaces its own kind and leaves the others."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 with every problem on standard error."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except OSError as error:
        print(f"error: {error.filename or options.target}: {error.strerror or error}", file=sys.stderr)
        return 1
    except ValueError as error:  # StoreError, WikipediaError and what the corpora room reports
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m scanner_jax.store", description="The knowledge store.", epilog=EPILOG, formatter_class=raw
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    importer = commands.add_parser(
        "import", help="read published knowledge files", description="Read published knowledge files.", epilog=EPILOG,
        formatter_class=raw,
    )  # fmt: skip
    kinds = importer.add_subparsers(required=True, metavar="{captions,notes,wikipedia}")

    text = "BLIP-2 captions, lines of 'IMAGE.jpg :caption', keyed by the image's name without its extension"
    captions = kinds.add_parser("captions", help=text, description=f"Import {text}.")
    captions.add_argument("source", nargs="+", type=Path, metavar="SOURCE", help="one caption file or several")
    captions.add_argument("target", type=Path, metavar="TARGET", help="store folder: prepared/knowledge/NAME")
    captions.set_defaults(command=_import_captions)

    text = "a language model's notes in PGIM's form, aligned with their corpus token by token"
    notes = kinds.add_parser("notes", help=text, description=f"Import {text}.")
    notes.add_argument("source", type=Path, metavar="SOURCE", help="folder with train.txt, valid.txt and test.txt")
    notes.add_argument("target", type=Path, metavar="TARGET", help="store folder: prepared/knowledge/NAME")
    notes.add_argument("--corpus", type=Path, required=True, metavar="FOLDER", help="the corpus: data/twitter2015")
    notes.set_defaults(command=_import_notes)

    text = "a Wikipedia index from JSON lines of {title, text}"
    wikipedia = kinds.add_parser("wikipedia", help=text, description=f"Build {text}.")
    wikipedia.add_argument("source", type=Path, metavar="SOURCE", help="the JSONL file")
    wikipedia.add_argument("target", type=Path, metavar="TARGET", help="SQLite file: prepared/wikipedia.sqlite")
    wikipedia.set_defaults(command=_import_wikipedia)
    return parser


def _import_captions(options: argparse.Namespace) -> None:
    imported = read_captions(options.source)
    write_kind(options.target, "captions", imported.records, imported.provenance("captions", 1))
    _print_summary("captions", imported, options.target)


def _import_notes(options: argparse.Namespace) -> None:
    corpus = read_corpus(options.corpus)
    imported = read_notes(options.source, corpus.splits)
    described = {"name": corpus.name, "variant": corpus.variant, "fingerprint": corpus.fingerprint}
    provenance = {**imported.provenance("notes", 1), "corpus": described}
    write_kind(options.target, "notes", imported.records, provenance)
    _print_summary("notes", imported, options.target)


def _import_wikipedia(options: argparse.Namespace) -> None:
    # The index's room lies below the store's and shares its command line, so it is reached from here alone.
    from scanner_jax import wikipedia

    source = {"file": options.source.name, "sha256": file_sha256(options.source)} if options.source.is_file() else {}
    counts = wikipedia.build(
        read_pages(options.source), options.target, provenance={"importer": "jsonl", "sources": [source]}
    )
    print(f"{counts.pages:,} pages -> {options.target}")
    print(f"  skipped, title seen before: {counts.duplicates:,}")
    print(f"  skipped, no text: {counts.empty:,}")


def _print_summary(kind: str, imported: Imported, target: Path) -> None:
    print(f"{len(imported.records):,} {kind} -> {target / kind}")
    for remark, places in imported.remarks.items():
        shown = ", ".join(places[:SHOWN_PLACES]) + (", ..." if len(places) > SHOWN_PLACES else "")
        print(f"  {remark}: {len(places):,}" + (f" ({shown})" if places else ""))


if __name__ == "__main__":
    sys.exit(main())
