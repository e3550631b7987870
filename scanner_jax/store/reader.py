"""Read the knowledge store."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from collections.abc import Iterator, KeysView, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from jaxtyping import Float16

from scanner_jax.spill import SpilledDict
from scanner_jax.store.layout import (
    RECORD_LIMIT,
    StoreError,
    Value,
    box_digest,
    damage_reported,
    file_names,
    import_command,
    read_provenance,
)
from scanner_jax.types import Box, ImageObject, Span


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """One opened kind: its provenance, the position of every key, and the records."""

    provenance: Mapping[str, Any]
    positions: Mapping[str, int]
    reader: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """A knowledge store opened for reading. Make one with `Store.open`."""

    folder: Path
    _opened: Mapping[str, _Kind] = dataclasses.field(repr=False)

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """Open a store.

        Args:
            folder: what `python -m scanner_jax.store import ... TARGET` wrote.

        Raises:
            StoreError: the folder is missing or no store, a kind has a newer format or is cut short.
        """
        folder = Path(folder)
        if not folder.is_dir():
            what = "is a file, not a folder" if folder.exists() else "does not exist"
            raise StoreError(f"knowledge store {folder} {what}; write one: {import_command('captions', folder)}")
        kinds = sorted(path.parent.name for path in folder.glob("[!.]*/provenance.json"))
        if not kinds:
            raise StoreError(
                f"{folder} is not a knowledge store: no <kind>/provenance.json in it; "
                f"write one: {import_command('captions', folder)}"
            )
        return cls(folder, {kind: _open_kind(folder, kind) for kind in kinds})

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is opened anew: readers of files can't be sent there."""
        return Store.open, (self.folder,)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge in the store, sorted."""
        return tuple(self._opened)

    def keys(self, kind: str) -> KeysView[str]:
        """The image or example ids that a kind has records of, in the order they were written."""
        return self._kind(kind).positions.keys()

    def provenance(self, kind: str) -> Mapping[str, Any]:
        """Where a kind came from: sources with their sha256, importer, counts, package version."""
        return self._kind(kind).provenance

    def get(self, kind: str, key: str) -> Value | None:
        """The value of one record, None where the kind has none of that key.

        Raises:
            StoreError: the store has no such kind, or the record is damaged.
        """
        opened = self._kind(kind)
        position = opened.positions.get(key)
        if position is None:
            return None
        with damage_reported(self.folder / kind):
            # A range, since reading a list of positions copies the index of the whole file for every call.
            (data,) = opened.reader.read(position, position + 1)
            value: Value = _unpack(data)
            if value.pop("key") != key:
                raise ValueError(f"record {position} is not the one of {key!r}")
        return value

    def caption(self, image_id: str) -> str | None:
        """The caption of an image, None where there is none."""
        return self._text("captions", image_id)

    def notes(self, example_id: str) -> str | None:
        """A language model's free notes on an example as a whole, None where there are none."""
        return self._text("notes", example_id) or None

    def span_notes(self, example_id: str) -> dict[Span, str]:
        """The notes on single spans of an example."""
        value = self.get("notes", example_id)
        with damage_reported(self.folder / "notes"):
            spans = value.get("spans", ()) if value else ()
            return {Span(int(start), int(end)): str(text) for start, end, text in spans}

    def objects(self, image_id: str) -> tuple[ImageObject, ...]:
        """The objects detected in an image, in the order they were written; none gives an empty tuple.

        Where the store has captions of the image's regions, they stand in place of the objects' own.

        Raises:
            StoreError: the captions are those of other boxes.
        """
        value = self.get("objects", image_id)
        with damage_reported(self.folder / "objects"):
            objects = tuple(_image_object(item) for item in value["objects"]) if value else ()
        regions = self._of_boxes("regions", image_id, objects)
        if regions is None:
            return objects
        with damage_reported(self.folder / "regions"):
            pairs = zip(objects, regions["captions"], strict=True)
            return tuple(dataclasses.replace(item, caption=str(caption)) for item, caption in pairs)

    def boxes(self, image_id: str) -> tuple[Box, ...]:
        """The boxes of an image's objects, in their order; whether captions or vectors belong to them is not asked."""
        value = self.get("objects", image_id)
        with damage_reported(self.folder / "objects"):
            return tuple(_image_object(item).box for item in value["objects"]) if value else ()

    def vectors(self, image_id: str) -> Float16[np.ndarray, "o d"] | None:
        """CLIP's unit vector of each of the image's objects, in their order; None where there are none.

        Raises:
            StoreError: the vectors are those of other boxes, or a record is damaged.
        """
        objects = self.objects(image_id)
        value = self._of_boxes("clip", image_id, objects)
        if value is None:
            return None
        with damage_reported(self.folder / "clip"):
            found = np.frombuffer(value["vectors"], "<f2").reshape(len(objects), int(value["width"]))
            if not np.isfinite(found).all():
                raise ValueError(f"vectors of image {image_id} are not finite")
            return found

    def fingerprint(self, kinds: tuple[str, ...]) -> str:
        """A sha256 in hex over the content of these kinds alone: not their order, source or place.

        Raises:
            StoreError: the store lacks one of them.
        """
        parts = [f"{kind} {self._kind(kind).provenance['fingerprint']}\n" for kind in sorted(set(kinds))]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    def _kind(self, kind: str) -> _Kind:
        if kind not in self._opened:
            raise StoreError(
                f"knowledge store {self.folder} holds no {kind} (it holds: {', '.join(self.kinds)}); "
                f"import them: {import_command(kind, self.folder)}"
            )
        return self._opened[kind]

    def _of_boxes(self, kind: str, image_id: str, objects: tuple[ImageObject, ...]) -> Value | None:
        """The record of an image in a kind that goes by the boxes; None where the store has none."""
        value = self.get(kind, image_id) if kind in self._opened else None
        with damage_reported(self.folder / kind):
            if value is not None and value["boxes"] != box_digest(item.box for item in objects):
                raise StoreError(
                    f"{self.folder / kind}: image {image_id} has other boxes since; make it again: "
                    f"{import_command(kind, self.folder)}"
                )
        return value

    def _text(self, kind: str, key: str) -> str | None:
        value = self.get(kind, key)
        with damage_reported(self.folder / kind):
            return str(value["text"]) if value else None


