"""Keeps a corpus that has been read as a TFDS data set of array_record files; no TensorFlow is imported."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from scanner_jax.corpora.examples import Examples
from scanner_jax.types import Entity, Example

logger = logging.getLogger(__name__)

_Shard = Callable[[], Iterator[tuple[int, dict[str, Any]]]]

_SEPARATOR = "\t"
"""Joins words and types; the readers let no word with a TAB pass."""

_AT_ONCE = 1000
"""Records read together."""

_SHARD = 10_000
"""Records of a file: as many as TFDS holds in memory while it writes them."""


class TaggedCorpus(tfds.core.ShardBasedBuilder):
    """A TFDS builder for sentences with typed spans and their boxes, in the order of the source.

    All features are flat, since TFDS reads nested sequences slowly. Boxes are JSON, one list of boxes for each entity,
    since TFDS rounds floats to 32 bits; where no entity has one, they are empty.

    Args:
        splits: each split's examples.
        data_dir: the folder below which TFDS lays its files.
    """

    VERSION = tfds.core.Version("1.1.0")
    """Of the stored form, not of the data: raise it with the features, and old files are not read again."""

    code_path = None
    """Where TFDS looks for a data set's URLs and checksums; there are none. (Its own look-up imports a package that
    it doesn't ask for on Python 3.9 and later.)"""

    def __init__(self, *, splits: Mapping[str, Sequence[Example]], data_dir: Path) -> None:
        self._examples = splits
        super().__init__(data_dir=str(data_dir))

    def let_go(self) -> None:
        """Hold the examples no longer: a builder and its description hold each other until they are collected."""
        self._examples = {}

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "id": tfds.features.Text(),
            "image_id": tfds.features.Text(),
            "words": tfds.features.Text(),
            "types": tfds.features.Text(),
            "spans": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "boxes": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict[str, list[_Shard]]:
        return {
            split: [functools.partial(_records_of, examples, start) for start in range(0, len(examples), _SHARD)]
            for split, examples in self._examples.items()
        }


def prepare(splits: Mapping[str, Sequence[Example]], *, folder: Path) -> Path:
    """Write a corpus under `folder`, unless it is already there.

    TFDS writes aside and renames, so an interrupted preparation is never taken for a whole one.

    Args:
        splits: each split's examples.
        folder: belongs to this very content; the caller puts its fingerprint in the name.

    Returns:
        The folder with the array_record files, for `read_prepared`.
    """
    tfds.disable_progress_bar()
    builder = TaggedCorpus(splits=splits, data_dir=folder)
    prepared = Path(builder.data_dir)
    try:
        if prepared.exists():
            return prepared
        logger.info("preparing %s", prepared)
        # TFDS makes a folder for downloads, though there are none, and prints what a library should log.
        with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                file_format="array_record",
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    except RuntimeError as error:  # how array_record reports a full disk
        raise OSError(f"cannot write {prepared}: {error}") from error
    except OSError:
        if not prepared.exists():
            raise
        logger.info("another process prepared %s first", prepared)
    finally:
        builder.let_go()
    return prepared


def read_prepared(prepared: Path) -> dict[str, Examples]:
    """Read back what `prepare` wrote, in the same order."""
    builder = tfds.builder_from_directory(str(prepared))
    return {
        name: Examples(map(_from_record, _records(builder, name, split.num_examples)))
        for name, split in builder.info.splits.items()
    }


def _records(builder: tfds.core.DatasetBuilder, split: str, count: int) -> Iterator[Mapping[str, Any]]:
    """All records of a split, in order; reading them one at a time takes half as long again."""
    for first in range(0, count, _SHARD):
        # A source of each file alone: one of all keeps the place of every record in memory.
        source = builder.as_data_source(split=f"{split}[{first}:{min(first + _SHARD, count)}]")
        for start in range(0, len(source), _AT_ONCE):
            yield from source.__getitems__(range(start, min(start + _AT_ONCE, len(source))))


def _records_of(examples: Sequence[Example], start: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """A file's records with their numbers."""
    return ((number, _to_record(examples[number])) for number in range(start, min(start + _SHARD, len(examples))))


def _to_record(example: Example) -> dict[str, Any]:
    spans = [(entity.start, entity.end) for entity in example.entities]
    boxes = [entity.boxes for entity in example.entities]
    return {
        "id": example.id,
        "image_id": example.image_id or "",
        "words": _SEPARATOR.join(example.words),
        "types": _SEPARATOR.join(entity.type for entity in example.entities),
        "spans": np.asarray(spans, dtype=np.int32).reshape(-1, 2),
        "boxes": json.dumps(boxes) if any(boxes) else "",
    }


def _from_record(record: Mapping[str, Any]) -> Example:
    text = {name: record[name].decode("utf-8") for name in ("id", "image_id", "words", "types", "boxes")}
    types = text["types"].split(_SEPARATOR)  # one empty string where there are no entities
    spans = record["spans"].tolist()
    boxes = json.loads(text["boxes"]) if text["boxes"] else [()] * len(spans)
    entities = tuple(
        Entity(start, end, kind, tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in own))
        for (start, end), kind, own in zip(spans, types, boxes, strict=False)
    )
    words = tuple(text["words"].split(_SEPARATOR))
    image = text["id"] if text["image_id"] == text["id"] else text["image_id"] or None
    return Example(text["id"], words, entities, image)
