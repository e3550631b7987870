"""The Wikipedia index: title -> text in one SQLite file; build it, look it up."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import html
import json
import os
import sqlite3
import struct
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from scanner_jax import __version__

FORMAT = 1
"""Raised by hand when the tables or the normal form change; a reader refuses a newer one."""

COMMAND = "python -m scanner_jax.store import wikipedia SOURCE.jsonl {path}"

SQLITE_MAGIC = b"SQLite format 3\0"

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pages (id INTEGER PRIMARY KEY, title TEXT NOT NULL UNIQUE, normalised TEXT NOT NULL, text TEXT NOT NULL);
"""

LOOKUP = """
SELECT {column}, title, text FROM json_each(?) AS wanted CROSS JOIN pages ON pages.{column} = wanted.value
"""


class WikipediaError(ValueError):
    """An index or a source that can't be read or written; the message lists every problem."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A page found for a surface, and how: by its exact title or by the normal form."""

    title: str
    text: str
    how: Literal["exact", "normalised"]


@dataclasses.dataclass(frozen=True, slots=True)
class BuildCounts:
    """Pages written, and pages left out because their title stood before or they have no title or text."""

    pages: int
    duplicates: int
    empty: int


def normalise(title: str) -> str:
    """Case-folded, without leading `#` and `@`, underscores and runs of white space as one space."""
    return _words(title).casefold()


def split_camel_case(text: str) -> str:
    """`SteveKerr` -> `Steve Kerr`, `NBAFinals` -> `NBA Finals`."""
    pairs = zip(text, text[1:], [*text[2:], ""], strict=False)
    cuts = [b.isupper() and (a.islower() or a.isdigit() or (a.isupper() and c.islower())) for a, b, c in pairs]
    return text[:1] + "".join(f" {char}" if cut else char for char, cut in zip(text[1:], cuts, strict=True))


