"""What a build has read so far, in one SQLite file beside the index: a killed build goes on from there.

Reading a source and stripping its markup is what takes the hours. The index is written from the spool when all is
read, so that it does not depend on how often reading was stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from scanner_jax import __version__
from scanner_jax.noted import Noted
from scanner_jax.wikipedia.building import SPOOL, drop_spool
from scanner_jax.wikipedia.entries import Disambiguation, Entry, Page, Redirect
from scanner_jax.wikipedia.layout import FORMAT, WikipediaError
from scanner_jax.wikipedia.places import Place
from scanner_jax.wikipedia.sources import Report

KEEP_EVERY = 1.0
"""Seconds between two commits: what a killed build does again."""

TABLES = """
CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY, kind INTEGER, title TEXT, content TEXT);
"""

PAGE, REDIRECT, DISAMBIGUATION = range(3)

RESTART = "the same command with --restart"


class Spool:
    """An opened spool; make one with `open_spool`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._noted = Noted(connection)
        self._kept = time.monotonic()

    def report(self) -> Report | None:
        """What has been read; None if nothing has."""
        found = self._noted["report"]
        if found is None:
            return None
        place = found.pop("place")
        place = place and Place(**{**place, "stream": tuple(place["stream"])})
        return Report(**{**found, "failures": tuple(map(tuple, found["failures"])), "place": place})

    def add(self, entries: Iterable[Entry], report: Report) -> None:
        """Add what was read up to a place; kept now and then, whole batches alone."""
        self._connection.executemany(
            "INSERT INTO entries (kind, title, content) VALUES (?, ?, ?)", map(_packed, entries)
        )
        if report.place is not None and time.monotonic() >= self._kept + KEEP_EVERY:
            self._keep(report)

    def finish(self, report: Report, sha256: str) -> None:
        """Note that all of the source has been read, and its SHA-256."""
        self._keep(report, sha256)

    @property
    def sha256(self) -> str | None:
        """Of the source, once all of it has been read."""
        found: str | None = self._noted["sha256"]
        return found

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM entries").fetchone()[0])

    def __iter__(self) -> Iterator[Entry]:
        for kind, title, content in self._connection.execute("SELECT kind, title, content FROM entries ORDER BY id"):
            yield _unpacked(kind, title, content)

    def begin(self) -> None:
        """Note what reads, or compare it with what has read so far.

        Raises:
            WikipediaError: versions differ.
        """
        used = _versions()
        before = self._noted["versions"]
        if before not in (None, used):
            said = ", ".join(f"{name} {before.get(name)}, and is {used[name]}" for name in used)
            raise WikipediaError(f"a build was begun with other versions ({said}); begin anew: {RESTART}")
        with self._connection:
            self._noted["versions"] = used

    def _keep(self, report: Report, sha256: str | None = None) -> None:
        with self._connection:
            self._noted["report"] = dataclasses.asdict(report)
            self._noted["sha256"] = sha256
        self._kept = time.monotonic()


@contextlib.contextmanager
def open_spool(folder: Path, *, restart: bool = False) -> Iterator[Spool]:
    """Open a folder's spool, made if missing; one into which nothing was read is gone afterwards.

    Args:
        folder: of a build; who calls has it for this process alone.
        restart: drop what is there first.

    Raises:
        WikipediaError: it is damaged, of other versions, or the disk is full.
    """
    path = folder / SPOOL
    if restart:
        drop_spool(folder)
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(TABLES)
            spool = Spool(connection)
            spool.begin()
            try:
                yield spool
            finally:
                connection.rollback()
                if spool.report() is None:
                    drop_spool(folder)
    except sqlite3.OperationalError as error:
        raise WikipediaError(f"cannot write {path}: {error}; is there room on the disk?") from error
    except sqlite3.DatabaseError as error:
        raise WikipediaError(f"{path} is damaged ({error}); begin anew: {RESTART}") from error


def _versions() -> dict[str, str]:
    """What the entries depend on besides the source."""
    stripping = importlib.metadata.version("mwparserfromhell")
    return {"format": str(FORMAT), "scanner_jax": __version__, "mwparserfromhell": stripping}


def _packed(entry: Entry) -> tuple[int, str, str]:
    match entry:
        case Page(title=title, text=text):
            return PAGE, title, text
        case Redirect(title=title, target=target):
            return REDIRECT, title, target
        case Disambiguation(title=title, links=links):
            return DISAMBIGUATION, title, json.dumps(links)


def _unpacked(kind: int, title: str, content: str) -> Entry:
    if kind == PAGE:
        return Page(title, content)
    if kind == REDIRECT:
        return Redirect(title, content)
    return Disambiguation(title, tuple(json.loads(content)))
