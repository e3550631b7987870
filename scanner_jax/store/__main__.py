"""Command line of the knowledge store: `python -m scanner_jax.store import {captions,notes,...} ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.corpora import read_corpus
from scanner_jax.store.importers import read_captions, read_notes
from scanner_jax.store.layout import Value, read_provenance
from scanner_jax.store.leaks import find_labels, leak_table, leak_warnings
from scanner_jax.store.notes_jsonl import read_notes_jsonl
from scanner_jax.store.reader import Store
from scanner_jax.store.sources import Imported
from scanner_jax.store.vinvl import LABELS, read_vinvl
from scanner_jax.store.writer import write_kind

SHOWN_PLACES = 5

EPILOG = """examples:
  python -m scanner_jax.store import captions data/captions/BLIP2_15.txt prepared/knowledge/twitter2015
  python -m scanner_jax.store import notes data/chatgpt/twitter2015 prepared/knowledge/twitter2015 \\
      --corpus data/twitter2015
  python -m scanner_jax.store import notes-jsonl my-notes.jsonl prepared/knowledge/own --corpus my-corpus
  python -m scanner_jax.store import vinvl data/vinvl prepared/knowledge/twitter2015 --label attr_obj
  python -m scanner_jax.store import vinvl predictions.tsv prepared/knowledge/own --label objects

Wikipedia has a command of its own: python -m scanner_jax.knowledge wikipedia build SOURCE INDEX

Captions, notes and objects of one corpus share one store: each import replaces its own kind and leaves the others.
Both forms of notes are one kind. What an import skipped is listed in the kind's provenance.json."""


VINVL = """Import VinVL's objects, from either form; the features in them are left alone.

  TSV  lines of key<TAB>{"objects": [{"rect": [x1, y1, x2, y2], "class": "car", "conf": 0.5}, ...]}; the key is an
       image id or its file name. With --label attr_obj the class stands after its likely attributes, as VinVL's demo
       writes them, where the objects have "attributes" and "attr_scores"; otherwise alone, which is said.
  npz  files named <image id>.npz or <image id>.jpg.npz with bounding_boxes, scores, objects and attr_obj

Boxes that are none are dropped and listed; a file cut short, a broken line and an image that comes twice are errors."""

CHECK = """Look for a corpus's gold entities in the notes on their own example, verbatim, and count per split:

  surface  the entity's words
  pair     the words, and close to them the type: 'Reds (organization)', 'Reds: ORG', 'organization: Reds'
  label    such a pair with the type as the corpus spells it: 'Reds: ORG', 'Reds B-ORG'

Honest notes name many entities and some types, alike in all splits. A warning says where dev or test stands out
against train: then its labels may have been at hand when the notes were written."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 with every problem on standard error."""
    options = _parser().parse_args(arguments)
    if options.command is None:  # the spelling before the command of its own
        from scanner_jax.knowledge.__main__ import main as knowledge

        return knowledge(["wikipedia", "build", options.source, options.target])
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
    kinds = importer.add_subparsers(required=True, metavar="{captions,notes,notes-jsonl,vinvl,wikipedia}")

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

    text = "notes as JSON lines, on examples {id, text} or on their words {id, start, end, text}, end exclusive"
    notes_jsonl = kinds.add_parser("notes-jsonl", help=text, description=f"Import {text}.")
    notes_jsonl.add_argument("source", type=Path, metavar="FILE", help="the JSONL file; ids as in predictions.jsonl")
    notes_jsonl.add_argument("target", type=Path, metavar="TARGET", help="store folder: prepared/knowledge/NAME")
    notes_jsonl.add_argument("--corpus", type=Path, metavar="FOLDER", help="check ids and spans against this corpus")
    notes_jsonl.set_defaults(command=_import_notes_jsonl)

    text = "VinVL's objects, from its own TSV or from npz files, one per image"
    vinvl = kinds.add_parser("vinvl", help=text, description=VINVL, formatter_class=raw)
    vinvl.add_argument("source", nargs="+", type=Path, metavar="SOURCE", help="npz and TSV files, or folders of them")
    vinvl.add_argument("target", type=Path, metavar="TARGET", help="store folder: prepared/knowledge/NAME")
    vinvl.add_argument(
        "--label", choices=LABELS, default=LABELS[0], help="the class with its attributes (the default), or alone"
    )
    vinvl.set_defaults(command=_import_vinvl)

    wikipedia = kinds.add_parser("wikipedia", help="the same as: python -m scanner_jax.knowledge wikipedia build")
    wikipedia.add_argument("source", metavar="SOURCE", help="a dump or a JSONL file")
    wikipedia.add_argument("target", metavar="INDEX", help="SQLite file: prepared/wikipedia.sqlite")
    wikipedia.set_defaults(command=None)

    check = commands.add_parser(
        "check", help="do the notes give the gold labels away?", description=CHECK, formatter_class=raw
    )
    check.add_argument("target", type=Path, metavar="STORE", help="store folder: prepared/knowledge/NAME")
    check.add_argument("corpus", type=Path, metavar="CORPUS", help="the corpus: data/twitter2015")
    check.set_defaults(command=_check)
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


def _import_notes_jsonl(options: argparse.Namespace) -> None:
    corpus = None if options.corpus is None else read_corpus(options.corpus)
    imported = read_notes_jsonl(options.source, None if corpus is None else corpus.splits)
    provenance = imported.provenance("notes-jsonl", 1)
    if corpus is not None:
        provenance["corpus"] = {"name": corpus.name, "variant": corpus.variant, "fingerprint": corpus.fingerprint}
    write_kind(options.target, "notes", imported.records, provenance)
    _print_summary("notes", imported, options.target)


def _import_vinvl(options: argparse.Namespace) -> None:
    imported = read_vinvl(options.source, label=options.label)
    provenance: dict[str, Any] = {"label": options.label, "objects": 0}

    def records() -> Iterator[tuple[str, Value]]:
        for image, value in imported.records:
            provenance["objects"] += len(value["objects"])
            yield image, value
        provenance.update(imported.provenance("vinvl", 1))

    write_kind(options.target, "objects", records(), provenance)
    _print_summary("objects", imported, options.target, of="images")
    print(f"  objects in all: {provenance['objects']:,}")


def _check(options: argparse.Namespace) -> None:
    corpus, store = read_corpus(options.corpus), Store.open(options.target)

    def notes(identity: str) -> str:
        value = store.get("notes", identity) or {"text": ""}
        return "\n".join([value["text"], *(text for _, _, text in value.get("spans", ()))]).strip()

    found = {split: find_labels(examples, notes) for split, examples in corpus.splits.items() if corpus.has_gold(split)}
    print(f"{corpus.name} ({corpus.variant}): gold entities in the notes of {options.target}")
    print(leak_table(found), end="")
    print("\n".join(f"warning: {text}" for text in leak_warnings(found)) or "no split stands out against train")


def _print_summary(kind: str, imported: Imported, target: Path, *, of: str | None = None) -> None:
    print(f"{read_provenance(target / kind)['count']:,} {of or kind} -> {target / kind}")
    for remark, places in imported.remarks.items():
        shown = ", ".join(places[:SHOWN_PLACES]) + (", ..." if len(places) > SHOWN_PLACES else "")
        print(f"  {remark}: {len(places):,}" + (f" ({shown})" if places else ""))


if __name__ == "__main__":
    sys.exit(main())
