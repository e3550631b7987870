"""Look up what is known about each candidate: caption, objects, notes and Wikipedia text."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from scanner_jax.store import Store
from scanner_jax.types import Example, Knowledge, Span
from scanner_jax.wikipedia import DEFAULT_LOOKUPS, FULLTEXT_SCORE, LOOKUPS, Hit, Lookup, WikipediaIndex

KINDS = ("wikipedia", "notes", "caption", "objects")
"""The fields of `Knowledge` that prompts are told."""


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

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are read from the store."""
        switches = {"captions": self.use_captions, "objects": self.use_objects, "notes": self.use_notes}
        return tuple(kind for kind, used in switches.items() if used)

    @property
    def object_order(self) -> str | None:
        """What objects stand in prompts by, None where there are none: no importer writes CLIP vectors yet."""
        return "detector score" if self.use_objects else None

    @property
    def used(self) -> tuple[str, ...]:
        """All kinds that prompts may hold."""
        return self.kinds if self.index is None else (*self.kinds, "wikipedia")

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


def retrieve(sources: KnowledgeSources, candidates: Sequence[tuple[Example, Span]]) -> list[Knowledge]:
    """Look up the knowledge of every candidate; what is not found, or switched off, is empty.

    Captions and objects go by the example's image, which it may not have, notes by its id, Wikipedia by the span's
    surface. A note on the very span stands before that on the example. Objects come in the store's order, that of
    the detector's score.
    """
    hits: list[Hit | None] = [None] * len(candidates)
    if sources.index is not None:
        surfaces = [example.surface(span) for example, span in candidates]
        hits = sources.index.lookup(surfaces, lookups=sources.lookups, fulltext_score=sources.fulltext_score)
    return [_known(sources, example, span, hit) for (example, span), hit in zip(candidates, hits, strict=True)]


def coverage(knowledge: Sequence[Knowledge]) -> dict[str, float]:
    """For each kind the share of candidates, in percent, for which something was found."""
    count = max(1, len(knowledge))
    return {kind: round(100 * sum(bool(getattr(known, kind)) for known in knowledge) / count, 2) for kind in KINDS}


def found_by(knowledge: Sequence[Knowledge]) -> dict[str, int]:
    """For how many candidates the Wikipedia text was found in which way; ways that found none are left out."""
    counts = Counter(known.wikipedia_how for known in knowledge)
    return {how: counts[how] for how in LOOKUPS if counts[how]}


def _known(sources: KnowledgeSources, example: Example, span: Span, hit: Hit | None) -> Knowledge:
    store, image = sources.store, example.image_id
    return Knowledge(
        wikipedia=hit.text if hit else "",
        notes=_notes(store, example, span) if store and sources.use_notes else "",
        caption=(store.caption(image) or "") if store and image and sources.use_captions else "",
        objects=store.objects(image) if store and image and sources.use_objects else (),
        wikipedia_how=hit.how if hit else "",
    )


def _notes(store: Store, example: Example, span: Span) -> str:
    own, general = store.span_notes(example.id).get(span), store.notes(example.id)
    return " ".join(note for note in (own, general) if note)
