"""A dump in pieces that end where its pages end, so that the place behind a page is known to the byte."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path
from typing import IO

from scanner_jax.wikipedia.places import BLOCK, Place, SourceFile
from scanner_jax.wikipedia.streams import Unpacked

BZIP2 = b"BZh"

PAGE, PAGE_END = b"<page>", b"</page>"


class Pieces:
    """What an XML parser reads that handles each piece before it asks for the next, as `iterparse` does.

    In XML the bytes of PAGE_END may also stand in a comment. So a place counts only where the parser has found as many
    pages as there were such bytes: then all of them were ends of pages, and nothing is left over in the parser.

    Args:
        file: the dump, packed or not, opened with the same `after`.
        threads: that unpack.
        after: begin behind this place; what the dump has before its first page goes before that.
        at: told how many bytes of the file have been read, while what lies before `after` is unpacked again.
    """

    def __init__(self, file: SourceFile, threads: int, after: Place | None, at: Callable[[int], None]) -> None:
        packed = is_packed(file.path)
        self._file = file
        self._unpacked = Unpacked(file, threads, before=after.stream[1] if after else 0) if packed else None
        self._source: IO[bytes] | Unpacked = self._unpacked or file
        self._buffer, self._given = b"", 0
        self._head = _head(file.path, packed)
        self._goes_first = self._head if after else b""
        self._end, self._ends = (after.unpacked, after.count) if after else (0, 0)
        left = after.unpacked - after.stream[1] if after else 0
        while left > 0 and (block := self._source.read(min(BLOCK, left))):
            left -= len(block)
            at(file.tell())

    def read(self, _: int = 0) -> bytes:
        """The next piece, up to the end of a page or less; nothing at the end of the dump."""
        if self._goes_first:
            piece, self._goes_first = self._goes_first, b""
            return piece
        while (found := self._buffer.find(PAGE_END, self._given)) < 0 and len(self._buffer) - self._given < BLOCK:
            if not (block := self._source.read(BLOCK)):
                break
            self._buffer, self._given = self._buffer[self._given :] + block, 0
        start, self._given = self._given, len(self._buffer)
        if found >= 0:
            self._given = found + len(PAGE_END)
            self._ends += 1
        elif self._given - start >= BLOCK:
            self._given -= len(PAGE_END)  # what may be the beginning of an end goes with the next piece
        self._end += self._given - start
        return self._buffer[start : self._given]

    def place(self, count: int, title: str) -> Place | None:
        """The place behind the page of which the parser has just told, the `count`-th; None where it is not sure."""
        if self._ends != count or not self._head:
            return None
        stream = self._unpacked.stream_at(self._end) if self._unpacked else (self._end, self._end)
        return Place(count, title, self._end, stream, *self._file.seal())


def is_packed(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(BZIP2)) == BZIP2


def _head(path: Path, packed: bool) -> bytes:
    """What the dump has before its first page; nothing if that is not among the first bytes."""
    with bz2.open(path) if packed else path.open("rb") as source:
        head = b""
        try:
            while PAGE not in head and len(head) < BLOCK and (block := source.read(BLOCK)):
                head += block
        except (OSError, EOFError):
            return b""  # who reads on meets it again
    return head[: max(head.find(PAGE), 0)]
