"""Collections that are larger than memory should hold: beyond a small buffer they lie in temporary files.

The files are private, have no name, and are gone with the collection or with the process, however that ends. They are
where `TMPDIR` says. Values are msgpack; `pack` and `unpack` make it of others: tuples come back as tuples, and so do
lists. Reading is safe from several threads, once nothing is added any more.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import struct
import tempfile
import weakref
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import msgpack

from scanner_jax.files import naming

Value = TypeVar("Value")

BUFFER = 2**16
"""Bytes of a list that are in memory at most, before they are written."""

RECENT = 2**14
"""Entries of a dict that are in memory at most, before they are written."""

CACHE_KIB = 1024
"""Of a dict's file in memory."""

_AT_ONCE = 256  # values read together where all are
_PLACE = struct.Struct("<Q")


def _same(value: Any) -> Any:
    return value


class SpilledList(Sequence[Value], Generic[Value]):
    """A list that grows at its end; a value is made anew whenever it is asked for, in some microseconds.

    Args:
        values: the first ones.
        pack: makes something of a value that msgpack takes.
        unpack: makes the value again.

    Raises:
        OSError: the disk is full.
    """

    def __init__(
        self,
        values: Iterable[Value] = (),
        *,
        pack: Callable[[Value], Any] = _same,
        unpack: Callable[[Any], Value] = _same,
    ) -> None:
        self._pack, self._unpack = pack, unpack
        self._records, self._ends = _File(), _File()
        for value in values:
            self.append(value)

    def append(self, value: Value) -> None:
        """Add a value behind the others."""
        self._records.append(_packed(self._pack(value)))
        self._ends.append(_PLACE.pack(len(self._records)))

    def __len__(self) -> int:
        return len(self._ends) // _PLACE.size

    def __iter__(self) -> Iterator[Value]:
        count = len(self)
        for first in range(0, count, _AT_ONCE):
            yield from self._some(first, min(first + _AT_ONCE, count))

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Value, ...]: ...
    def __getitem__(self, index: int | slice) -> Value | tuple[Value, ...]:
        chosen = range(len(self))[index]
        if isinstance(chosen, int):
            return self._unpack(_unpacked(self._read(chosen, chosen + 1)))
        if chosen.step == 1 and chosen:
            return tuple(self._some(chosen.start, chosen.stop))
        return tuple(self[place] for place in chosen)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self):,}>"

    def _some(self, first: int, last: int) -> Iterator[Value]:
        """The values of a range that has some, read together."""
        data = self._read(first, last)
        unpacker = msgpack.Unpacker(use_list=False, unicode_errors="surrogatepass", max_buffer_size=len(data))
        unpacker.feed(data)
        return map(self._unpack, unpacker)

    def _read(self, first: int, last: int) -> bytes:
        """The records of a range that has some."""
        size = _PLACE.size
        ends = self._ends.read(max(0, first - 1) * size, last * size)
        start = _PLACE.unpack_from(ends)[0] if first else 0
        return self._records.read(start, _PLACE.unpack_from(ends, len(ends) - size)[0])


