"""Build an index: entries go in as they come, then names are resolved and sorted inside SQLite."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import html
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scanner_jax import __version__
from scanner_jax.lock import locked
from scanner_jax.wikipedia.entries import Disambiguation, Entry, Page, Redirect
from scanner_jax.wikipedia.forms import canonical_title, normalise
from scanner_jax.wikipedia.layout import FORMAT, SQLITE_MAGIC, TABLES, WikipediaError
from scanner_jax.wikipedia.places import SourceError

CACHE_KIB = 65536
"""SQLite's memory for each of the two files that a build writes."""

REDIRECT_STEPS = 4
"""Redirects to redirects are followed this far; MediaWiki itself follows one step."""

SUFFIX = " (disambiguation)"

SPOOL = "spool.sqlite"
"""In the folder that an index is built in: what has been read of its source (spool.py)."""

# In a file of its own, so that what is only needed while building leaves no holes in the index.
SCRATCH = """
CREATE TABLE scratch.redirects (name TEXT, target TEXT);
CREATE TABLE scratch.disambiguations (id INTEGER PRIMARY KEY, name TEXT);
CREATE TABLE scratch.links (disambiguation INTEGER, place INTEGER, target TEXT);
CREATE TABLE scratch.bearers (name TEXT PRIMARY KEY, kind INTEGER, page INTEGER) WITHOUT ROWID;
"""

REPEATED_PAGES = """
DELETE FROM pages WHERE id IN
    (SELECT id FROM (SELECT id, row_number() OVER (PARTITION BY title ORDER BY id) AS nth FROM pages) WHERE nth > 1)
"""

# A page's title goes before a disambiguation's, and the first of several; redirects come last.
TITLED = """
INSERT OR IGNORE INTO scratch.bearers SELECT title, 0, id FROM pages ORDER BY title;
INSERT OR IGNORE INTO scratch.bearers SELECT name, 2, id FROM scratch.disambiguations ORDER BY name, id;
"""

REDIRECTED = """
INSERT OR IGNORE INTO scratch.bearers SELECT redirects.name, iif(bearers.kind = 2, 3, 1), bearers.page
    FROM scratch.redirects JOIN scratch.bearers ON bearers.name = redirects.target
    ORDER BY redirects.name, redirects.rowid
"""

# A link may go through a redirect; what it leads to counts once; links to nothing and to other lists are dropped.
LISTED = """
INSERT INTO choices SELECT disambiguation, row_number() OVER (PARTITION BY disambiguation ORDER BY first) - 1, page
    FROM (SELECT disambiguation, page, min(place) AS first FROM scratch.links
          JOIN scratch.bearers ON bearers.name = links.target AND bearers.kind IN (0, 1)
          GROUP BY disambiguation, page)
    ORDER BY 1, 2
"""

NAMED = """
INSERT OR IGNORE INTO names SELECT normalise(name), kind, name, page FROM (
    SELECT name, min(kind, 2) AS kind, page FROM scratch.bearers WHERE kind < 2 OR page IN
        (SELECT disambiguation FROM choices)
    UNION ALL
    SELECT substr(name, 1, length(name) - length(:suffix)), 2, page FROM scratch.bearers
        WHERE kind >= 2 AND name LIKE '_%' || :suffix AND page IN (SELECT disambiguation FROM choices)
) ORDER BY 1, 2, 3
"""


@dataclasses.dataclass(frozen=True, slots=True)
class BuildCounts:
    """What an index holds, and what was left out.

    Attributes:
        pages: with a text.
        duplicates: pages left out because one of their title stood before.
        empty: pages left out because they have no title or no text.
        redirects: names that lead to a page or a disambiguation.
        lost_redirects: those that lead nowhere, or whose name a page has.
        disambiguations: that list at least one page of the index.
        lost_disambiguations: those that list none.
    """

    pages: int
    duplicates: int
    empty: int
    redirects: int = 0
    lost_redirects: int = 0
    disambiguations: int = 0
    lost_disambiguations: int = 0


