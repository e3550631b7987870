"""What the prompts of a prediction are told: by a record, a store, an index, or the experts that look at a picture.

It is what training would have told them of the same input: kinds that the model was trained without are left out, and
objects stand in the order that they had there.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scanner_jax.candidates import Candidate
from scanner_jax.experts import Experts, ExpertsError, Look, Seen
from scanner_jax.retrieval import CLIP_SIMILARITY, DETECTOR_SCORE, KINDS, KnowledgeSources, Orders, retrieve
from scanner_jax.store import Store
from scanner_jax.types import Knowledge
from scanner_jax.wikipedia import WikipediaIndex

logger = logging.getLogger(__name__)

_SWITCHES = {"wikipedia": "wikipedia", "notes": "notes", "caption": "captions", "objects": "objects"}
"""A field of `Knowledge` -> the model's switch for it."""

_PASS = {
    "caption": "an image, or knowledge with a caption",
    "objects": "an image, or knowledge with objects",
    "notes": "knowledge with notes",
    "wikipedia": "wikipedia=INDEX, or knowledge with a Wikipedia text",
}


class Told(NamedTuple):
    """What a caller gave for one text.

    Attributes:
        candidates: its spans; their example has the id and the image id that a store knows it by.
        record: what is known of all of them, None where no record was given.
        image: a file, None where there is none.
    """

    candidates: Sequence[Candidate]
    record: Knowledge | None
    image: Path | None


