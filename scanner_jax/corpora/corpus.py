"""A corpus with its name and fingerprint, straight from its source or through TFDS."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner_jax.corpora.fingerprints import SplitFingerprint, corpus_fingerprint, recognise, split_fingerprint
from scanner_jax.corpora.readers import read_splits
from scanner_jax.types import Example

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus and what identifies it.

    Attributes:
        name: the name of its folder.
        fingerprint: hash (hex) of every example; an edited corpus has another.
        variant: which published variant it is, in words, such as "Twitter-2015, UMT release" or "unknown variant".
        types: the entity types that occur, over all splits, sorted.
        splits: the examples of `train`, `dev` and `test`, in the source's order.
        split_fingerprints: each split's counts and hash.
        warnings: what to know before comparing numbers on it with published ones.
    """

    name: str
    fingerprint: str
    variant: str
    types: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    split_fingerprints: Mapping[str, SplitFingerprint]
    warnings: tuple[str, ...] = ()


def read_corpus(folder: str | Path) -> Corpus:
    """Read a corpus from its source files alone; nothing is written.

    Args:
        folder: a corpus in one of the layouts of `readers.LAYOUTS`.

    Raises:
        CorpusError: everything that is wrong with it, with file and line.
    """
    folder = Path(folder)
    splits = read_splits(folder)
    fingerprints = {name: split_fingerprint(examples) for name, examples in splits.items()}
    recognition = recognise(fingerprints)
    return Corpus(
        name=folder.resolve().name,
        fingerprint=corpus_fingerprint(fingerprints),
        variant=recognition.variant,
        types=tuple(sorted({kind for split in fingerprints.values() for kind in split.entities})),
        splits=splits,
        split_fingerprints=fingerprints,
        warnings=recognition.warnings,
    )


def load_corpus(folder: str | Path, *, prepared_dir: str | Path) -> Corpus:
    """Read and check a corpus, prepare it once with TFDS, and take its examples from the prepared data.

    The prepared data lie under `prepared_dir/<corpus name>/<fingerprint>/`: after an edit of the source they are
    prepared anew, beside the old ones.

    Args:
        folder: a corpus in one of the layouts of `readers.LAYOUTS`.
        prepared_dir: where prepared data are kept; may be shared by all corpora.

    Raises:
        CorpusError: everything that is wrong with the source, with file and line.
        ValueError: the prepared data are not what was prepared; the message says what to delete.
    """
    # TFDS takes seconds to import, and reading a source does without it.
    from scanner_jax.corpora.builders import prepare, read_prepared

    source = read_corpus(folder)
    for warning in source.warnings:
        logger.warning("%s: %s", folder, warning)
    prepared = prepare(source.splits, folder=Path(prepared_dir) / source.name / source.fingerprint)
    damaged = f"{prepared}: damaged prepared data; delete this folder and it will be prepared again from {folder}"
    try:
        splits = read_prepared(prepared)
    except Exception as error:  # TFDS and array_record raise many kinds for missing or broken files
        raise ValueError(damaged) from error
    if {name: split_fingerprint(examples) for name, examples in splits.items()} != source.split_fingerprints:
        raise ValueError(damaged)
    return dataclasses.replace(source, splits=splits)
