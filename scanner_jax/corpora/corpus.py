"""A corpus with its name and fingerprint, straight from its source or through TFDS."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner_jax.corpora.annotations import Annotation, find_orphans
from scanner_jax.corpora.fingerprints import SplitFingerprint, corpus_fingerprint, recognise, split_fingerprint
from scanner_jax.corpora.readers import ReadSplit, read_splits
from scanner_jax.corpora.schemes import TagScheme
from scanner_jax.types import Example

logger = logging.getLogger(__name__)

FEW_ENTITIES = 10
"""A type with fewer in the whole corpus is warned of: it may be misspelt, and it can hardly be learned."""

_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A corpus and what identifies it.

    Attributes:
        name: the name of its folder.
        fingerprint: hash (hex) of every example; an edited corpus has another.
        variant: which published variant it is, in words, such as "Twitter-2015, UMT release" or "unknown variant".
        types: the entity types that occur, over all splits, sorted.
        splits: the examples of `train`, `dev` and `test`, in the source's order; `dev` may be missing.
        split_fingerprints: each split's counts and hash.
        schemes: the tagging scheme of each split with gold. A split that is not among them has words alone: its
            examples have no entities because nobody knows them.
        annotations: what `xml/` says of each image, by image id; empty where the corpus has no boxes.
        warnings: what to know before training, or before comparing numbers on it with published ones.
    """

    name: str
    fingerprint: str
    variant: str
    types: tuple[str, ...]
    splits: Mapping[str, Sequence[Example]]
    split_fingerprints: Mapping[str, SplitFingerprint]
    schemes: Mapping[str, TagScheme]
    annotations: Mapping[str, Annotation] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def has_gold(self, split: str) -> bool:
        """Whether a split is annotated, so that it can be trained on and scored."""
        return split in self.schemes

    @property
    def has_boxes(self) -> bool:
        """Whether any gold entity has a box, so that grounding can be learned and scored."""
        return any(split.groundable for split in self.split_fingerprints.values())


def read_corpus(folder: str | Path) -> Corpus:
    """Read a corpus from its source files alone; nothing is written.

    Args:
        folder: a corpus in one of the layouts of `layouts.LAYOUTS`.

    Raises:
        CorpusError: everything that is wrong with it, with file and line.
    """
    folder = Path(folder)
    splits, annotations = read_splits(folder)
    fingerprints = {
        name: split_fingerprint(split.examples, has_gold=split.scheme is not None) for name, split in splits.items()
    }
    recognition = recognise(fingerprints)
    return Corpus(
        name=folder.resolve().name,
        fingerprint=corpus_fingerprint(fingerprints),
        variant=recognition.variant,
        types=tuple(sorted({kind for split in fingerprints.values() for kind in split.entities or ()})),
        splits={name: split.examples for name, split in splits.items()},
        split_fingerprints=fingerprints,
        schemes={name: split.scheme for name, split in splits.items() if split.scheme is not None},
        annotations=annotations,
        warnings=(
            *recognition.warnings,
            *_split_warnings(splits),
            *_type_warnings(splits),
            *_box_warnings(splits, annotations),
        ),
    )


def load_corpus(folder: str | Path, *, prepared_dir: str | Path) -> Corpus:
    """Read and check a corpus, prepare it once with TFDS, and take its examples from the prepared data.

    The prepared data lie under `prepared_dir/<corpus name>/<fingerprint>/`: after an edit of the source they are
    prepared anew, beside the old ones.

    Args:
        folder: a corpus in one of the layouts of `layouts.LAYOUTS`.
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
    source = dataclasses.replace(source, splits={})  # lets the examples go before they are read again
    damaged = f"{prepared}: damaged prepared data; delete this folder and it will be prepared again from {folder}"
    try:
        splits = read_prepared(prepared)
    except Exception as error:  # TFDS and array_record raise many kinds for missing or broken files
        raise ValueError(damaged) from error
    found = {name: split_fingerprint(examples, has_gold=source.has_gold(name)) for name, examples in splits.items()}
    if found != source.split_fingerprints:
        raise ValueError(damaged)
    return dataclasses.replace(source, splits=splits)


def _split_warnings(splits: Mapping[str, ReadSplit]) -> list[str]:
    """What is unusual about the splits, and what follows from it."""
    warnings = []
    if "dev" not in splits:
        warnings.append("there is no dev split: nothing is selected, the last epoch counts")
    for name, split in splits.items():
        if split.scheme is None:
            selected = "; nothing is selected on it, the last epoch counts" if name == "dev" else ""
            warnings.append(f"{name} has words alone, no gold: it is predicted, never scored{selected}")
        elif not split.scheme.name:
            warnings.append(
                f"{name}: every tag is O, so it is scored as text without entities; if it has no gold, "
                "leave only the column of words"
            )
    return warnings


def _type_warnings(splits: Mapping[str, ReadSplit]) -> list[str]:
    """Types that may be misspelt, or that training never shows."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for split in splits.values():
        for example in split.examples:
            for entity in example.entities:
                counts[entity.type] += 1
                first.setdefault(entity.type, example.id)
    trained = {entity.type for example in splits["train"].examples for entity in example.entities}
    few = [
        f"{kind} ({count}, the first in {first[kind]})"
        for kind, count in sorted(counts.items())
        if count < FEW_ENTITIES
    ]
    unseen = sorted(counts.keys() - trained)
    return [
        *([f"types with fewer than {FEW_ENTITIES} entities, misspelt perhaps: {', '.join(few)}"] if few else []),
        *([f"types that do not occur in train and cannot be learned: {', '.join(unseen)}"] if unseen else []),
    ]


def _box_warnings(splits: Mapping[str, ReadSplit], annotations: Mapping[str, Annotation]) -> list[str]:
    """What in `xml/` belongs to no entity, and boxes that cannot be right."""
    if not annotations:
        return []
    images = {example.image_id for split in splits.values() for example in split.examples}
    with_gold = (example for split in splits.values() if split.scheme for example in split.examples)
    found: dict[str, Sequence[object]] = {
        "names in xml/ that are no entity's; their boxes are left out": find_orphans(with_gold, annotations),
        "files in xml/ whose image no sentence has": [f"{image}.xml" for image in annotations if image not in images],
        "odd boxes in xml/": [odd for annotation in annotations.values() for odd in annotation.odd],
    }
    return [
        f"{len(places):,} {what}: {'; '.join(map(str, places[:_SHOWN]))}{'; ...' if len(places) > _SHOWN else ''}"
        for what, places in found.items()
        if places
    ]
