"""Counts and hashes that tell which variant of a corpus a number was made with."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

from scanner_jax.types import Example


@dataclasses.dataclass(frozen=True, slots=True)
class SplitFingerprint:
    """What one split holds.

    Attributes:
        sentences: sentences or tweets.
        tokens: words.
        entities: entities of each type, types sorted; None for a split without gold.
        sha256: hash (hex) of what was read: ids, words, entities and boxes. Not of the file's bytes, so that line
            ends, a byte order mark or IOB1 instead of IOB2 don't make another corpus of the same one, and no edit
            that changes an example goes unseen.
        groundable: entities with a box, of each type that has any.
    """

    sentences: int
    tokens: int
    entities: Mapping[str, int] | None
    sha256: str
    groundable: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class KnownSplit:
    """What is known of a published split; None where it is not known."""

    sentences: int
    tokens: int | None = None
    entities: int | None = None
    per_type: Mapping[str, int] | None = None
    sha256: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class KnownVariant:
    """A published variant of a corpus; `groundable` is how many entities of all its splits have a box, if known."""

    name: str
    splits: Mapping[str, KnownSplit]
    groundable: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Recognition:
    """Which known variant a corpus is, in words, and what a user should know about that."""

    variant: str
    warnings: tuple[str, ...] = ()


def split_fingerprint(examples: Sequence[Example], *, has_gold: bool = True) -> SplitFingerprint:
    """Count and hash one split; without gold it is another than one where gold has no entity."""
    digest = hashlib.sha256()
    counts, groundable = collections.Counter[str](), collections.Counter[str]()
    tokens = 0
    for example in examples:
        tokens += len(example.words)
        # An entity without boxes looks as if there were none, so that a corpus without any keeps its fingerprint.
        entities = [
            (entity.start, entity.end, entity.type, *((entity.boxes,) if entity.boxes else ()))
            for entity in example.entities
        ]
        counts.update(entity.type for entity in example.entities)
        groundable.update(entity.type for entity in example.entities if entity.boxes)
        record = [example.id, example.image_id, example.words, entities if has_gold else None]
        digest.update(json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n")
    return SplitFingerprint(
        sentences=len(examples),
        tokens=tokens,
        entities=dict(sorted(counts.items())) if has_gold else None,
        sha256=digest.hexdigest(),
        groundable=dict(sorted(groundable.items())),
    )


def corpus_fingerprint(splits: Mapping[str, SplitFingerprint]) -> str:
    """One hash (hex) over all splits: any change to an example, or to which split it is in, gives another."""
    lines = (f"{name} {split.sha256}\n" for name, split in sorted(splits.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def recognise(splits: Mapping[str, SplitFingerprint]) -> Recognition:
    """Say which of `KNOWN_VARIANTS` a corpus is: by its content, else by its counts.

    Returns:
        The variant's name, with how it was recognised where that was not by content, and warnings wherever numbers
        may not be comparable with those published on the variant. `unknown variant` where no counts match.
    """
    for variant in KNOWN_VARIANTS:
        if {name: known.sha256 for name, known in variant.splits.items()} == {
            name: split.sha256 for name, split in splits.items()
        }:
            return Recognition(variant.name)
    for variant in KNOWN_VARIANTS:
        if not _differences(variant, splits):
            return _recognised_by_counts(variant, sum(sum(split.groundable.values()) for split in splits.values()))
    return Recognition("unknown variant", (_nearest(splits),))


def _recognised_by_counts(variant: KnownVariant, groundable: int) -> Recognition:
    known = variant.splits.values()
    if all(split.sha256 is not None for split in known):
        warning = f"every count is that of {variant.name}, but ids, words, spans or boxes are not: an edited copy"
        return Recognition(f"{variant.name} (by its counts; other content)", (warning,))
    if all(split.entities is not None for split in known):
        return Recognition(f"{variant.name} (by its published counts)")
    if variant.groundable == groundable:
        return Recognition(f"{variant.name} (by its numbers of tweets and of groundable entities)")
    warning = f"{variant.name} was recognised by its numbers of tweets alone: an edited copy would look the same"
    return Recognition(f"{variant.name} or an edited copy (by its numbers of tweets alone)", (warning,))


def _nearest(splits: Mapping[str, SplitFingerprint]) -> str:
    """The warning for an unknown corpus: how it differs from the variant with most splits of the same size."""
    matching = {
        variant.name: sum(variant.splits[name].sentences == split.sentences for name, split in splits.items())
        for variant in KNOWN_VARIANTS
    }
    best = max(KNOWN_VARIANTS, key=lambda variant: matching[variant.name])
    if not matching[best.name]:
        names = ", ".join(variant.name for variant in KNOWN_VARIANTS)
        return f"no known variant of a published corpus ({names}): scores on it compare with no published ones"
    differences = "; ".join(_differences(best, splits))
    return f"counts match no known variant; nearest is {best.name}, but {differences}"


def _differences(variant: KnownVariant, splits: Mapping[str, SplitFingerprint]) -> list[str]:
    """Where the counts of a corpus differ from what is known of a variant."""
    differences = [f"it has no {name} split" for name in variant.splits if name not in splits]
    for name, split in splits.items():
        known = variant.splits[name]
        entities = split.entities or {}
        counts = (
            ("sentences", split.sentences, known.sentences),
            ("tokens", split.tokens, known.tokens),
            ("entities", sum(entities.values()), known.entities),
        )
        found = [f"{have:,} {what} (not {want:,})" for what, have, want in counts if want is not None and have != want]
        if known.per_type is not None and entities != known.per_type:
            found.append(f"entities {_types(entities)} (not {_types(known.per_type)})")
        if split.entities is None:
            found.append("no gold")
        if found:
            differences.append(f"{name} has {', '.join(found)}")
    return differences


def _types(counts: Mapping[str, int]) -> str:
    return " ".join(f"{kind} {count}" for kind, count in sorted(counts.items())) or "none"


def _known(sentences: int, tokens: int, per_type: Mapping[str, int], sha256: str) -> KnownSplit:
    """A split that was counted and hashed by this code."""
    return KnownSplit(sentences, tokens, sum(per_type.values()), per_type, sha256)


# Counted and hashed with `python -m scanner_jax.corpora check`, except where a comment says otherwise.
KNOWN_VARIANTS = (
    KnownVariant(
        "CoNLL-2003, English",
        {
            "train": _known(
                14041,
                203621,
                {"LOC": 7140, "MISC": 3438, "ORG": 6321, "PER": 6600},
                "e023a7713a9d9aa6420cbe3a65c700dc7a3d2a19933fde1dbd936eee07737580",
            ),
            "dev": _known(
                3250,
                51362,
                {"LOC": 1837, "MISC": 922, "ORG": 1341, "PER": 1842},
                "0a8d136e8a92cfaa4ec5b3f4a5cea54701d4cb19d8f02019ed728c656277ba84",
            ),
            "test": _known(
                3453,
                46435,
                {"LOC": 1668, "MISC": 702, "ORG": 1661, "PER": 1617},
                "af3cc2e33b6a76b1b82b872b7e643c3ebbcb2f5233bf8426c7bce7cadbed0c71",
            ),
        },
    ),
    KnownVariant(
        "Twitter-2015, UMT release",
        {
            "train": _known(
                4000,
                64439,
                {"LOC": 2135, "ORG": 957, "OTHER": 975, "PER": 2285},
                "808806559208d77d4914c3becd1afd8f28305e7b5309f48c707e49cb9bbff76c",
            ),
            "dev": _known(
                1000,
                16178,
                {"LOC": 543, "ORG": 251, "OTHER": 233, "PER": 567},
                "14c606bd9ddda6da60061acf4ee4ee6003a7ae91f9ab7c4ff7eafe6340c4468e",
            ),
            "test": _known(
                3257,
                52822,
                {"LOC": 1720, "ORG": 860, "OTHER": 754, "PER": 1873},
                "45e4a36eabce411471b6dd04ac1598526fc80bfa73dc19aa6545a4e7519c4af5",
            ),
        },
    ),
    KnownVariant(
        "Twitter-GMNER v2.0",
        {
            "train": _known(
                7000,
                112542,
                {"LOC": 1918, "ORG": 3035, "OTHER": 1807, "PER": 5019},
                "471cf0323c4c3594703220daa32ea24768bf446e63d5e26930b4f6813575861e",
            ),
            "dev": _known(
                1500,
                24199,
                {"LOC": 407, "ORG": 595, "OTHER": 376, "PER": 1072},
                "a02883412787b5dc426654fff10d38e3fc760c459dfd98e439ccb868ecaae26d",
            ),
            "test": _known(
                1500,
                23738,
                {"LOC": 404, "ORG": 638, "OTHER": 397, "PER": 1104},
                "4c71ce24f5cf97eca9bf42cf2de7b9d2fd39a75739a9f76a2eb1ac042a42f8f9",
            ),
        },
    ),
    # The counts of the MNER literature; no copy of the files was at hand to hash.
    KnownVariant(
        "Twitter-2017",
        {
            "train": KnownSplit(3373, entities=6049),
            "dev": KnownSplit(723, entities=1324),
            "test": KnownSplit(723, entities=1351, per_type={"LOC": 178, "MISC": 157, "ORG": 395, "PER": 621}),
        },
    ),
    # Same tweets as v2.0, other annotations, of which the number of groundable entities alone is known here: has to
    # stay after v2.0.
    KnownVariant(
        "Twitter-GMNER v1",
        {"train": KnownSplit(7000), "dev": KnownSplit(1500), "test": KnownSplit(1500)},
        groundable=6716,
    ),
)