class Gatherer:
    """Finds what a model's prompts are told, and says once what is missing.

    Args:
        description: the model's, the content of its scanner.json.
        experts: that look at pictures.

    Attributes:
        kinds: of knowledge that the model was trained with, as fields of `Knowledge`.
        remarks: what of the last `gather` could not be used or looked at, and why, whether it was said before or not.
    """

    def __init__(self, description: Mapping[str, Any], experts: Experts) -> None:
        self._knowledge = description["knowledge"]
        self._max_objects = description["max_objects"]
        self._experts = experts
        self._said: set[str] = set()
        self.remarks: tuple[str, ...] = ()
        self.kinds = tuple(kind for kind in KINDS if self._knowledge.get(_SWITCHES[kind]))

    def gather(
        self, told: Sequence[Told], *, store: Store | None, index: WikipediaIndex | None
    ) -> list[list[Knowledge]]:
        """The knowledge of every candidate of every text.

        What a record says stands, then what the store has. Of a picture whose caption and objects neither has, the
        experts say them. A Wikipedia text is the record's, else the index's.

        Args:
            told: of each text.
            store: looked up by the ids of examples and images.
            index: looked up by the spans' surfaces.
        """
        self.remarks = ()
        self._say_what_is_missing(told, store=store, index=index)
        found = self._looked_up(told, store, index)
        for place, item in enumerate(told):
            if item.record is not None:
                found[place] = [_over(item.record, known) for known in found[place]]
        self._look(told, found)
        return [[self._used(known) for known in texts] for texts in found]

    def close(self) -> None:
        """End the experts' process."""
        self._experts.close()

    def _looked_up(
        self, told: Sequence[Told], store: Store | None, index: WikipediaIndex | None
    ) -> list[list[Knowledge]]:
        kinds = () if store is None else store.kinds
        sources = KnowledgeSources(
            store=store,
            index=index if "wikipedia" in self.kinds else None,
            lookups=tuple(self._knowledge["wikipedia_lookups"]),
            fulltext_score=self._knowledge["wikipedia_fulltext_score"],
            use_captions="caption" in self.kinds and "captions" in kinds,
            use_objects="objects" in self.kinds and "objects" in kinds,
            use_notes="notes" in self.kinds and "notes" in kinds,
        )
        candidates = [candidate for item in told for candidate in item.candidates]
        orders = self._orders(store, candidates) if sources.use_objects and store is not None else None
        known = iter(retrieve(sources, candidates, orders))
        return [[next(known) for _ in item.candidates] for item in told]

    def _orders(self, store: Store, candidates: Sequence[Candidate]) -> Orders | None:
        """The objects' order by CLIP, where the model was trained with it."""
        if not self._knowledge["clip_order"]:
            return None
        known = store.keys("objects")
        pairs = [(example.image_id, example.surface(span)) for example, span in candidates]
        queries = list(dict.fromkeys((image, text) for image, text in pairs if image in known))
        if not queries:
            return None
        if "clip" not in store.kinds:
            self._remark(
                f"{store.folder} has no CLIP vectors, and this model was trained on objects in CLIP's order: they "
                f"stand in the detector's; make vectors: python -m scanner_jax.knowledge clip IMAGES {store.folder}"
            )
            return None
        try:
            return dict(zip(queries, self._experts.rank(store.folder, queries), strict=True))
        except ExpertsError as error:
            self._remark(
                f"objects stand in the detector's order, not in CLIP's, which this model was trained on: {error}"
            )
            return None

    def _look(self, told: Sequence[Told], found: list[list[Knowledge]]) -> None:
        """Let the experts say what is not known of pictures."""
        places = [
            place
            for place, item in enumerate(told)
            if item.image is not None and not any(known.caption or known.objects for known in found[place])
        ]
        places = [place for place in places if found[place]]  # nothing is asked about where no span was found
        if not places:
            return
        if not {"caption", "objects"} & set(self.kinds):
            self._remark("this model was trained without captions and objects: pictures are not looked at")
            return
        looks = [Look(_image(told[place]), [e.surface(span) for e, span in told[place].candidates]) for place in places]
        try:
            seen = self._experts.look(looks)
        except ExpertsError as error:
            self._remark(f"pictures are not looked at: {error}")
            return
        for place, look, what in zip(places, looks, seen, strict=True):
            if what.problem:
                self._remark(f"{look.image}: {what.problem}; it is not looked at")
            pairs = zip(found[place], look.texts, strict=True)
            found[place] = [_with_seen(known, what, text) for known, text in pairs]

    def _used(self, known: Knowledge) -> Knowledge:
        """What of it the model was trained with."""
        others = {kind: () if kind == "objects" else "" for kind in KINDS if kind not in self.kinds}
        if dropped := [kind for kind in others if getattr(known, kind)]:
            self._remark(f"this model was trained without {', '.join(dropped)}: they are left out of its prompts")
        return dataclasses.replace(known, **{"objects": known.objects[: self._max_objects]} | others)  # type: ignore[arg-type]

    def _say_what_is_missing(self, told: Sequence[Told], *, store: Store | None, index: WikipediaIndex | None) -> None:
        stored = {"caption": "captions", "objects": "objects", "notes": "notes"}
        given = {kind for kind, name in stored.items() if store is not None and name in store.kinds}
        if index is not None:
            given.add("wikipedia")
        for item in told:
            own = {"caption", "objects"} if item.image is not None else set()
            if item.record is not None:
                own |= {kind for kind in KINDS if getattr(item.record, kind)}
            if missing := [kind for kind in self.kinds if kind not in given | own]:
                ways = "; ".join(f"{kind}: {_PASS[kind]}" for kind in missing)
                self._say(
                    f"this model was trained with knowledge, and does worse without. Missing, and what to pass: {ways}"
                )
                return

    def _remark(self, message: str) -> None:
        """Note what could not be used, and log it, once."""
        self.remarks = tuple(dict.fromkeys((*self.remarks, message)))
        self._say(message)

    def _say(self, message: str) -> None:
        """Log a warning, once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)


def _image(item: Told) -> Path:
    assert item.image is not None
    return item.image


def _over(record: Knowledge, known: Knowledge) -> Knowledge:
    """A record's kinds, and of those that it leaves empty what was looked up."""
    own: dict[str, Any] = {kind: getattr(record, kind) for kind in KINDS if getattr(record, kind)}
    if "objects" in own:
        own["object_order"] = record.object_order or DETECTOR_SCORE
    if "wikipedia" in own:
        own["wikipedia_how"] = record.wikipedia_how
    return dataclasses.replace(known, **own)


def _with_seen(known: Knowledge, seen: Seen, text: str) -> Knowledge:
    order = seen.orders.get(text)
    return dataclasses.replace(
        known,
        caption=seen.caption,
        objects=seen.objects if order is None else tuple(seen.objects[place] for place in order),
        object_order=(DETECTOR_SCORE if order is None else CLIP_SIMILARITY) if seen.objects else "",
    )