def _open_kind(folder: Path, kind: str) -> _Kind:
    """Open one kind; looks again where a writer replaced it between reading its provenance and its files."""
    path = folder / kind
    for _ in range(10):
        provenance = read_provenance(path)
        try:
            with damage_reported(path):
                return _open_files(path, provenance)
        except FileNotFoundError as error:
            missing = error.filename
    raise StoreError(f"{path} is incomplete: {missing} is missing; import it again: {import_command(kind, folder)}")


def _open_files(path: Path, provenance: Mapping[str, Any]) -> _Kind:
    records, keys = (path / name for name in file_names(provenance["fingerprint"]))
    found = records.stat()
    if found.st_size != provenance["bytes"]:
        raise ValueError(f"{records.name} is cut short: {found.st_size:,} bytes of {provenance['bytes']:,}")
    with keys.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != provenance["keys_sha256"]:
            raise ValueError(f"{keys.name} is damaged: not the keys that were written")
    positions = SpilledDict[int]()
    for position, key in enumerate(_keys(keys)):
        positions[key] = position
    reader = ArrayRecordReader(str(records), "readahead_buffer_size:0,max_parallelism:0")  # random access
    if not reader.ok() or not len(positions) == reader.num_records() == provenance["count"]:
        now = records.stat()  # a file that a writer has just replaced reads as empty: then look again
        if (now.st_ino, now.st_mtime_ns) != (found.st_ino, found.st_mtime_ns):
            raise FileNotFoundError(errno.ENOENT, "replaced while it was opened", str(records))
        raise ValueError(f"{records.name} is damaged: {reader.num_records()} records of {provenance['count']}")
    return _Kind(provenance, positions, reader)


def _keys(path: Path) -> Iterator[str]:
    """The keys of a file that is whole, one at a time."""
    with path.open("rb") as file:
        unpacker = msgpack.Unpacker(file, max_str_len=RECORD_LIMIT)
        for _ in range(unpacker.read_array_header()):
            yield str(unpacker.unpack())


def _unpack(data: bytes) -> Any:
    """Unpack msgpack within strict limits: text keys, no extension types, sizes bounded by the data."""
    size = min(len(data), RECORD_LIMIT)
    return msgpack.unpackb(
        data,
        strict_map_key=True,
        max_ext_len=0,
        max_str_len=size,
        max_bin_len=size,
        max_array_len=size,
        max_map_len=size,
    )


def _image_object(item: Mapping[str, Any]) -> ImageObject:
    x1, y1, x2, y2 = (float(number) for number in item["box"])
    return ImageObject((x1, y1, x2, y2), str(item["label"]), float(item["score"]), str(item["caption"]))
