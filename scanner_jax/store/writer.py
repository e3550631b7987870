"""Write the knowledge store: a kind at a time, aside, then in place by a rename."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
from array_record.python.array_record_module import ArrayRecordWriter

from scanner_jax import __version__
from scanner_jax.spill import SpilledDict
from scanner_jax.store.layout import FORMAT, RECORD_LIMIT, StoreError, Value, file_names, read_provenance
from scanner_jax.types import ImageObject

_BLOCK = 2**14
"""Bytes of the records that are read for one of them, where they are smaller."""

_SAMPLE = 16
"""Records that tell how large a kind's are, and the most of a block."""


def objects_value(objects: Iterable[ImageObject]) -> Value:
    """The value of an `objects` record."""
    return {"objects": [dataclasses.asdict(item) for item in objects]}


def write_kind(
    folder: str | os.PathLike[str],
    kind: str,
    records: Iterable[tuple[str, Value]],
    provenance: Mapping[str, Any],
) -> str:
    """Write one kind of knowledge, replacing what the store had of it; other kinds stay as they are.

    Args:
        folder: the store; made if missing.
        kind: small letters and underscores; the sub-folder's name.
        records: pairs of key and value; read once, one at a time.
        provenance: what is known of the source; JSON. Looked at after the records, so that they can add to it.

    Returns:
        The content's fingerprint, sha256 in hex; the same for the same records in another order.

    Raises:
        StoreError: a key that is empty or stands twice, a value too large, or a folder that isn't ours.
    """
    folder = Path(folder)
    target = folder / kind
    if not re.fullmatch(r"[a-z][a-z_]*", kind):
        raise StoreError(f"kind {kind!r}: expected small letters and underscores")
    for path in (folder, target):
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; give the store's folder, such as prepared/knowledge/twitter2015")
    if target.is_dir() and any(target.iterdir()) and not (target / "provenance.json").exists():
        raise StoreError(f"{target} holds files that are not a knowledge store's; choose another store folder")
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _write(folder, kind, records, provenance)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):  # it is not empty: another kind has been written meanwhile
                folder.rmdir()
        raise


def _write(folder: Path, kind: str, records: Iterable[tuple[str, Value]], provenance: Mapping[str, Any]) -> str:
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as aside:
        digests = _write_records(Path(aside) / "records", records)
        content = hashlib.sha256(kind.encode() + b"\n")
        for key, digest in digests.by_key():
            content.update(msgpack.packb(key) + digest)
        fingerprint = content.hexdigest()
        described = {
            **provenance,
            "format": FORMAT,
            "kind": kind,
            "count": len(digests),
            "bytes": (Path(aside) / "records").stat().st_size,
            "keys_sha256": _write_keys(Path(aside) / "keys", digests),
            "fingerprint": fingerprint,
            "package_version": __version__,
        }
        (Path(aside) / "provenance.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        _put_in_place(Path(aside), folder / kind, fingerprint)
    return fingerprint


def _write_records(path: Path, records: Iterable[tuple[str, Value]]) -> SpilledDict[bytes]:
    """Write the array_record file; returns each key's sha256, in the order written."""
    digests = SpilledDict[bytes]()
    problems: list[str] = []
    packed = ((key, value, msgpack.packb({"key": key, **value})) for key, value in records)
    first = list(itertools.islice(packed, _SAMPLE))
    writer = ArrayRecordWriter(str(path), f"group_size:{_group_size([len(data) for _, _, data in first])}")
    try:
        for key, value, data in itertools.chain(first, packed):
            if problem := _problem(key, value, len(data), key in digests):
                problems.append(problem)
                continue
            writer.write(data)
            digests[key] = hashlib.sha256(data).digest()
        writer.close()
    except RuntimeError as error:  # how array_record reports a full disk
        raise StoreError(f"cannot write {path.parent.parent}: {error}") from error
    finally:
        if writer.is_open():
            writer.close()
    if problems:
        raise StoreError("nothing was written:\n" + "\n".join(problems))
    return digests


def _group_size(sizes: Sequence[int]) -> int:
    """Records of a block, which is read whole where one of them is looked up, and whose place is held in memory."""
    return max(1, min(_SAMPLE, _BLOCK // max([1, *sizes])))


def _write_keys(path: Path, keys: Collection[str]) -> str:
    """Write the keys as one msgpack list; returns the file's sha256."""
    with path.open("w+b") as file:
        file.write(msgpack.Packer().pack_array_header(len(keys)))
        file.writelines(map(msgpack.packb, keys))
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(key: str, value: Value, size: int, known: bool) -> str | None:
    if not key or "key" in value:
        return f"key {key!r}: expected a key that is not empty, and a value without a field named key"
    if known:
        return f"key {key!r} stands twice"
    return f"key {key!r}: {size:,} bytes, at most {RECORD_LIMIT:,} are allowed" if size > RECORD_LIMIT else None


def _put_in_place(aside: Path, target: Path, fingerprint: str) -> None:
    """Move a finished kind into its sub-folder, the provenance last, then drop the files it replaces."""
    target.mkdir(exist_ok=True)
    replaced: tuple[str, ...]
    try:
        replaced = file_names(read_provenance(target)["fingerprint"])
    except (OSError, StoreError):
        replaced = ()
    names = file_names(fingerprint)
    for source, name in zip(("records", "keys"), names, strict=True):
        os.replace(aside / source, target / name)
    os.replace(aside / "provenance.json", target / "provenance.json")
    for name in set(replaced) - set(names):
        (target / name).unlink(missing_ok=True)