def build(
    pairs: Iterable[tuple[str, str]],
    path: str | os.PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
) -> BuildCounts:
    """Build an index; written aside, then renamed, so that half an index is never seen.

    HTML entities in titles are resolved. Of pages with one title the first is kept.

    Args:
        pairs: title and text; read once, one at a time, so that memory stays bounded (SQLite's cache: 64 MiB).
        path: the index; replaced if it is one already.
        provenance: what is known of the source; JSON.

    Raises:
        WikipediaError: `path` is something else than an index, nothing to write, or SQLite can't write.
    """
    path = Path(path)
    _check_target(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        aside = Path(folder) / "index"
        try:
            with contextlib.closing(sqlite3.connect(aside)) as connection:
                connection.executescript(SCHEMA)
                counts = _write_pages(connection, pairs, dict(provenance or {}))
        except sqlite3.Error as error:
            raise WikipediaError(f"cannot write {path}: {error}") from error
        if not counts.pages:
            raise WikipediaError(f"no page with a title and a text in the source; {path} was not written")
        os.replace(aside, path)
    return counts


class WikipediaIndex:
    """An index opened for reading; make one with `WikipediaIndex.open`, close it or use it in a `with`."""

    def __init__(self, path: Path, connection: sqlite3.Connection, meta: Mapping[str, str]) -> None:
        self._path = path
        self._connection = connection
        self._meta = meta

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> WikipediaIndex:
        """Open an index, read-only.

        Raises:
            WikipediaError: the file is missing, no index, cut short, or of a newer format.
        """
        path = Path(path)
        make = _build_command(path)
        if not path.is_file():
            raise WikipediaError(
                f"Wikipedia index {path} {'is a folder' if path.exists() else 'does not exist'}; {make}"
            )
        _check_size(path)
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)  # read-only: any thread may look up
        try:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            newer = int(meta["format"]) > FORMAT
        except (sqlite3.Error, KeyError, ValueError) as error:
            connection.close()
            raise WikipediaError(f"{path} is not a Wikipedia index, or damaged ({error}); {make}") from error
        if newer:
            connection.close()
            raise WikipediaError(
                f"{path}: format {meta['format']}, and this version reads up to {FORMAT}; upgrade scanner_jax or {make}"
            )
        return cls(path, connection, meta)

    @property
    def fingerprint(self) -> str:
        """A sha256 in hex over titles and texts, computed when the index was built."""
        return self._meta["fingerprint"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the index came from, with its counts."""
        return dict(json.loads(self._meta["provenance"]))

    def lookup(self, surfaces: Sequence[str]) -> list[Hit | None]:
        """Find a page for each surface: by exact title; else by normal form, as written, then split at camel case.

        Of several titles with one normal form the one wins that differs from the surface in the fewest
        characters' case, then the shortest, then the first in code point order.

        Args:
            surfaces: mentions as they stand in the text, such as `Steve Kerr` or `#SteveKerr`.

        Returns:
            One hit or None for each surface, in order.
        """
        exact = self._rows("title", surfaces)
        forms = {surface: _forms(surface) for surface in surfaces if surface not in exact}
        pages = self._rows("normalised", [normalise(form) for found in forms.values() for form in found])
        hits = {surface: Hit(*rows[0], "exact") for surface, rows in exact.items()}
        for surface, found in forms.items():
            form = next((form for form in found if normalise(form) in pages), None)
            if form is not None:
                hits[surface] = Hit(*_closest(form, pages[normalise(form)]), "normalised")
        return [hits.get(surface) for surface in surfaces]

    def close(self) -> None:
        """Close the file; later look-ups fail."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rows(self, column: Literal["title", "normalised"], values: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
        """Value of the column -> its pages' titles and texts, for those of `values` that the index has."""
        rows: dict[str, list[tuple[str, str]]] = defaultdict(list)
        try:
            for value, title, text in self._connection.execute(
                LOOKUP.format(column=column), (json.dumps(sorted(set(values))),)
            ):
                rows[value].append((title, text))
        except sqlite3.DatabaseError as error:
            raise WikipediaError(f"{self._path} is damaged ({error}); {_build_command(self._path)}") from error
        return dict(rows)


def _forms(surface: str) -> list[str]:
    """The spellings to try, as written first, without those that leave nothing to look up."""
    return [form for form in dict.fromkeys((surface, split_camel_case(surface))) if normalise(form)]


def _closest(form: str, rows: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Of the pages with one normal form, the one whose title is the closest in case, then shortest, then first."""

    def distance(row: tuple[str, str]) -> tuple[int, int, str]:
        title = row[0]
        return sum(a != b for a, b in zip(_words(title), _words(form), strict=False)), len(title), title

    return min(rows, key=distance)


def _words(title: str) -> str:
    """The normal form before its case is folded."""
    return " ".join(title.replace("_", " ").lstrip("#@ \t").split())


def _write_pages(
    connection: sqlite3.Connection, pairs: Iterable[tuple[str, str]], provenance: dict[str, Any]
) -> BuildCounts:
    """Fill the tables, then the meta table with the fingerprint of what went in."""
    digest = hashlib.sha256()
    pages = duplicates = empty = 0
    for raw_title, raw_text in pairs:
        title, text = " ".join(html.unescape(raw_title).split()), raw_text.strip()
        if not title or not text:
            empty += 1
            continue
        inserted = connection.execute(
            "INSERT OR IGNORE INTO pages (title, normalised, text) VALUES (?, ?, ?)", (title, normalise(title), text)
        ).rowcount
        if not inserted:
            duplicates += 1
            continue
        pages += 1
        digest.update(json.dumps([title, text]).encode() + b"\n")
    counts = BuildCounts(pages, duplicates, empty)
    meta = {
        "format": str(FORMAT),
        "fingerprint": digest.hexdigest(),
        "provenance": json.dumps({**provenance, **dataclasses.asdict(counts), "package_version": __version__}),
    }
    connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
    connection.execute("CREATE INDEX by_normalised ON pages (normalised)")
    connection.commit()
    return counts


def _build_command(path: Path) -> str:
    return f"build it: {COMMAND.format(path=path)}"


def _check_target(path: Path) -> None:
    """Refuse to replace a file that is no SQLite file: most likely SOURCE and TARGET were swapped."""
    if path.is_dir():
        raise WikipediaError(f"{path} is a folder; name the index file, such as prepared/wikipedia.sqlite")
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(SQLITE_MAGIC)) != SQLITE_MAGIC:
                raise WikipediaError(f"{path} exists and is no SQLite file; delete it or name another TARGET")


def _check_size(path: Path) -> None:
    """Compare the file's size with the one its header (SQLite file format, section 1.3) promises."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(SQLITE_MAGIC):
        raise WikipediaError(f"{path} is not a Wikipedia index: no SQLite file; {_build_command(path)}")
    page_size, pages = struct.unpack_from(">H10xI", header, 16)
    expected = (65536 if page_size == 1 else page_size) * pages
    if path.stat().st_size < expected:
        raise WikipediaError(
            f"{path} is cut short: {path.stat().st_size:,} bytes of {expected:,}; {_build_command(path)}"
        )
