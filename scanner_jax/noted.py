"""Named values of JSON that a SQLite file keeps about itself."""

from __future__ import annotations

import json
import sqlite3
from typing import Any


class Noted:
    """The values; a missing one is None. Changes are part of the connection's transaction.

    Args:
        connection: to the file; the table is made if missing.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")

    def __getitem__(self, name: str) -> Any:
        row = self._connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row and json.loads(row[0])

    def __setitem__(self, name: str, value: Any) -> None:
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, json.dumps(value)))
