"""Unpack bzip2 files of many streams, as multistream dumps are, with as many threads as there are cores."""

from __future__ import annotations

import bz2
import re
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

START = re.compile(rb"BZh[1-9]1AY&SY")
"""What a stream begins with. That a stream has these ten bytes inside happens once in some 10^22 bytes."""

BLOCK = 1 << 20
"""Bytes read at once."""

LONGEST = 4 << 20
"""Streams of more bytes than this, as a dump in one stream, are unpacked bit by bit by the reader itself."""

SLICE = 1 << 16
"""Bytes given on at once, and unpacked at once, so that of a damaged stream all that is whole is read."""


class Unpacked:
    """A bzip2 file to read from; memory is bounded by two streams for each thread.

    Args:
        file: stands where a stream begins.
        threads: that unpack.
        before: bytes of the unpacked content that lie before it.

    Raises:
        EOFError: it ends within a stream.
        OSError: it is damaged.
    """

    def __init__(self, file: IO[bytes], threads: int, *, before: int = 0) -> None:
        self._streams = deque([(file.tell(), before)])
        self._pieces = _pieces(file, threads)
        self._end = before
        self._left = memoryview(b"")

    def read(self, size: int = SLICE) -> bytes:
        """Some of the next bytes, `size` at most; none at the end."""
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            begins, content = piece
            if begins is not None:
                self._streams.append((begins, self._end))
            self._end += len(content)
            self._left = memoryview(content)
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)

    def stream_at(self, place: int) -> tuple[int, int]:
        """Where the stream begins that goes on after `place` bytes of the unpacked content: in the file, and unpacked.

        Args:
            place: in what has been read, and not before the one that was asked for last.
        """
        while len(self._streams) > 1 and self._streams[1][1] <= place:
            self._streams.popleft()
        return self._streams[0]


def _pieces(file: IO[bytes], threads: int) -> Iterator[tuple[int | None, bytes]]:
    """The unpacked content, in order; with the first piece of each stream the place in the file where it begins."""
    waiting: deque[tuple[int, Future[tuple[bytes, Exception | None]]]] = deque()
    buffer, ended = b"", False
    with ThreadPoolExecutor(threads) as pool:  # unpacking does not hold Python's lock
        while True:
            following, searched = START.search(buffer, 1), len(buffer)
            while not following and not ended and len(buffer) <= LONGEST:
                block = file.read(BLOCK)
                buffer, ended = buffer + block, not block
                following, searched = START.search(buffer, max(1, searched - 9)), len(buffer)
            if not following and not ended:
                while waiting:
                    yield from _result(*waiting.popleft())
                yield file.tell() - len(buffer), b""
                buffer = yield from _long_stream(file, buffer)
                continue
            end = following.start() if following else len(buffer)
            if end:
                waiting.append((file.tell() - len(buffer), pool.submit(_unpack, buffer[:end])))
            buffer = buffer[end:]
            while len(waiting) > (2 * threads if following else 0):
                yield from _result(*waiting.popleft())
            if not following:
                return


def _unpack(packed: bytes) -> tuple[bytes, Exception | None]:
    """The content of whole streams, or as much of it as there is and why there is no more."""
    parts: list[bytes] = []
    while packed:
        unpacker, place = bz2.BZ2Decompressor(), 0
        try:
            while not unpacker.eof:
                if place >= len(packed):
                    return b"".join(parts), EOFError("a bzip2 stream has no end")
                parts.append(unpacker.decompress(packed[place : place + SLICE]))
                place += SLICE
        except OSError as error:
            return b"".join(parts), error
        packed = unpacker.unused_data + packed[place:]
    return b"".join(parts), None


def _result(begins: int, unpacking: Future[tuple[bytes, Exception | None]]) -> Iterator[tuple[int, bytes]]:
    content, error = unpacking.result()
    yield begins, content
    if error is not None:
        raise error


def _long_stream(file: IO[bytes], packed: bytes) -> Generator[tuple[None, bytes], None, bytes]:
    """Unpack a stream of which the first bytes have been read; returns those that were read beyond its end."""
    unpacker = bz2.BZ2Decompressor()
    while not unpacker.eof:
        if not packed and not (packed := file.read(SLICE)):
            raise EOFError("a bzip2 stream has no end")
        yield None, unpacker.decompress(packed[:SLICE])
        packed = packed[SLICE:]
    return unpacker.unused_data + packed
