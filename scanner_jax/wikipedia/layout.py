"""The tables of an index's SQLite file, its format number, and what its errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

FORMAT = 2
"""Raised by hand when the tables or a normal form change; a reader takes no other."""

COMMAND = "python -m scanner_jax.knowledge wikipedia build SOURCE {path}"

SQLITE_MAGIC = b"SQLite format 3\0"

Lookup = Literal["exact", "redirect", "normalised", "disambiguation", "fulltext"]
LOOKUPS: tuple[Lookup, ...] = ("exact", "redirect", "normalised", "disambiguation", "fulltext")
"""All ways to look a mention up, in the order they are tried."""

TITLE, REDIRECT, DISAMBIGUATION = range(3)
"""`names.kind`: what bears the name. `names.page` is a page, for a disambiguation its number in `choices`."""

# pages: articles in the source's order. names: every name of anything, by normal form; compact, as most look-ups end
# here. choices: the pages that a disambiguation page lists, in its order. fulltext: reads its columns from pages.
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE pages (id INTEGER PRIMARY KEY, title TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE names (form TEXT, kind INTEGER, name TEXT, page INTEGER NOT NULL, PRIMARY KEY (form, kind, name))
    WITHOUT ROWID;
CREATE TABLE choices (disambiguation INTEGER, place INTEGER, page INTEGER NOT NULL, PRIMARY KEY (disambiguation, place))
    WITHOUT ROWID;
CREATE VIRTUAL TABLE fulltext USING fts5 (
    title, text, content = 'pages', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2'
);
"""


class WikipediaError(ValueError):
    """An index or a source that can't be read or written; the message lists every problem."""


def build_command(path: Path) -> str:
    """What to do about an index that can't be read."""
    return f"build it: {COMMAND.format(path=path)}"
