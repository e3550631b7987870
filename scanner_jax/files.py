"""Files that are never seen half-written, and checksums that tell when one has changed since.

Each is written aside, brought to the disk, then renamed. An `OSError` from here names the file it is about.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

CHECKSUMS = "checksums.json"
"""In a folder: the SHA-256 of each of its files."""


def write_text(path: Path, pieces: Iterable[str]) -> None:
    with _replacing(path) as file:
        file.writelines(piece.encode("utf-8") for piece in pieces)


def write_bytes(path: Path, data: bytes) -> None:
    with _replacing(path) as file:
        file.write(data)


def write_json(path: Path, value: Any) -> None:
    write_text(path, [json_text(value)])


def json_text(value: Any) -> str:
    """What `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, (json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    return list(iter_json_lines(path))


def iter_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read one line at a time."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Write arrays that differ in their first axis only."""
    with _replacing(path) as file:
        np.savez(file, values=np.concatenate(arrays), lengths=np.array([len(array) for array in arrays]))


def read_arrays(path: Path) -> list[np.ndarray]:
    """Read what `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return np.split(stored["values"], np.cumsum(stored["lengths"])[:-1])


def write_checksums(folder: Path, *, leave_out: Sequence[str] = (), planned: Mapping[str, str] | None = None) -> None:
    """Record the SHA-256 of every file of a folder, for `damaged_files`.

    Args:
        folder: whose files are whole now.
        leave_out: patterns of names, right in the folder, of files and folders that may change.
        planned: by name, the texts of files that will be written next.
    """
    sums = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        left_out = any(fnmatch.fnmatch(name.parts[0], pattern) for pattern in (CHECKSUMS, *leave_out))
        if path.is_file() and not left_out:
            sums[name.as_posix()] = _sha256(path)
    sums |= {name: hashlib.sha256(text.encode("utf-8")).hexdigest() for name, text in (planned or {}).items()}
    write_json(folder / CHECKSUMS, sums)


def damaged_files(folder: Path) -> list[str]:
    """Which files of a folder are missing, or not what they were when `write_checksums` recorded them.

    Raises:
        FileNotFoundError: nothing was recorded.
    """
    try:
        sums: dict[str, str] = read_json(folder / CHECKSUMS)
        return [name for name, known in sums.items() if not _is_unchanged(folder / name, known)]
    except (ValueError, AttributeError):  # the record itself is cut short or overwritten
        return [CHECKSUMS]


def explain(error: OSError) -> str:
    """Say in a sentence which file or folder cannot be used, why, and what to do."""
    said = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{said}; make room there, then give the same command again"
    return f"{said}; see that this path is right and can be read and written, or choose another one"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an `OSError` say which file it is about; one from a write, as on a full disk, does not by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write in place of `path`, which changes only once all is written."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it
        os.replace(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_unchanged(path: Path, known: str) -> bool:
    try:
        return _sha256(path) == known
    except OSError:  # missing, or the disk cannot read it any more
        return False
