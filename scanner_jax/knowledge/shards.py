"""Shards: the parts of an extraction that machines share out, and their union, a kind of the knowledge store."""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from scanner_jax.knowledge.ledger import ExtractionError, differences, drop_ledger, open_ledger
from scanner_jax.store.sources import LISTED_PLACES
from scanner_jax.store.writer import write_kind

FOLDER = ".extracting"
"""In the store; its dot keeps readers away."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Part `number`, from 1, of `count`: the images whose id's CRC-32 leaves `number - 1` when divided by `count`."""

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`.

        Raises:
            ValueError: of another form, or I is not from 1 to N.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r}: expected I/N with I from 1 to N, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, key: str) -> bool:
        """Is this image the shard's? The same on every machine."""
        return zlib.crc32(key.encode()) % self.count == self.number - 1

    def folder(self, store: Path, kind: str) -> Path:
        """Where the shard's progress lies."""
        return store / FOLDER / f"{kind}-{self.number}-of-{self.count}"


def begun(store: Path, kind: str) -> dict[int, dict[int, Path]]:
    """Number of shards -> shard -> folder, of all shards that were begun."""
    found: dict[int, dict[int, Path]] = {}
    for path in (store / FOLDER).glob(f"{kind}-*-of-*"):
        if match := re.fullmatch(re.escape(kind) + r"-(\d+)-of-(\d+)", path.name):
            found.setdefault(int(match[2]), {})[int(match[1])] = path
    return found


def refuse_other_counts(store: Path, kind: str, shard: Shard) -> None:
    """Say before the work is done that shards of two divisions can't be merged.

    Raises:
        ExtractionError: the kind was begun as another number of shards.
    """
    for count, folders in begun(store, kind).items():
        if count != shard.count:
            listed = ", ".join(str(path) for _, path in sorted(folders.items()))
            raise ExtractionError(
                f"{kind} was begun in {count} part{'s' * (count > 1)}: go on so (--shard I/{count}), or delete {listed}"
            )


def merge(store: Path, kind: str) -> int:
    """Make a kind of the store from all its shards, then drop their progress; a reader sees it whole or not at all.

    Memory does not grow with the values: they are read one at a time, by image id, whatever the number of shards.

    Returns:
        How many images have a value.

    Raises:
        ExtractionError: shards are missing, not whole, in use, or of other settings than the first; or no image
            has a value.
    """
    folders = _shard_folders(store, kind)
    with contextlib.ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(folder)) for folder in folders]
        settings = ledgers[0].settings()
        problems = [
            f"{folder.name} was made with other settings: {differences(settings, ledger.settings())}"
            for folder, ledger in zip(folders, ledgers, strict=True)
            if ledger.is_whole and differences(settings, ledger.settings())
        ]
        problems += [
            f"{folder.name} is not whole; give its command again, which goes on"
            for folder, ledger in zip(folders, ledgers, strict=True)
            if not ledger.is_whole
        ]
        if problems:
            raise ExtractionError(f"{store / FOLDER}: nothing was merged:\n  " + "\n  ".join(problems))
        count = sum(ledger.count() for ledger in ledgers)
        failures = sorted(failure for ledger in ledgers for failure in ledger.failures())
        if not count:
            raise ExtractionError(f"no image has a value, so that there is nothing to write as {kind}")
        versions: list[dict[str, str]] = []
        for ledger in ledgers:
            versions += [known for known in ledger.versions() if known not in versions]
        records = heapq.merge(*(ledger.values() for ledger in ledgers), key=itemgetter(0))
        write_kind(store, kind, records, {**settings, "versions": versions, **_listed(failures)})
        for folder in folders:
            drop_ledger(folder)
    return count


def _listed(failures: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Failures as the provenance has them: counted by reason, and listed up to a limit."""
    counts = Counter(reason for _, reason in failures)
    places = {reason: [key for key, found in failures if found == reason][:LISTED_PLACES] for reason in counts}
    return {"counts": dict(counts), "places": places}


def _shard_folders(store: Path, kind: str) -> list[Path]:
    """The folders of all shards of a kind, by number."""
    found = begun(store, kind)
    if not found:
        raise ExtractionError(f"{store / FOLDER} holds no shard of {kind}; make some, or is {kind} merged already?")
    if len(found) > 1:
        counts = " and ".join(f"{count}" for count in sorted(found))
        raise ExtractionError(
            f"{store / FOLDER} holds shards of {kind} out of {counts}; delete the folders that are not meant"
        )
    ((count, shards),) = found.items()
    if missing := [number for number in range(1, count + 1) if number not in shards]:
        listed = ", ".join(f"{number}/{count}" for number in missing)
        raise ExtractionError(f"{store / FOLDER}: {kind} lacks --shard {listed}; make them first")
    return [shards[number] for number in range(1, count + 1)]
