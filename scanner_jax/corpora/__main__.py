"""`python -m scanner_jax.corpora check FOLDER`: what a corpus holds, or everything that is wrong with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scanner_jax.corpora.corpus import Corpus, read_corpus
from scanner_jax.corpora.layouts import LAYOUTS, SPLITS
from scanner_jax.corpora.problems import CorpusError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for a corpus that can't be read (argparse exits with 2)."""
    options = _parser().parse_args(arguments)
    try:
        corpus = read_corpus(options.folder)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # a folder that may not be looked into
        print(f"{error.filename or options.folder}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(report(corpus))
    return 0


def report(corpus: Corpus) -> str:
    """A corpus's counts per split and type, its tagging scheme, variant and fingerprint, as text."""
    schemes = {name: str(corpus.schemes[name]) if corpus.has_gold(name) else "none" for name in corpus.splits}
    if len(set(schemes.values())) == 1:
        tags = [f"tags:        {schemes['train']}"]
    else:
        tags = [f"tags:        {name} {scheme}" for name, scheme in schemes.items()]
    lines = [
        *_table(_split_rows(corpus)),
        "",
        *_table(_type_rows(corpus)),
        "",
        *tags,
        f"variant:     {corpus.variant}",
        f"fingerprint: {corpus.fingerprint}",
        *(f"warning:     {warning}" for warning in corpus.warnings),
    ]
    return "\n".join(lines)


def _split_rows(corpus: Corpus) -> list[list[str]]:
    rows = [["split", "sentences", "tokens", "images", "entities"]]
    for name, split in corpus.split_fingerprints.items():
        images = {example.image_id for example in corpus.splits[name]} - {None}
        entities = "no gold" if split.entities is None else f"{sum(split.entities.values()):,}"
        rows.append([name, f"{split.sentences:,}", f"{split.tokens:,}", f"{len(images):,}", entities])
    return rows


def _type_rows(corpus: Corpus) -> list[list[str]]:
    counts = {name: split.entities for name, split in corpus.split_fingerprints.items() if split.entities is not None}
    rows = [["type", *counts, "all"]]
    for kind in corpus.types:
        numbers = [split.get(kind, 0) for split in counts.values()]
        rows.append([kind, *(f"{number:,}" for number in (*numbers, sum(numbers)))])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.corpora", description="Look at the corpora that models are trained on."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="count and fingerprint a corpus, or list everything that is wrong with it",
        description="Read a corpus as training would and print sentences, tokens, images and entities per split, "
        "entities per type, the tagging scheme, which published variant it is, and a fingerprint. Nothing is written.",
        epilog=_layouts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("folder", metavar="FOLDER", help="the corpus, for example data/twitter2015")
    return parser


def _layouts() -> str:
    lines = ["A corpus is recognised by the files in its folder:"]
    for layout in LAYOUTS:
        files = ", ".join(layout.wanted(split) for split in SPLITS)
        lines += [f"  {layout.name}: {files}", f"      {layout.row}"]
    lines += [
        "A blank line, or a -DOCSTART- row, ends a sentence. Tags may be IOB1, IOB2, BIOES or BILOU; what is none of",
        "them is read leniently. Data of your own may lack dev, and its dev and test may have words alone, one a line:",
        "they are predicted then, and not scored. Other files in the folder are left alone.",
        "",
        "Exit code: 0 where the corpus can be used (what is odd about it only warns),",
        "1 where it can't, with every problem's file and line, 2 for wrong arguments.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
