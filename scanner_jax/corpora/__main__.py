"""`python -m scanner_jax.corpora check FOLDER`: what a corpus holds, or everything that is wrong with it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scanner_jax.corpora import images
from scanner_jax.corpora.corpus import Corpus, read_corpus
from scanner_jax.corpora.layouts import LAYOUTS, SPLITS
from scanner_jax.corpora.problems import CorpusError
from scanner_jax.images import ImagesError

_SHOWN = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 for a corpus that can't be read (argparse exits with 2)."""
    options = _parser().parse_args(arguments)
    try:
        corpus = read_corpus(options.folder)
        checked = _check_images(corpus, options)
    except (CorpusError, ImagesError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:  # a folder that may not be looked into
        print(f"{error.filename or options.folder}: {error.strerror or error}", file=sys.stderr)
        return 1
    print("\n".join([report(corpus), *checked]))
    return 0


def report(corpus: Corpus) -> str:
    """A corpus's counts per split and type, with and without boxes, its scheme, variant and fingerprint, as text."""
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
        *([*_table(_box_rows(corpus)), ""] if corpus.annotations else []),
        *tags,
        *_boxes(corpus),
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


def _box_rows(corpus: Corpus) -> list[list[str]]:
    """Entities with a box and without one, of each type and of all."""
    splits = {name: split for name, split in corpus.split_fingerprints.items() if split.entities is not None}
    rows = [["groundable / not", *splits, "all"]]
    for kinds, title in [*(([kind], kind) for kind in corpus.types), (list(corpus.types), "all")]:
        pairs = [
            (
                sum(split.groundable.get(kind, 0) for kind in kinds),
                sum((split.entities or {}).get(kind, 0) for kind in kinds),
            )
            for split in splits.values()
        ]
        pairs.append((sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)))
        rows.append([title, *(f"{groundable:,} / {count - groundable:,}" for groundable, count in pairs)])
    return rows


def _boxes(corpus: Corpus) -> list[str]:
    if not corpus.annotations:
        return []
    boxes = sum(len(annotation.objects) for annotation in corpus.annotations.values())
    entities = (entity for split in corpus.splits.values() for example in split for entity in example.entities)
    most = max((len(entity.boxes) for entity in entities), default=0)
    return [f"boxes:       {boxes:,} in {len(corpus.annotations):,} files of xml/; one entity has up to {most}"]


def _check_images(corpus: Corpus, options: argparse.Namespace) -> list[str]:
    """What the images say of the boxes, where there are both."""
    folder = options.images or images.own_images(options.folder)
    if not corpus.annotations or folder is None:
        return []
    found = images.check_images(corpus.annotations, folder)
    lines = [f"images:      {found.equal:,} of those in xml/ have the size stated there"]
    others = {
        "of another size": found.other,
        "that cannot be read": found.unreadable,
        f"not in {folder}": found.missing,
    }
    for what, places in others.items():
        if places:
            shown = "; ".join(places[:_SHOWN]) + ("; ..." if len(places) > _SHOWN else "")
            lines.append(f"warning:     {len(places):,} images {what}: {shown}")
    return lines


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
        "entities per type, how many of them have a box, the tagging scheme, which published variant it is, and a "
        "fingerprint; names in xml/ that no entity has, and boxes that cannot be right. Nothing is written.",
        epilog=_layouts(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("folder", metavar="FOLDER", help="the corpus, for example data/twitter2015")
    check.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="compare the sizes stated in xml/ with these images; default: FOLDER/images where there is one",
    )
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
        "Boxes: xml/<image id>.xml, Pascal VOC, whose objects are named with entities' words joined by single spaces.",
        "",
        "Exit code: 0 where the corpus can be used (what is odd about it only warns),",
        "1 where it can't, with every problem's file and line, 2 for wrong arguments.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
