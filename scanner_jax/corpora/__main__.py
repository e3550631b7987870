"""`python -m scanner_jax.corpora check FOLDER`: what a corpus holds, or everything that is wrong with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from scanner_jax.corpora.corpus import Corpus, read_corpus
from scanner_jax.corpora.readers import LAYOUTS, SPLITS, CorpusError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for a corpus that can't be read (argparse exits with 2)."""
    options = _parser().parse_args(arguments)
    try:
        corpus = read_corpus(options.folder)
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 1
    print(report(corpus))
    return 0


def report(corpus: Corpus) -> str:
    """A corpus's counts per split and type, its variant and its fingerprint, as text."""
    rows = [["split", "sentences", "tokens", "entities", *corpus.types]]
    for name, split in corpus.split_fingerprints.items():
        counts = [split.entities.get(kind, 0) for kind in corpus.types]
        rows.append([name, *(f"{n:,}" for n in (split.sentences, split.tokens, sum(counts), *counts))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines += ["", f"variant:     {corpus.variant}", f"fingerprint: {corpus.fingerprint}"]
    return "\n".join([*lines, *(f"warning:     {warning}" for warning in corpus.warnings)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.corpora", description="Look at the corpora that models are trained on."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    check = commands.add_parser(
        "check",
        help="count and fingerprint a corpus, or list everything that is wrong with it",
        description="Read a corpus as training would and print sentences, tokens and entities per split and type, "
        "which published variant it is, and its fingerprint. Nothing is written.",
        epilog=_layouts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("folder", metavar="FOLDER", help="the corpus, for example data/twitter2015")
    return parser


def _layouts() -> str:
    lines = ["A corpus is recognised by the files in its folder:"]
    for layout in LAYOUTS:
        files = ", ".join(" or ".join(layout.files[split]) for split in SPLITS)
        lines += [f"  {layout.name}: {files}", f"      {layout.row}; types {', '.join(sorted(layout.types))}"]
    lines += [
        "In the Twitter corpora a line IMGID:<image id> goes before each tweet. A blank line ends a sentence.",
        "",
        "Exit code: 0 where the corpus can be used (counts of no known variant only warn),",
        "1 where it can't, with every problem's file and line, 2 for wrong arguments.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
