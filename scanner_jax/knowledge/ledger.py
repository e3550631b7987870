"""What a shard of an extraction has done so far, in one SQLite file: a killed run goes on from there.

It lies in the store, `STORE/.extracting/KIND-I-of-N/progress.sqlite`, until the shards are merged into the kind.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack

from scanner_jax.lock import InUseError, locked
from scanner_jax.noted import Noted
from scanner_jax.store.layout import Value

FILE = "progress.sqlite"

TABLES = """
CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (key TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
"""

LOADED_FROM = "loaded_from"
"""The setting that says where a model lies on one machine; others may have it elsewhere."""

CHANGED_SETTINGS = 10
"""Differing settings that an error names."""


class ExtractionError(ValueError):
    """An extraction that can't begin, go on or be merged; the message says what to do."""


class Ledger:
    """An opened progress file. Make one with `open_ledger`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._noted = Noted(connection)

    def keys(self) -> set[str]:
        """The images that need no more work, those that failed among them."""
        rows = self._connection.execute("SELECT key FROM done UNION ALL SELECT key FROM failed")
        return {key for (key,) in rows}

    def add(
        self, done: Iterable[tuple[str, Value]], failed: Iterable[tuple[str, str]], versions: Mapping[str, str]
    ) -> None:
        """Keep a batch: all of it or, if the process dies, nothing. Failures come with their reason."""
        with self._connection:
            packed = ((key, msgpack.packb(value)) for key, value in done)
            self._connection.executemany("INSERT INTO done VALUES (?, ?)", packed)
            self._connection.executemany("INSERT INTO failed VALUES (?, ?)", failed)
            # Software may change between a kill and going on: then all that took part are known.
            known = self.versions()
            if dict(versions) not in known:
                self._noted["versions"] = [*known, dict(versions)]

    def finish(self) -> None:
        """Note that nothing is left to do."""
        with self._connection:
            self._noted["whole"] = True

    @property
    def is_whole(self) -> bool:
        return bool(self._noted["whole"])

    def settings(self) -> dict[str, Any]:
        """What its values depend on, as `open_ledger` was told; empty in one that was never begun."""
        return self._noted["settings"] or {}

    def versions(self) -> list[dict[str, str]]:
        """The packages that took part, with their versions; several where they changed in between."""
        return self._noted["versions"] or []

    def count(self) -> int:
        """Images with a value."""
        return int(self._connection.execute("SELECT count(*) FROM done").fetchone()[0])

    def failures(self) -> list[tuple[str, str]]:
        """Image and reason, by image."""
        return list(self._connection.execute("SELECT key, reason FROM failed ORDER BY key"))

    def values(self) -> Iterator[tuple[str, Value]]:
        """Image and value, by image, one at a time."""
        for key, data in self._connection.execute("SELECT key, value FROM done ORDER BY key"):
            yield key, msgpack.unpackb(data)

    def begin(self, settings: Mapping[str, Any], *, advice: str) -> None:
        """Note the settings, or compare them with those that it was begun with.

        Raises:
            ExtractionError: they differ; names them.
        """
        wanted, before = json.loads(json.dumps(settings)), self.settings()
        if not before:
            with self._connection:
                self._noted["settings"] = wanted
        elif differences(before, wanted):
            raise ExtractionError(f"begun with other settings: {differences(before, wanted)}; {advice}")


@contextlib.contextmanager
def open_ledger(folder: Path, *, restart: bool = False) -> Iterator[Ledger]:
    """Open a shard's progress for this process alone, made if missing.

    Args:
        folder: the shard's.
        restart: drop what it holds first.

    Raises:
        ExtractionError: another process has it, it is damaged, or the disk is full.
    """
    try:
        with locked(folder, wait=False):
            path = folder / FILE
            if restart:
                path.unlink(missing_ok=True)
                path.with_name(f"{FILE}-journal").unlink(missing_ok=True)
            with contextlib.closing(sqlite3.connect(path)) as connection:
                connection.executescript(TABLES)
                yield Ledger(connection)
    except InUseError as error:
        raise ExtractionError(f"{error}; let it end, or take another --shard") from error
    except sqlite3.OperationalError as error:
        raise ExtractionError(f"cannot write {path}: {error}; is there room on the disk? Then go on") from error
    except sqlite3.DatabaseError as error:
        raise ExtractionError(f"{path} is damaged ({error}); begin anew: the same command with --restart") from error


def drop_ledger(folder: Path) -> None:
    """Delete a shard's progress; who calls has it open."""
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # shards of other kinds are still there
        folder.parent.rmdir()


def differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The settings that differ, in words; nothing if they say the same, wherever the model lies."""
    names = [name for name in {**before, **wanted} if before.get(name) != wanted.get(name) and name != LOADED_FROM]
    said = [f"{name} was {before.get(name)!r} and is {wanted.get(name)!r}" for name in names[:CHANGED_SETTINGS]]
    return ", ".join(said)
