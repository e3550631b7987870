"""Look mentions up in an index: by exact title, redirect, normal form, disambiguation page, then full text."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sqlite3
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from scanner_jax.wikipedia.forms import clean, forms, normalise, split_camel_case
from scanner_jax.wikipedia.layout import (
    DISAMBIGUATION,
    FORMAT,
    LOOKUPS,
    REDIRECT,
    SQLITE_MAGIC,
    TITLE,
    Lookup,
    WikipediaError,
    build_command,
)

DEFAULT_LOOKUPS: tuple[Lookup, ...] = LOOKUPS[:4]
"""Without full text, which names the wrong page more often than not (docs/knowledge.md)."""

FULLTEXT_SCORE = 0.8
"""Full-text hits below this are none. **Assumption:** chosen by eye on Twitter-2015 (docs/knowledge.md)."""

TITLE_WEIGHT = 10.0
"""In full text a word of the title counts as this many words of the text."""

NAMES = "SELECT form, kind, name, page FROM json_each(?) AS wanted CROSS JOIN names ON names.form = wanted.value"
PAGES = "SELECT pages.id, title, text FROM json_each(?) AS wanted CROSS JOIN pages ON pages.id = wanted.value"
CHOICES = """
SELECT disambiguation, page FROM json_each(?) AS wanted
    CROSS JOIN choices ON choices.disambiguation = wanted.value AND choices.place = 0
"""
MATCHES = "SELECT count(*) FROM (SELECT 1 FROM fulltext WHERE fulltext MATCH ? LIMIT ?)"
BEST = """
SELECT rowid, -bm25(fulltext, ?) AS score FROM fulltext WHERE fulltext MATCH ? ORDER BY score DESC, rowid LIMIT 1
"""

Name = tuple[int, str, int]
"""kind, name, page"""


@dataclasses.dataclass(frozen=True, slots=True)
class Hit:
    """A page found for a mention.

    Attributes:
        title: the page's.
        text: the page's.
        how: it was found.
        name: what was found: the page's title, a redirect's or a disambiguation page's.
    """

    title: str
    text: str
    how: Lookup
    name: str


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
            WikipediaError: the file is missing, no index, cut short, or of another format.
        """
        path = Path(path)
        make = build_command(path)
        if not path.is_file():
            raise WikipediaError(
                f"Wikipedia index {path} {'is a folder' if path.exists() else 'does not exist'}; {make}"
            )
        _check_size(path)
        uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False)  # read-only: any thread may look up
        try:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            written = int(meta["format"])
        except (sqlite3.Error, KeyError, ValueError) as error:
            connection.close()
            raise WikipediaError(f"{path} is not a Wikipedia index, or damaged ({error}); {make}") from error
        if written != FORMAT:
            connection.close()
            age, remedy = ("an older", "") if written < FORMAT else ("a newer", "upgrade scanner_jax or ")
            raise WikipediaError(
                f"{path} is of {age} format, {written}, and this version reads {FORMAT}; {remedy}{make}"
            )
        return cls(path, connection, meta)

    @property
    def fingerprint(self) -> str:
        """A sha256 in hex over the format and all that went in, computed when the index was built."""
        return self._meta["fingerprint"]

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the index came from, with its counts."""
        return dict(json.loads(self._meta["provenance"]))

    def lookup(
        self,
        surfaces: Sequence[str],
        *,
        lookups: Sequence[Lookup] = DEFAULT_LOOKUPS,
        fulltext_score: float = FULLTEXT_SCORE,
    ) -> list[Hit | None]:
        """Find a page for each mention; the first way that finds one counts, in the order of `LOOKUPS`.

        Redirects and normal forms lead to their page. Of several names with one normal form the one wins that differs
        from the mention in the fewest characters, then a title before a redirect, then the shortest, then the first
        in code point order. The normal form of the mention split at camel case is tried after that of the mention.

        **Assumption:** a disambiguation page stands for the first page that it lists.

        Args:
            surfaces: mentions as they stand in the text, such as `Steve Kerr` or `#SteveKerr`; the more at once, the
                faster.
            lookups: the ways to try; redirects that are not among them are found in no other way either.
            fulltext_score: see `fulltext`.

        Returns:
            One hit or None for each mention, in order.

        Raises:
            WikipediaError: the file is damaged.
        """
        tried = {surface: forms(surface) for surface in surfaces}
        named = self._named({form for found in tried.values() for form in found})
        chosen = {}
        if named:
            for surface, found in tried.items():
                choice = _choose(surface, [named[form] for form in found if form in named], lookups)
                if choice:
                    chosen[surface] = choice
        if "fulltext" in lookups:
            for surface in tried:
                if surface not in chosen and (page := self.fulltext(surface, at_least=fulltext_score)):
                    chosen[surface] = ("fulltext", "", page[0])
        return self._hits(surfaces, chosen)

    def fulltext(self, surface: str, *, at_least: float = 0.0) -> tuple[int, float] | None:
        """The page that has a mention's words, in their order, in its title or text, with the best score.

        The score is SQLite's BM25 with titles weighted, over the most that it could be: 1.0 is a phrase of one page
        alone that is made of nothing else. A phrase of many pages has a low one, so most are refused by their number.

        Returns:
            The page's number and its score; None where no score is at least `at_least`.
        """
        words = normalise(split_camel_case(clean(surface))).replace('"', " ").replace("\0", " ")
        phrase = f'"{words.encode(errors="replace").decode()}"'  # a lone surrogate is no text to SQLite
        pages = int(self._meta["pages"])
        most = 2.2 * _rarity(1, pages)  # BM25's k1 + 1, times the weight of a word of one page alone
        # As many pages as a phrase can have with a score of `at_least`: _rarity(n) >= at_least * _rarity(1).
        limit = max(1, math.floor((pages + 0.5) / (1 + math.exp(at_least * _rarity(1, pages))))) if at_least else pages
        if len(phrase) == 2 or not 0 < self._all(MATCHES, (phrase, limit + 1))[0][0] <= limit:
            return None
        ((page, score),) = self._all(BEST, (TITLE_WEIGHT, phrase))
        return (page, score / most) if score >= at_least * most else None

    def close(self) -> None:
        """Close the file; later look-ups fail."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _named(self, wanted: set[str]) -> dict[str, list[Name]]:
        """Normal form -> all that bear it, for those that the index has."""
        named: dict[str, list[Name]] = {}
        for form, kind, name, page in self._all(NAMES, (json.dumps(sorted(wanted)),)):
            if form in named:
                named[form].append((kind, name, page))
            else:
                named[form] = [(kind, name, page)]
        return named

    def _hits(self, surfaces: Sequence[str], chosen: Mapping[str, tuple[Lookup, str, int]]) -> list[Hit | None]:
        """Read the chosen pages, those of disambiguations by their first link, in the order of their numbers."""
        listed = {page for how, _, page in chosen.values() if how == "disambiguation"}
        first = dict(self._all(CHOICES, (json.dumps(sorted(listed)),))) if listed else {}
        hits: dict[str, Hit] = {}
        try:
            at = {
                surface: first[page] if how == "disambiguation" else page for surface, (how, _, page) in chosen.items()
            }
            numbers = json.dumps(sorted(set(at.values())))
            pages = {number: (title, text) for number, title, text in self._all(PAGES, (numbers,))} if at else {}
            for surface, (how, name, _) in chosen.items():
                title, text = pages[at[surface]]
                hits[surface] = Hit(title, text, how, name or title)
        except KeyError as error:  # a name leads to a page that is not there
            raise WikipediaError(f"{self._path} is damaged; {build_command(self._path)}") from error
        return [hits.get(surface) for surface in surfaces]

    def _all(self, query: str, values: Iterable[Any]) -> list[Any]:
        try:
            return self._connection.execute(query, tuple(values)).fetchall()
        except sqlite3.DatabaseError as error:
            raise WikipediaError(f"{self._path} is damaged ({error}); {build_command(self._path)}") from error


