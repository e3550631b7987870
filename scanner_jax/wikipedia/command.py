"""Command line of the Wikipedia index: `python -m scanner_jax.knowledge wikipedia {build,lookup} ...`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from scanner_jax.files import explain
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.wikipedia.layout import LOOKUPS, WikipediaError
from scanner_jax.wikipedia.lookup import DEFAULT_LOOKUPS, FULLTEXT_SCORE, Hit, WikipediaIndex, lookup_problem
from scanner_jax.wikipedia.resuming import Built, build_source

PROGRAM = "python -m scanner_jax.knowledge wikipedia"

SHOWN_FAILURES = 5

EPILOG = f"""examples:
  {PROGRAM} build enwiki-latest-pages-articles-multistream.xml.bz2 prepared/wikipedia.sqlite
  {PROGRAM} build data/wikipedia/abstracts.jsonl prepared/wikipedia.sqlite
  {PROGRAM} lookup prepared/wikipedia.sqlite "Steve Kerr" "#SteveKerr"

A dump is MediaWiki's pages-articles, packed with bzip2 (multistream or not) or plain; otherwise one {{"title": ...,
"text": ...}} a line. A build is written aside and renamed when it is whole. One that was stopped, by whatever, goes on
with the same command (--workers may change); a source that is not the one it has read is refused."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 with what is wrong on standard error."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        with leaving_at_signals():
            return command(options)
    except WikipediaError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    except Interrupted as error:
        again = ""
        if command is _build:
            words = [os.fspath(options.source), os.fspath(options.index), f"--workers={options.workers}"]
            again = f"; an index that was there before is unchanged. Go on: {PROGRAM} build {shlex.join(words)}"
        print(f"stopped by {error.signal.name}{again}", file=sys.stderr)
        return error.exit_code
    return 1


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    text = "Wikipedia's texts by the names of their pages, in one SQLite file."
    parser = argparse.ArgumentParser(prog=PROGRAM, description=text, epilog=EPILOG, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="build an index from a dump, or from JSON lines of {title, text}")
    build.add_argument("source", type=Path, metavar="SOURCE", help="a pages-articles dump, or a JSONL file")
    build.add_argument("index", type=Path, metavar="INDEX", help="SQLite file: prepared/wikipedia.sqlite")
    build.add_argument(
        "--workers",
        type=_count,
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes that strip markup; all cores",
    )
    build.add_argument(
        "--restart", action="store_true", help="drop what an earlier build of INDEX that was stopped has read"
    )
    build.set_defaults(command=_build)
    lookup = commands.add_parser("lookup", help="look mentions up: title, how it was found, text")
    lookup.add_argument("index", type=Path, metavar="INDEX", help="SQLite file: prepared/wikipedia.sqlite")
    lookup.add_argument("mentions", nargs="+", metavar="MENTION", help='such as "Steve Kerr" or "#SteveKerr"')
    lookup.add_argument(
        "--lookups",
        type=_lookups,
        default=LOOKUPS,
        metavar="KINDS",
        help=f"the ways to try, separated by commas: {','.join(LOOKUPS)} (the default here; "
        f"training's is {','.join(DEFAULT_LOOKUPS)})",
    )
    lookup.add_argument(
        "--score", type=float, default=FULLTEXT_SCORE, help="full-text hits below it are none, 0 to 1 (%(default)s)"
    )
    lookup.set_defaults(command=_lookup)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


def _lookups(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    if problem := lookup_problem(kinds):
        raise argparse.ArgumentTypeError(f"{text!r}: {problem}, separated by commas")
    return kinds


def _build(options: argparse.Namespace) -> int:
    started = time.monotonic()
    built = build_source(options.source, options.index, workers=options.workers, restart=options.restart)
    _print_summary(options.index, built, time.monotonic() - started)
    return 0


def _print_summary(index: Path, built: Built, seconds: float) -> None:
    counts, report = built.counts, built.report
    read = report.read - built.before
    print(f"{counts.pages:,} pages -> {index} ({index.stat().st_size / 1e6:,.0f} MB)")
    if built.before:
        print(f"  read before: {built.before:,}, now: {read:,}")
    print(f"  took {seconds:,.1f} s, {read / seconds:,.0f} pages of the source a second")
    if report.kind == "dump":
        print(f"  redirects: {counts.redirects:,}, and {counts.lost_redirects:,} that lead to no page of the index")
        lists = f"{counts.disambiguations:,}, and {counts.lost_disambiguations:,} that list no page of the index"
        print(f"  disambiguation pages: {lists}")
        print(f"  skipped, other namespaces: {report.other_namespaces:,}")
    print(f"  skipped, title seen before: {counts.duplicates:,}")
    print(f"  skipped, no text: {counts.empty:,}")
    print(f"  failed: {report.failed:,}")
    for title, why in report.failures[:SHOWN_FAILURES]:
        print(f"    {title}: {why}")
    if report.failed > SHOWN_FAILURES:
        print("    ... (provenance in the index's meta table lists more)")


def _lookup(options: argparse.Namespace) -> int:
    with WikipediaIndex.open(options.index) as index:
        hits = index.lookup(options.mentions, lookups=options.lookups, fulltext_score=options.score)
    for mention, hit in zip(options.mentions, hits, strict=True):
        print(f"{mention}: {_described(hit) if hit else 'not found (tried: ' + ', '.join(options.lookups) + ')'}")
    return 0 if any(hits) else 1


def _described(hit: Hit) -> str:
    via = "" if hit.name == hit.title else f" of {hit.name!r}"
    return f"{hit.title} ({hit.how}{via})\n{hit.text}\n"
