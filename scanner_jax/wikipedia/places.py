"""Places in a source from which it can be read on, and proof that the source is still the one that was read."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from pathlib import Path

from scanner_jax.wikipedia.layout import WikipediaError

BLOCK = 1 << 16
"""Bytes read at once where nobody asks for more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A place between two pages of a dump, or two lines.

    Attributes:
        count: pages or lines before it.
        title: of the page before it.
        unpacked: bytes before it, unpacked.
        stream: where the bzip2 stream begins that goes on there, in bytes of the file and unpacked; in a file that is
            not packed the place itself, twice.
        seen: bytes of the file that had been read when the place was noted, so at least all before it.
        sha256: of those.
    """

    count: int
    title: str
    unpacked: int
    stream: tuple[int, int]
    seen: int
    sha256: str


class SourceError(WikipediaError):
    """A source of which no index can be made before somebody has changed it; what was read of it is of no use."""


class SourceFile(io.BufferedReader):
    """A file to read from, with the SHA-256 of what has been read.

    Args:
        path: the file.
        after: where to begin: at the beginning of this place's stream. What lies before is read once, to compare it.

    Raises:
        WikipediaError: it is missing, a folder, or does not begin with what had been read before `after`.
        OSError: it can't be read.
    """

    def __init__(self, path: Path, after: Place | None = None) -> None:
        if not path.is_file():
            problem = "is a folder; give the file in it" if path.is_dir() else "does not exist"
            raise WikipediaError(
                f"{path} {problem}; accepted are a MediaWiki dump (pages-articles, .xml or .xml.bz2) and JSON lines of "
                "{title, text}"
            )
        self.path = path
        self._hashed = _Hashed(path)
        if after is not None and not self._hashed.begins_as(after):
            self._hashed.close()
            raise changed(path)
        super().__init__(self._hashed, BLOCK)

    def seal(self) -> tuple[int, str]:
        """How many bytes have been read from the disk, and their SHA-256."""
        return self._hashed.seal()


def changed(path: Path) -> WikipediaError:
    """The error for a source that is not the one that a build was begun with."""
    return WikipediaError(
        f"{path} is not the source of the build that was begun, or was changed since; give that one, or begin anew: "
        "the same command with --restart"
    )


class _Hashed(io.RawIOBase):
    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._digest = hashlib.sha256()
        self._sealed = (0, self._digest.hexdigest())

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = self._file.readinto(buffer) or 0
        self._digest.update(buffer[:size])
        return size

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()

    def seal(self) -> tuple[int, str]:
        if self._sealed[0] != self.tell():
            self._sealed = self.tell(), self._digest.hexdigest()
        return self._sealed

    def begins_as(self, place: Place) -> bool:
        """Does the file begin with what had been read of it? Then it stands where the place's stream begins."""
        self._read_to(place.stream[0])
        digest = self._digest.copy()
        self._read_to(place.seen)
        same = self.seal() == (place.seen, place.sha256)
        self._file.seek(place.stream[0])
        self._digest = digest
        return same

    def _read_to(self, end: int) -> None:
        buffer = memoryview(bytearray(16 * BLOCK))
        while (left := end - self.tell()) > 0 and self.readinto(buffer[:left]):
            pass