class SpilledDict(Mapping[str, Value], Generic[Value]):
    """A dict by strings, in the order in which they came; nothing is taken out.

    Args:
        pack: makes something of a value that msgpack takes.
        unpack: makes the value again.

    Raises:
        OSError: the disk is full.
    """

    def __init__(self, *, pack: Callable[[Value], Any] = _same, unpack: Callable[[Any], Value] = _same) -> None:
        self._pack, self._unpack = pack, unpack
        self._recent: dict[str, Value] = {}
        self._connection: sqlite3.Connection | None = None

    def __setitem__(self, key: str, value: Value) -> None:
        self._recent[key] = value
        if len(self._recent) > RECENT:
            self._write()

    def __getitem__(self, key: str) -> Value:
        if key in self._recent:
            return self._recent[key]
        for (value,) in self._rows("SELECT value FROM items WHERE key = ?", _key(key)):
            return self._unpack(_unpacked(value))
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        if key in self._recent or not isinstance(key, str):
            return key in self._recent
        return any(self._rows("SELECT 1 FROM items WHERE key = ?", _key(key)))

    def __len__(self) -> int:
        self._all_written()
        return next(self._rows("SELECT coalesce(max(number), 0) FROM items"), (len(self._recent),))[0]

    def __iter__(self) -> Iterator[str]:
        self._all_written()
        yield from self._recent
        for (key,) in self._rows("SELECT key FROM items ORDER BY number"):
            yield _text(key)

    def items(self) -> ItemsView[str, Value]:
        """Keys with their values, read in a row."""
        return _Items(self)

    def by_key(self) -> Iterator[tuple[str, Value]]:
        """Keys with their values, in the order of the keys, as `sorted` has it."""
        return self._pairs("key") if self._connection else iter(sorted(self._recent.items(), key=_first))

    def _pairs(self, order: str) -> Iterator[tuple[str, Value]]:
        self._all_written()
        yield from self._recent.items()
        for key, value in self._rows(f"SELECT key, value FROM items ORDER BY {order}"):
            yield _text(key), self._unpack(_unpacked(value))

    def _rows(self, query: str, *given: bytes) -> Iterator[tuple[Any, ...]]:
        return iter(self._connection.execute(query, given) if self._connection else ())

    def _all_written(self) -> None:
        """Have all in the file, where there is one."""
        if self._connection:
            self._write()

    def _write(self) -> None:
        rows = ((_key(key), _packed(self._pack(value))) for key, value in self._recent.items())
        try:
            if self._connection is None:
                self._connection = _opened()
                weakref.finalize(self, self._connection.close)
            self._connection.executemany(
                "INSERT INTO items (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                rows,
            )
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, f"cannot write a temporary file ({error})", tempfile.gettempdir()) from error
        self._recent.clear()


class SpilledSet(AbstractSet[str]):
    """A set of strings, in the order in which they came."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._held = SpilledDict[None]()
        for value in values:
            self.add(value)

    def add(self, value: str) -> None:
        """Add a string, unless it is there."""
        self._held[value] = None

    def __contains__(self, value: object) -> bool:
        return value in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class _Items(ItemsView[str, Value]):
    _mapping: SpilledDict[Value]

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return self._mapping._pairs("number")


class _File:
    """Bytes that are added at the end: the last ones in memory, the others in a file as soon as there are any."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self._written = 0
        self._descriptor = -1

    def __len__(self) -> int:
        return self._written + len(self._tail)

    def append(self, data: bytes) -> None:
        self._tail += data
        if len(self._tail) >= BUFFER:
            self._write()

    def read(self, start: int, stop: int) -> bytes:
        before = os.pread(self._descriptor, min(stop, self._written) - start, start) if start < self._written else b""
        return before + self._tail[max(0, start - self._written) : max(0, stop - self._written)]

    def _write(self) -> None:
        with naming(Path(tempfile.gettempdir())):
            if self._descriptor < 0:
                self._descriptor, name = tempfile.mkstemp(prefix="scanner-")
                weakref.finalize(self, os.close, self._descriptor)
                os.unlink(name)
            while self._tail:
                written = os.write(self._descriptor, self._tail)
                del self._tail[:written]
                self._written += written


def _opened() -> sqlite3.Connection:
    """A database in a file of SQLite's own, which has no name. One transaction for ever: nobody else looks at it."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.executescript(
        f"PRAGMA cache_size = -{CACHE_KIB}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
        "CREATE TABLE items (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB); BEGIN"
    )
    return connection


def _key(key: str) -> bytes:
    """Bytes that stand in the order of the strings; half a character, which JSON can spell, is taken too."""
    return key.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def _first(pair: tuple[str, Any]) -> str:
    return pair[0]


def _packed(value: Any) -> bytes:
    data: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    return data


def _unpacked(data: bytes) -> Any:
    return msgpack.unpackb(data, use_list=False, unicode_errors="surrogatepass")
