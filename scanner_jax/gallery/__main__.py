"""Make a run's gallery: `python -m scanner_jax.gallery WORKDIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.alignment import EvaluationError
from scanner_jax.corpora import Corpus, CorpusError, own_images, read_corpus
from scanner_jax.files import explain, read_json
from scanner_jax.gallery import LIMIT, GalleryError, Reported, read_report, write_gallery
from scanner_jax.images import ImagesError, find_images
from scanner_jax.predictions import PredictionsError

PROGRAM = "python -m scanner_jax.gallery"

DESCRIPTION = """Make WORKDIR/report/gallery.html of a finished run: a page, in one file, that shows of each test tweet
the entities, gold and predicted, the image with their boxes, and what the prompts were told; with filters by kind of
error and a search. Training writes it too; this command makes it again with images, with runs to compare, or of chosen
tweets.

--without names runs of the same recipe with less knowledge (the paper's Figure 6): each card then says what they made
of its tweet, and filters find the tweets that a kind of knowledge decides."""

EPILOG = f"""examples:
  {PROGRAM} runs/gmner --images data/images
  {PROGRAM} runs/demo --without knowledge=runs/demo-without-knowledge
  {PROGRAM} runs/gmner-small --images data/vinvl/images --ids 111254 153305 O_2371 O_4154

the address may say what is shown: gallery.html#filter=box-wrong&search=lake&objects=on"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0, or 1 with what is wrong on standard error (argparse exits with 2)."""
    options = _parser().parse_args(arguments)
    try:
        print(_run(options))
    except (CorpusError, EvaluationError, GalleryError, ImagesError, PredictionsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    record = _run_record(options.workdir)
    folder = options.corpus or Path(record["config"]["corpus"])
    corpus = read_corpus(folder)
    images = options.images or record["config"].get("images") or own_images(folder)
    run = _reported(options.workdir, corpus)
    without: dict[str, Reported] = {}
    for label, other in options.without:
        if label in without:
            raise GalleryError(f"two runs are without {label}; give each a label of its own")
        without[label] = _reported(other, corpus)
    path = options.out or options.workdir / "report" / "gallery.html"
    found = write_gallery(
        path,
        corpus.splits["test"],
        run,
        corpus=corpus.name,
        scored=corpus.has_gold("test"),
        images=find_images(Path(images)) if images else None,
        without=without,
        ids=options.ids,
        limit=options.limit,
    )
    lines = [f"{found.shown:,} of {found.tweets:,} tweets, {found.pictures:,} with their image -> {path}"]
    if found.scored:
        lines.append(f"  with an error: {found.wrong:,} of {found.tweets:,}")
    if found.groundable:
        lines.append(
            f"  gold boxes within reach of an object in the prompt: {found.in_reach:,} of {found.groundable:,}"
        )
    lines.append(f"  {path.stat().st_size / 2**20:.1f} MiB")
    return "\n".join(lines)


def _run_record(workdir: Path) -> Mapping[str, Any]:
    """What a run's run.json says."""
    path = workdir / "run.json"
    try:
        record: Mapping[str, Any] = read_json(path)
        record["config"]["corpus"], record["corpus"]["sha256"]
        return record
    except FileNotFoundError:
        raise GalleryError(f"{path} is missing: give the folder of a run that training has finished") from None
    except (KeyError, TypeError, ValueError) as error:
        raise GalleryError(f"{path}: not what training writes ({error!r})") from None


def _reported(workdir: Path, corpus: Corpus) -> Reported:
    """A run's report, if it is one on the same corpus."""
    if _run_record(workdir)["corpus"]["sha256"] != corpus.fingerprint:
        raise GalleryError(f"{workdir} is a run on another corpus, or the corpus {corpus.name} was changed since")
    path = workdir / "report" / "metrics.json"
    try:
        recognizer = read_json(path)["recognizer"] or {}
        threshold = recognizer.get("box_threshold")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GalleryError(f"{path}: not what training writes ({error!r})") from None
    return read_report(workdir / "report", corpus.splits["test"], box_threshold=threshold)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=PROGRAM, description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    parser.add_argument("workdir", type=Path, metavar="WORKDIR", help="a finished run's folder: runs/gmner")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="of the corpus's images; default: the run's config.images, or images/ in the corpus",
    )
    parser.add_argument(
        "--without",
        nargs="+",
        action="extend",
        default=[],
        type=_labelled,
        metavar="LABEL=WORKDIR",
        help="runs with less knowledge, and what they are without: caption=runs/no-captions",
    )
    parser.add_argument("--ids", nargs="+", default=[], metavar="ID", help="show these tweets alone")
    parser.add_argument(
        "--limit",
        type=_positive,
        default=LIMIT,
        metavar="N",
        help=f"tweets at most, wrong ones first; default: {LIMIT}",
    )
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="where the corpus lies, if not where it lay")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="default: WORKDIR/report/gallery.html")
    return parser


def _labelled(value: str) -> tuple[str, Path]:
    label, _, folder = value.partition("=")
    if not label.strip() or not folder:
        raise argparse.ArgumentTypeError(f"{value!r}: expected LABEL=WORKDIR, as in caption=runs/no-captions")
    return label.strip(), Path(folder)


def _positive(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r}: expected a whole number from 1 on")
    return int(value)


if __name__ == "__main__":
    sys.exit(main())