def lookup_problem(lookups: Sequence[str]) -> str | None:
    """What is wrong with a choice of lookups, None if nothing is."""
    if lookups and set(lookups) <= set(LOOKUPS) and len(set(lookups)) == len(lookups):
        return None
    return f"expected one or more of {', '.join(LOOKUPS)}, each once"


def _choose(surface: str, found: Sequence[Sequence[Name]], lookups: Sequence[Lookup]) -> tuple[Lookup, str, int] | None:
    """How a mention is found, the name, and the page or disambiguation; `found` has each normal form's names."""
    kinds: tuple[tuple[Lookup, int], ...] = (("exact", TITLE), ("redirect", REDIRECT))
    for how, kind in kinds:
        if how in lookups:
            for rows in found:
                for row in rows:
                    if row[1] == surface and row[0] == kind:
                        return how, surface, row[2]
    if "normalised" in lookups:
        taken = (TITLE, REDIRECT) if "redirect" in lookups else (TITLE,)
        for rows in found:
            near = [row for row in rows if row[0] in taken]
            if near:
                _, name, page = _closest(surface, near)
                return "normalised", name, page
    if "disambiguation" in lookups:
        for rows in found:
            lists = [row for row in rows if row[0] == DISAMBIGUATION]
            if lists:
                _, name, page = _closest(surface, lists)
                return "disambiguation", name, page
    return None


def _closest(surface: str, rows: Sequence[Name]) -> Name:
    """Of the names with one normal form the closest to a mention in case, then kind, then length, then order."""
    if len(rows) == 1:
        return rows[0]
    words = clean(surface)

    def distance(row: Name) -> tuple[int, int, int, str]:
        name = clean(row[1])
        differing = sum(a != b for a, b in zip(name, words, strict=False)) + abs(len(name) - len(words))
        return differing, row[0], len(row[1]), row[1]

    return min(rows, key=distance)


def _rarity(matches: int, pages: int) -> float:
    """BM25's weight of a phrase that `matches` of all `pages` have, as SQLite computes it."""
    return max(math.log((pages - matches + 0.5) / (matches + 0.5)), 1e-6)


def _check_size(path: Path) -> None:
    """Compare the file's size with the one its header (SQLite file format, section 1.3) promises."""
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(SQLITE_MAGIC):
        raise WikipediaError(f"{path} is not a Wikipedia index: no SQLite file; {build_command(path)}")
    page_size, pages = struct.unpack_from(">H10xI", header, 16)
    expected = (65536 if page_size == 1 else page_size) * pages
    if path.stat().st_size < expected:
        raise WikipediaError(
            f"{path} is cut short: {path.stat().st_size:,} bytes of {expected:,}; {build_command(path)}"
        )
