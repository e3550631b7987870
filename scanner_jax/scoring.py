"""Scores of predictions over a split of a corpus, counted a part of its sentences at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from scanner_jax.alignment import Aligned, EvaluationError, Noticed, align, check_ids, note_unknown_ids
from scanner_jax.corpora import Corpus
from scanner_jax.grounding import covered_counts, grounded_tally, recall_of, without_boxes
from scanner_jax.metrics import Counts, Tally, added, recognizer_tally, scores_of, span_counts, surfaces
from scanner_jax.protocols import ACROSS_TWEETS, FROM_CANDIDATES, PROTOCOLS, Tweet
from scanner_jax.types import Box, Entity, Example

AT_ONCE = 1000
"""Sentences that are scored together; counts are added up."""


def evaluate(
    corpus: Corpus,
    split: str,
    predictions: Mapping[str, Sequence[Entity]],
    *,
    trained_on: Sequence[str],
    protocol: str = "paper",
    candidates: Mapping[str, Sequence[Box]] | None = None,
) -> tuple[dict[str, Any], Noticed]:
    """Score predictions of one split.

    Args:
        corpus: with gold entities.
        split: the one that was predicted.
        predictions: each id's entities.
        trained_on: the splits whose surfaces are the seen ones.
        protocol: how boxes are scored, a key of `protocols.PROTOCOLS`; of no use where the corpus has none.
        candidates: each id's candidate boxes; None takes the gold boxes where the protocol needs any.

    Returns:
        Scores and counts as `--json` writes them, without paths; and what was noticed.

    Raises:
        EvaluationError: no id of the split is among the predictions, or among the candidates; there are no boxes to
            score by another protocol, or to compare candidates with.
    """
    examples = gold_of(corpus, split)
    check_ids(examples, predictions)
    if candidates is not None and not any(example.id in candidates for example in examples):
        raise EvaluationError("not one id of the candidates is one of the split's; another split's file?")
    if not corpus.has_boxes and (protocol != "paper" or candidates is not None):
        raise EvaluationError(f"{corpus.name} has no boxes: --protocol and --candidates are for grounded entities")
    seen = surfaces(example for name in trained_on for example in gold_of(corpus, name))
    noticed, tally = Noticed(), _Tallied()
    at_once = len(examples) if protocol in ACROSS_TWEETS else AT_ONCE
    for start in range(0, len(examples), at_once):
        some = examples[start : start + at_once]
        aligned = align(some, predictions, types=corpus.types, noticed=noticed)
        tally = tally.and_also(_tallied(corpus, some, aligned, seen, protocol=protocol, candidates=candidates))
    note_unknown_ids(examples, predictions, noticed)
    result = {
        "corpus": {"name": corpus.name, "variant": corpus.variant, "sha256": corpus.fingerprint},
        "split": split,
        "trained_on": list(trained_on),
        "gold": {"sentences": len(examples), "entities": tally.gold},
        "predictions": noticed.counts(),
        **scores_of(tally.typed),
    }
    if corpus.has_boxes:
        result["protocol"] = protocol
        if protocol in FROM_CANDIDATES:
            result["candidates"] = "gold boxes" if candidates is None else "given"
        result |= scores_of(tally.grounded)
        if candidates is not None:
            result["candidate_boxes"] = recall_of(tally.covered)
    return result, noticed


@dataclasses.dataclass(frozen=True, slots=True)
class _Tallied:
    """The counts of a part of a split: gold entities, typed ones, ones with boxes, and candidate boxes."""

    gold: int = 0
    typed: Tally = dataclasses.field(default_factory=dict)
    grounded: Tally = dataclasses.field(default_factory=dict)
    covered: Counts = dataclasses.field(default_factory=Counts)

    def and_also(self, other: _Tallied) -> _Tallied:
        """With those of another part."""
        return _Tallied(
            self.gold + other.gold,
            added(self.typed, other.typed),
            added(self.grounded, other.grounded),
            self.covered + other.covered,
        )


def _tallied(
    corpus: Corpus,
    examples: Sequence[Example],
    aligned: Aligned,
    seen: AbstractSet[str],
    *,
    protocol: str,
    candidates: Mapping[str, Sequence[Box]] | None,
) -> _Tallied:
    """The counts of some examples, with boxes by one protocol."""
    gold = [example.entities for example in examples]
    count = sum(map(len, gold))
    typed = recognizer_tally(examples, aligned.entities, training_surfaces=seen)
    typed = {**typed, "span": span_counts(gold, aligned.entities)}
    if not corpus.has_boxes:
        return _Tallied(count, typed)
    if candidates is None:
        boxes = [list(dict.fromkeys(box for entity in entities for box in entity.boxes)) for entities in gold]
    else:
        boxes = [list(candidates.get(example.id, ())) for example in examples]
    pairs = ((e.boxes, own) for entities, own in zip(gold, boxes, strict=True) for e in entities)
    covered = covered_counts(pairs) if candidates is not None else Counts()
    if protocol == "paper":
        return _Tallied(count, typed, grounded_tally(gold, aligned.entities), covered)
    grounded = {}
    for name, given in (("gmner", aligned.given), ("always_none", without_boxes(aligned.given))):
        tweets = [
            Tweet(example, predicted, own, _annotated(corpus, example))
            for example, predicted, own in zip(examples, given, boxes, strict=True)
        ]
        grounded[name] = PROTOCOLS[protocol](tweets)
    return _Tallied(count, typed, grounded, covered)


def _annotated(corpus: Corpus, example: Example) -> Sequence[tuple[str, Box]]:
    found = corpus.annotations.get(example.image_id or "")
    return found.objects if found else ()


def gold_of(corpus: Corpus, split: str) -> Sequence[Example]:
    """A split's examples.

    Raises:
        EvaluationError: there is no such split, or it has words alone.
    """
    if split not in corpus.splits or not corpus.has_gold(split):
        found = "no gold entities, words alone" if split in corpus.splits else "no such split"
        scored = ", ".join(name for name in corpus.splits if corpus.has_gold(name))
        raise EvaluationError(f"{corpus.name}, {split}: {found}; splits with gold: {scored}")
    return corpus.splits[split]
