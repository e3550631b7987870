"""Look up what is known about each candidate: caption, objects, notes and Wikipedia text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.files import read_json_lines
from scanner_jax.store import Store
from scanner_jax.types import Example, Knowledge, Span
from scanner_jax.wikipedia import DEFAULT_LOOKUPS, FULLTEXT_SCORE, LOOKUPS, Hit, Lookup, WikipediaIndex

KINDS = ("wikipedia", "notes", "caption", "objects")
"""The fields of `Knowledge` that prompts are told."""

CLIP_SIMILARITY, DETECTOR_SCORE = OBJECT_ORDERS = ("CLIP similarity", "detector score")
"""What an image's objects may stand in order of, best first."""

CLIP_TEMPLATE = "a photo of {}"
"""What CLIP is asked for, with a span's text in place of the braces. **Assumption:** the paper names none."""

ORDERS = "orders.jsonl"
"""In the folder of the phase `rank`: one line `{"image": id, "text": surface, "order": [2, 0, 1]}` for each pair."""

Orders = Mapping[tuple[str, str], Sequence[int] | None]
"""By image id and span's surface, the order of the image's objects by CLIP; None where the image has no vectors."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnowledgeSources:
    """The opened sources of those kinds of knowledge that are switched on, and how the index is searched."""

    store: Store | None = None
    index: WikipediaIndex | None = None
    lookups: tuple[Lookup, ...] = DEFAULT_LOOKUPS
    fulltext_score: float = FULLTEXT_SCORE
    use_captions: bool = False
    use_objects: bool = False
    use_notes: bool = False
    use_clip_order: bool = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are read from the store."""
        switches = {"captions": self.use_captions, "objects": self.use_objects, "notes": self.use_notes}
        return tuple(kind for kind, used in switches.items() if used)

    @property
    def orders_by_clip(self) -> bool:
        """Whether objects are put in order by CLIP for each candidate; without objects there is nothing to order."""
        return self.use_objects and self.use_clip_order

    @property
    def used(self) -> tuple[str, ...]:
        """All kinds that prompts may hold."""
        return self.kinds if self.index is None else (*self.kinds, "wikipedia")

    def provenance(self) -> dict[str, dict[str, Any]]:
        """Where each kind that is read came from, as its maker noted it: expert and revision, or importer and files."""
        found: dict[str, dict[str, Any]] = {}
        if self.store is not None:
            of_boxes = {"regions": self.use_objects, "clip": self.orders_by_clip}
            belonging = (kind for kind, used in of_boxes.items() if used and kind in self.store.kinds)
            found = {kind: dict(self.store.provenance(kind)) for kind in (*self.kinds, *belonging)}
        if self.index is not None:
            found["wikipedia"] = {**self.index.provenance, "fingerprint": self.index.fingerprint}
        return found

    def fingerprints(self) -> dict[str, str]:
        """What decides a prompt's knowledge: the content of the sources, as far as they are read."""
        found = {}
        if self.store is not None and self.kinds:
            with_regions = self.use_objects and "regions" in self.store.kinds
            found["store"] = self.store.fingerprint((*self.kinds, "regions") if with_regions else self.kinds)
        if self.index is not None:
            found["wikipedia_index"] = self.index.fingerprint
            score = f" above {self.fulltext_score}" if "fulltext" in self.lookups else ""
            found["wikipedia_lookups"] = ", ".join(how for how in LOOKUPS if how in self.lookups) + score
        return found

    def rank_fingerprints(self) -> dict[str, str]:
        """What decides the objects' order by CLIP: boxes, their vectors, and the tower that encodes the texts."""
        assert self.store is not None
        text_tower = str(self.store.provenance("clip")["text_tower"])
        return {"store": self.store.fingerprint(("clip", "objects")), "text_tower": text_tower}


def retrieve(
    sources: KnowledgeSources, candidates: Sequence[tuple[Example, Span]], orders: Orders | None = None
) -> list[Knowledge]:
    """Look up the knowledge of every candidate; what is not found, or switched off, is empty.

    Captions and objects go by the example's image, which it may not have, notes by its id, Wikipedia by the span's
    surface. A note on the very span stands before that on the example. All of an image's objects come, in the order
    that `orders` has for the candidate, else in the store's, that of the detector's score.
    """
    hits: list[Hit | None] = [None] * len(candidates)
    if sources.index is not None:
        surfaces = [example.surface(span) for example, span in candidates]
        hits = sources.index.lookup(surfaces, lookups=sources.lookups, fulltext_score=sources.fulltext_score)
    return [
        _known(sources, example, span, hit, orders or {}) for (example, span), hit in zip(candidates, hits, strict=True)
    ]


def coverage(knowledge: Sequence[Knowledge]) -> dict[str, float]:
    """For each kind the share of candidates, in percent, for which something was found."""
    count = max(1, len(knowledge))
    return {kind: round(100 * sum(bool(getattr(known, kind)) for known in knowledge) / count, 2) for kind in KINDS}


def found_by(knowledge: Sequence[Knowledge]) -> dict[str, int]:
    """For how many candidates the Wikipedia text was found in which way; ways that found none are left out."""
    counts = Counter(known.wikipedia_how for known in knowledge)
    return {how: counts[how] for how in LOOKUPS if counts[how]}


def read_orders(folder: Path | None) -> Orders | None:
    """The orders that the phase `rank` left in its folder, None where there is no such phase."""
    if folder is None:
        return None
    return {(record["image"], record["text"]): record["order"] for record in read_json_lines(folder / ORDERS)}


def ordered_by(knowledge: Sequence[Knowledge]) -> dict[str, int]:
    """For how many candidates the objects stand in which order; candidates without objects are not counted."""
    counts = Counter(known.object_order for known in knowledge)
    return {order: counts[order] for order in OBJECT_ORDERS if counts[order]}


def _known(sources: KnowledgeSources, example: Example, span: Span, hit: Hit | None, orders: Orders) -> Knowledge:
    store, image = sources.store, example.image_id
    objects = store.objects(image) if store and image and sources.use_objects else ()
    order = orders.get((image or "", example.surface(span)))
    return Knowledge(
        wikipedia=hit.text if hit else "",
        notes=_notes(store, example, span) if store and sources.use_notes else "",
        caption=(store.caption(image) or "") if store and image and sources.use_captions else "",
        objects=objects if order is None else tuple(objects[place] for place in order),
        wikipedia_how=hit.how if hit else "",
        object_order=(DETECTOR_SCORE if order is None else CLIP_SIMILARITY) if objects else "",
    )


def _notes(store: Store, example: Example, span: Span) -> str:
    own, general = store.span_notes(example.id).get(span), store.notes(example.id)
    return " ".join(note for note in (own, general) if note)
