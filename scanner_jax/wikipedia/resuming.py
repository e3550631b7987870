"""Build an index of a source so that a build that was stopped goes on where it was."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import rich.console

from scanner_jax.store.sources import file_sha256
from scanner_jax.throughput import Throughput
from scanner_jax.wikipedia.building import BuildCounts, aside, drop_spool, write_index
from scanner_jax.wikipedia.entries import Entry
from scanner_jax.wikipedia.layout import WikipediaError
from scanner_jax.wikipedia.places import SourceError, SourceFile, changed
from scanner_jax.wikipedia.sources import Report, read_batches
from scanner_jax.wikipedia.spool import Spool, open_spool


@dataclasses.dataclass(frozen=True, slots=True)
class Built:
    """What became of a source.

    Attributes:
        counts: of the index.
        report: of the source.
        before: pages of the source that earlier runs had read.
    """

    counts: BuildCounts
    report: Report
    before: int


def build_source(
    source: Path, index: Path, *, workers: int, restart: bool = False, console: rich.console.Console | None = None
) -> Built:
    """Build an index of a dump or JSON lines; go on with what earlier runs have read of it.

    What is read is kept every second beside the index, and the index is written once all is read. The file is the
    same, byte for byte, however often it was stopped.

    Args:
        source: see `read_batches`. It may have grown since; what was read of it must be as it was.
        index: replaced, if it is one already, once the new one is whole.
        workers: see `read_batches`.
        restart: drop what earlier runs have read.
        console: where progress goes; standard error.

    Raises:
        SourceError: the source must be changed first; nothing is kept.
        WikipediaError: it is cut short, or not the one that earlier runs read, or `index` can't be written; what was
            read stands.
    """
    console = console or rich.console.Console(stderr=True)
    with aside(index) as folder, open_spool(folder, restart=restart) as spool:
        before = spool.report() or Report()
        try:
            if spool.sha256 is None:
                _read(source, spool, before, workers, console)
            elif file_sha256(source) != spool.sha256:
                raise changed(source)
            report = spool.report() or before
            counts = write_index(
                _shown(spool, report.read, console), folder, index, _provenance(source, report, spool.sha256)
            )
        except SourceError:
            drop_spool(folder)
            raise
        except (WikipediaError, OSError, sqlite3.Error):
            if kept := spool.report():
                console.print(f"{kept.read:,} pages that were read are kept: the build goes on with them")
            raise
        drop_spool(folder)
    return Built(counts, report, before.read)


def _read(source: Path, spool: Spool, before: Report, workers: int, console: rich.console.Console) -> None:
    """Read what is left of a source into the spool."""
    report = before
    with SourceFile(source, before.place) as file:
        with Throughput("reading", "pages", source.stat().st_size, console, start=file.tell()) as progress:

            def at(position: int) -> None:
                progress.at(position, report.read - before.read)

            for entries, report in read_batches(file, workers=workers, at=at, before=before):
                spool.add(entries, report)
        spool.finish(report, file.seal()[1])


def _shown(spool: Spool, read: int, console: rich.console.Console) -> Iterator[Entry]:
    """The entries, with progress."""
    total = len(spool)
    with Throughput("writing", "entries", total, console) as progress:
        for number, entry in enumerate(spool, 1):
            yield entry
            if number % 1000 == 0:
                progress.at(number, number)
    console.print(f"{read:,} read; sorting names and indexing words", highlight=False)


def _provenance(source: Path, report: Report, sha256: str | None) -> dict[str, object]:
    sources = [{"file": source.name, "sha256": sha256}]
    return {"importer": report.kind, "sources": sources, "failed": report.failed, "failures": report.failures}
