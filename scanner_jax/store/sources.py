"""What all importers share: reading sources line by line, and what they found."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.store.layout import StoreError, Value

LISTED_PLACES = 1000
"""Places that the provenance lists for each remark; all of them are counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """What an importer read: the records, what it noticed (remark -> places), and the sources.

    Records of large sources stream: they can be read once, and what was noticed is complete after the last one.
    """

    records: Iterable[tuple[str, Value]]
    remarks: Mapping[str, Sequence[str]]
    sources: tuple[Path, ...]

    def provenance(self, importer: str, version: int) -> dict[str, Any]:
        """Importer, what it noticed (counted and listed), and each source's name and sha256."""
        return {
            "importer": importer,
            "importer_version": version,
            "counts": {remark: len(places) for remark, places in self.remarks.items()},
            "places": {remark: list(places[:LISTED_PLACES]) for remark, places in self.remarks.items() if places},
            "sources": [_described(path) for path in self.sources],
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Texts(Collection[tuple[str, Value]]):
    """Texts by their keys as records, each made when it is asked for."""

    texts: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[tuple[str, Value]]:
        return ((key, {"text": text}) for key, text in self.texts.items())

    def __contains__(self, record: object) -> bool:
        return any(record == found for found in self)


def _described(path: Path) -> dict[str, Any]:
    """A source file's name and sha256; of a folder, which may hold gigabytes, the number of its files."""
    if path.is_dir():
        return {"folder": path.resolve().name, "files": sum(1 for _ in path.iterdir())}
    return {"file": path.name, "sha256": file_sha256(path)}


def file_sha256(path: Path) -> str:
    """A file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def lines(paths: Sequence[Path], problems: list[str]) -> Iterator[tuple[str, str]]:
    """Yield `file:line` and the text of every line that isn't blank; lines end at LF or CRLF alone."""
    for path in paths:
        for place, line in all_lines(path, problems):
            if line.strip():
                yield f"{path}:{place}", line


def all_lines(path: Path, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Yield each line of a UTF-8 file with its number from 1; what can't be read goes to `problems`."""
    if not path.is_file():
        problems.append(f"{path} {'is a folder; give the file in it' if path.is_dir() else 'does not exist'}")
        return
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield (
                    number,
                    raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8"),
                )
            except UnicodeDecodeError as error:
                problems.append(f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start}); convert the file")


def refuse(problems: Sequence[str]) -> None:
    """Raise a StoreError that lists all problems, if there are any."""
    if problems:
        raise StoreError("nothing was imported:\n" + "\n".join(problems))