def build(
    pairs: Iterable[tuple[str, str]],
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> BuildCounts:
    """Build an index of pages alone, from their titles and texts; otherwise as `build_entries`.

    HTML entities in titles are resolved.
    """
    return build_entries((Page(html.unescape(title), text) for title, text in pairs), path, provenance=provenance)


def build_entries(
    entries: Iterable[Entry],
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> BuildCounts:
    """Build an index; written aside, then renamed, so that half an index is never seen.

    Of pages with one title the first is kept. The same entries give the same file, byte for byte, and so the same
    fingerprint, with the same version of SQLite.

    Args:
        entries: read once, one at a time, so that memory stays bounded: SQLite's two caches of 64 MiB, and its
            sorting, which goes to the disk (SQLITE_TMPDIR).
        path: the index; replaced if it is one already.
        provenance: what is known of the source, JSON; read after the last entry.

    Raises:
        WikipediaError: `path` is something else than an index, nothing to write, or SQLite can't write.
    """
    path = Path(path)
    with aside(path) as folder:
        drop_spool(folder)
        return write_index(entries, folder, path, provenance or {})


def check_target(path: Path) -> None:
    """Refuse to replace a file that is no SQLite file: most likely source and index were swapped.

    Raises:
        WikipediaError: it is one, or a folder.
    """
    if path.is_dir():
        raise WikipediaError(f"{path} is a folder; name the index file, such as prepared/wikipedia.sqlite")
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                raise WikipediaError(f"{path} exists and is no SQLite file; delete it or name another INDEX")


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A folder beside the index, to build it in; afterwards it is gone but for a spool, if there is one.

    Raises:
        WikipediaError: the index can't be replaced.
    """
    check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".building-{path.name}")
    with locked(folder):
        try:
            _clear(folder)
            yield folder
        finally:
            _clear(folder)
            if not (folder / SPOOL).exists():
                shutil.rmtree(folder, ignore_errors=True)


def drop_spool(folder: Path) -> None:
    """Delete what a build has read, if there is anything."""
    for name in (SPOOL, f"{SPOOL}-journal"):
        (folder / name).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Delete what a build that was stopped while it wrote left there."""
    for file in folder.iterdir():
        if file.name.startswith(("index", "scratch")):
            file.unlink()


def write_index(entries: Iterable[Entry], folder: Path, path: Path, provenance: Mapping[str, Any]) -> BuildCounts:
    """Write an index in a folder, then put it in place; as `build_entries`."""
    try:
        with contextlib.closing(sqlite3.connect(folder / "index")) as connection:
            _prepare(connection, folder / "scratch")
            digest, empty = _insert(connection, entries)
            counts = _resolve(connection, empty)
            _finish(connection, digest, {**provenance, **dataclasses.asdict(counts)})
    except sqlite3.Error as error:
        raise WikipediaError(f"cannot write {path}: {error}; is there room on the disk?") from error
    if not counts.pages:
        raise SourceError(f"no page with a title and a text in the source; {path} was not written")
    with (folder / "index").open("rb") as file:
        os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it
    os.replace(folder / "index", path)
    return counts


def _prepare(connection: sqlite3.Connection, scratch: Path) -> None:
    connection.create_function("normalise", 1, normalise, deterministic=True)
    connection.execute("ATTACH ? AS scratch", (str(scratch),))
    for schema in ("main", "scratch"):
        connection.execute(f"PRAGMA {schema}.journal_mode = OFF")
        connection.execute(f"PRAGMA {schema}.synchronous = OFF")
        connection.execute(f"PRAGMA {schema}.cache_size = -{CACHE_KIB}")
    connection.executescript(TABLES + SCRATCH)


def _insert(connection: sqlite3.Connection, entries: Iterable[Entry]) -> tuple[str, int]:
    """Write the entries as they come; the sha256 over all of them, and how many pages had no title or text."""
    digest = hashlib.sha256(f"format {FORMAT}".encode())
    empty = 0
    for entry in entries:
        title = " ".join(entry.title.split())
        match entry:
            case Page(text=text):
                text = text.strip()
                if not title or not text:
                    empty += 1
                    continue
                connection.execute("INSERT INTO pages (title, text) VALUES (?, ?)", (title, text))
                content: tuple[str, ...] = (text,)
            case Redirect(target=target):
                content = (canonical_title(target),)
                connection.execute("INSERT INTO scratch.redirects VALUES (?, ?)", (title, *content))
            case Disambiguation(links=links):
                content = tuple(canonical_title(link) for link in links)
                row = connection.execute("INSERT INTO scratch.disambiguations (name) VALUES (?)", (title,)).lastrowid
                connection.executemany(
                    "INSERT INTO scratch.links VALUES (?, ?, ?)", ((row, *item) for item in enumerate(content))
                )
        for part in (type(entry).__name__, title, *content):
            encoded = part.encode()
            digest.update(b"%d:" % len(encoded))
            digest.update(encoded)
    return digest.hexdigest(), empty


def _resolve(connection: sqlite3.Connection, empty: int) -> BuildCounts:
    """Find out what each name leads to, and write the sorted table of names."""

    def count(query: str) -> int:
        return int(connection.execute(f"SELECT count(*) FROM {query}").fetchone()[0])

    duplicates = connection.execute(REPEATED_PAGES).rowcount
    for statement in TITLED.split(";"):
        connection.execute(statement)
    for _ in range(REDIRECT_STEPS):
        if not connection.execute(REDIRECTED).rowcount:
            break
    connection.execute(LISTED)
    connection.execute(NAMED, {"suffix": SUFFIX})
    disambiguations = count("(SELECT DISTINCT disambiguation FROM choices)")
    redirects = count("scratch.bearers WHERE kind = 1 OR kind = 3 AND page IN (SELECT disambiguation FROM choices)")
    return BuildCounts(
        pages=count("pages"),
        duplicates=duplicates,
        empty=empty,
        redirects=redirects,
        lost_redirects=count("scratch.redirects") - redirects,
        disambiguations=disambiguations,
        lost_disambiguations=count("scratch.disambiguations") - disambiguations,
    )


def _finish(connection: sqlite3.Connection, fingerprint: str, provenance: dict[str, Any]) -> None:
    connection.execute("INSERT INTO fulltext (fulltext) VALUES ('rebuild')")
    meta = {
        "format": str(FORMAT),
        "fingerprint": fingerprint,
        "pages": str(provenance["pages"]),
        "provenance": json.dumps({**provenance, "package_version": __version__}),
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.commit()
