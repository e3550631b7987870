"""What a store holds: how much of each kind, of which lengths, for how much of a corpus, and where it came from.

One record is read at a time. No torch here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from scanner_jax.corpora import Corpus
from scanner_jax.grounding import candidate_recall, is_region
from scanner_jax.knowledge.shards import begun
from scanner_jax.store import Store, box_digest
from scanner_jax.store.layout import Value, damage_reported
from scanner_jax.types import Box, Example

LABEL_LIMIT = 100_000
"""Different labels that are told apart; a detector has thousands."""

COMMON_LABELS = 10

SHOWN_PLACES = 5

OF_EXAMPLES = ("notes",)
"""The kinds that go by example; all others go by image."""

EXTRACTED = ("captions", "objects", "regions", "clip")

OF_BOXES = ("regions", "clip")
"""The kinds that belong to the boxes of `objects`, which may have been replaced since."""


@dataclasses.dataclass(slots=True)
class _Found:
    """What the records of a kind hold; lengths and labels are counted, so that memory goes by different ones."""

    lengths: dict[str, Counter[int]] = dataclasses.field(default_factory=dict)
    labels: Counter[str] = dataclasses.field(default_factory=Counter)
    empty: set[str] = dataclasses.field(default_factory=set)
    other_boxes: int = 0

    def length(self, of: str, length: int) -> None:
        self.lengths.setdefault(of, Counter())[length] += 1

    def label(self, label: str) -> None:
        if label in self.labels or len(self.labels) < LABEL_LIMIT:
            self.labels[label] += 1


def statistics(store: Store, corpus: Corpus | None = None) -> dict[str, Any]:
    """Count what a store holds.

    Args:
        store: an opened store.
        corpus: whose images and examples shall be looked for.

    Returns:
        JSON: the store's folder as `store`; shards that are not merged yet as `begun`; in `kinds`, per kind, its
        records, how many of them are empty, lengths, failures by reason with some of their places, and provenance;
        with a corpus also, per split, how many of its images (of `notes`: examples) have a record that is not empty.
        Of `objects` also, where the corpus has boxes, per split the `reach`: of how many groundable entities whose
        image has objects one of these is theirs (`grounding.candidate_recall`), and at which rank by the detector's
        score the first such one stands, at most.
        Records of `regions` and `clip` whose boxes `objects` no longer has are counted as `other_boxes`; of `objects`
        there are the common labels.

    Raises:
        StoreError: a record is damaged.
    """
    found: dict[str, Any] = {"store": str(store.folder)}
    if corpus is not None:
        found["corpus"] = {"name": corpus.name, "variant": corpus.variant, "fingerprint": corpus.fingerprint}
    shards = [(kind, count, sorted(found)) for kind in EXTRACTED for count, found in begun(store.folder, kind).items()]
    found["begun"] = [{"kind": kind, "of": count, "shards": numbers} for kind, count, numbers in shards]
    return found | {"kinds": {kind: _kind(store, kind, corpus) for kind in store.kinds}}


def _kind(store: Store, kind: str, corpus: Corpus | None) -> dict[str, Any]:
    keys, found = store.keys(kind), _Found()
    for key in keys:
        value = store.get(kind, key)
        with damage_reported(store.folder / kind):
            if value is None or (kind in _MEASURES and not _MEASURES[kind](found, value)):
                found.empty.add(key)
            elif kind in OF_BOXES:
                found.other_boxes += value["boxes"] != _boxes(store, key)
    provenance = dict(store.provenance(kind))
    counts, places = provenance.pop("counts", {}), provenance.pop("places", {})
    told: dict[str, Any] = {
        "records": len(keys),
        "empty": len(found.empty),
        "lengths": {of: _summary(counted) for of, counted in found.lengths.items()},
        "failures": {
            reason: {"count": count, "places": places.get(reason, [])[:SHOWN_PLACES]}
            for reason, count in counts.items()
            if count
        },
        "provenance": provenance,
    }
    if kind == "objects":
        told["labels"] = {"different": len(found.labels), "common": found.labels.most_common(COMMON_LABELS)}
    if kind in OF_BOXES:
        told["other_boxes"] = found.other_boxes
    if corpus is not None:
        told["coverage"] = _coverage(set(keys) - found.empty, corpus, by_example=kind in OF_EXAMPLES)
        if kind == "objects" and corpus.has_boxes:
            told["reach"] = {split: _reach(store, examples) for split, examples in corpus.splits.items()}
    return told


def _captions(found: _Found, value: Value) -> bool:
    words = len(value["text"].split())
    found.length("words a caption", words)
    return words > 0


def _notes(found: _Found, value: Value) -> bool:
    general, spans = len(value["text"].split()), value.get("spans", ())
    if general:
        found.length("words a note on an example", general)
    for _, _, text in spans:
        found.length("words a note on a span", len(text.split()))
    if spans:
        found.length("notes on spans an example", len(spans))
    return bool(general or spans)


def _objects(found: _Found, value: Value) -> bool:
    found.length("objects an image", len(value["objects"]))
    for item in value["objects"]:
        found.label(str(item["label"]))
    return bool(value["objects"])


def _regions(found: _Found, value: Value) -> bool:
    found.length("regions an image", len(value["captions"]))
    for caption in value["captions"]:
        found.length("words a region's caption", len(caption.split()))
    return any(map(str.strip, value["captions"]))


def _clip(found: _Found, value: Value) -> bool:
    width = int(value["width"])
    vectors = np.frombuffer(value["vectors"], "<f2").reshape(-1, width)
    found.length("vectors an image", len(vectors))
    found.length("numbers a vector", width)
    return bool(vectors.any())


_MEASURES: Mapping[str, Callable[[_Found, Value], bool]] = {
    "captions": _captions,
    "notes": _notes,
    "objects": _objects,
    "regions": _regions,
    "clip": _clip,
}
"""Each counts what a record holds and returns whether that is anything; of other kinds records alone are counted."""


def _boxes(store: Store, image: str) -> str | None:
    """What the boxes that the store has of an image are known by."""
    value = store.get("objects", image) if "objects" in store.kinds else None
    return None if value is None else box_digest(item["box"] for item in value["objects"])


def _summary(counted: Counter[int]) -> dict[str, Any]:
    """Mean, median, 95th percentile and the longest of lengths, which are at least one."""
    lengths = sorted(counted)
    below = np.cumsum([counted[length] for length in lengths])
    number = int(below[-1])
    median, long = (lengths[int(np.searchsorted(below, share * number))] for share in (0.5, 0.95))
    mean = sum(length * count for length, count in counted.items()) / number
    return {"number": number, "mean": round(mean, 2), "median": median, "p95": long, "max": lengths[-1]}


def _coverage(known: set[str], corpus: Corpus, *, by_example: bool) -> dict[str, dict[str, Any]]:
    """Per split, how many of its examples, or of their images, are known."""
    told = {}
    for split, examples in corpus.splits.items():
        wanted = {example.id if by_example else example.image_id for example in examples} - {None}
        have = len(wanted & known)
        percent = round(100 * have / len(wanted), 2) if wanted else None
        told[split] = {"of": len(wanted), "have": have, "percent": percent}
    return told


def _reach(store: Store, examples: Sequence[Example]) -> dict[str, Any]:
    """How well objects cover a split's gold boxes: no choice among them can find more."""
    pairs = [
        (entity.boxes, store.boxes(example.image_id))
        for example in examples
        if example.image_id
        for entity in example.entities
        if entity.boxes
    ]
    pairs = [(gold, found) for gold, found in pairs if found]
    ranks = [rank for gold, found in pairs if (rank := _rank(gold, found))]
    return {**candidate_recall(pairs), "covered": len(ranks), "last_rank": max(ranks, default=None)}


def _rank(gold: Sequence[Box], found: Sequence[Box]) -> int | None:
    """The place, from 1, of the first box that is an entity's."""
    return next((rank for rank, box in enumerate(found, start=1) if is_region(box, gold)), None)
