"""How GMNER is scored in other projects' code: rules that give the same predictions other numbers.

Each takes the tweets of a split and gives counts; those of its parts add up, but for `ACROSS_TWEETS`. `paper` is the
rule of this project, defined in `grounding`. The others say what they do differently; their sources are the evaluation
code of H-Index (NUSTM/GMNER), RiVEG, MQSPN and UnCo.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from scanner_jax.boxes import intersection_over_union
from scanner_jax.grounding import LEAST_IOU, grounded_counts, is_region, region_of
from scanner_jax.metrics import Counts
from scanner_jax.types import Box, Entity, Example, Span

Region = Box | int | None
"""A box, the index of a candidate, or None for an entity that is not in the image."""

Row = tuple[int, int, str, Region]
"""Start, end, type and region: what `mqspn` and `unco` compare."""

_NO_CANDIDATE = -1
"""The region of a box that is none of those it could be: it is right nowhere."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tweet:
    """All that the rules look at.

    Attributes:
        example: the sentence with its gold entities and their boxes.
        predicted: the entities as they were given, in their order, repeated spans included; one box each, or none.
        candidates: the boxes that the predicted ones were chosen from, in their order.
        annotated: the names and boxes of the image's XML file, in its order.
    """

    example: Example
    predicted: Sequence[Entity]
    candidates: Sequence[Box] = ()
    annotated: Sequence[tuple[str, Box]] = ()


def paper(tweets: Sequence[Tweet]) -> Counts:
    """The rule of `grounding`: one region a mention, IoU above 0.5 with any gold box, None where there is none."""
    return grounded_counts([tweet.example.entities for tweet in tweets], [tweet.predicted for tweet in tweets])


def hindex(tweets: Sequence[Tweet]) -> Counts:
    """H-Index: a region is the index of a candidate box, right where that box has IoU above 0.5 with any gold box.

    A predicted box stands for the candidate that it overlaps most, if that is above 0.5, else for none, which is
    wrong. So a groundable entity that no candidate covers cannot be found, and stays in recall. Of several
    predictions of a span the last one stands.
    """
    total = Counts()
    for tweet in tweets:
        gold = {entity.span: entity for entity in tweet.example.entities}
        last = {entity.span: entity for entity in tweet.predicted}
        right = 0
        for span, entity in last.items():
            if span in gold and gold[span].type == entity.type:
                right += _is_indexed(region_of(entity), tweet.candidates, gold[span].boxes)
        total += Counts(right, len(last), len(gold))
    return total


def riveg(tweets: Sequence[Tweet]) -> Counts:
    """RiVEG (E2E-GMNER scores the same): bags of image, name and type, matched one to one, whatever the position.

    Each prediction, in order, takes the first free gold entity of its image, name and type whose region fits: IoU of
    0.5 or more with any gold box; None fits None alone. A span predicted twice counts twice.
    """
    free: dict[tuple[str, str | None, str], list[tuple[Box, ...]]] = collections.defaultdict(list)
    for tweet in tweets:
        for entity in tweet.example.entities:
            free[_bag(tweet.example, entity)].append(entity.boxes)
    right = 0
    for tweet in tweets:
        for entity in tweet.predicted:
            bag = free.get(_bag(tweet.example, entity), [])
            fitting = [place for place, boxes in enumerate(bag) if _fits(region_of(entity), boxes)]
            if fitting:
                bag.pop(fitting[0])
                right += 1
    return Counts(
        right, sum(len(tweet.predicted) for tweet in tweets), sum(len(tweet.example.entities) for tweet in tweets)
    )


def mqspn(tweets: Sequence[Tweet]) -> Counts:
    """MQSPN: a gold tuple for each candidate box that is an entity's; over-grounding is forgiven once.

    A candidate belongs to the last object of the XML file that it overlaps with IoU of 0.5 or more. A groundable
    entity without a candidate becomes None. Of predictions whose spans overlap, the one with the highest candidate
    index stays; None, and a box that is no candidate, come last. For each wrong prediction whose span and type are
    gold, None is taken as predicted too (`_with_none`). A predicted box stands for the candidate that it overlaps
    most, if that is 0.5 or more. Micro scores.
    """
    return _total(_mqspn(tweet) for tweet in tweets)


def unco(tweets: Sequence[Tweet]) -> Counts:
    """UnCo: a gold tuple for each gold box; over-grounding is forgiven once; tweets without either side are skipped.

    A predicted box takes the first gold box of its span that it overlaps with IoU of 0.5 or more; all others become
    the same wrong value. For each wrong prediction whose span and type are gold, None is taken as predicted too
    (`_with_none`). A tweet without gold, or without predictions, does not count.
    """
    return _total(_unco(tweet) for tweet in tweets if tweet.example.entities and tweet.predicted)


PROTOCOLS: dict[str, Callable[[Sequence[Tweet]], Counts]] = {
    "paper": paper,
    "riveg": riveg,
    "hindex": hindex,
    "mqspn": mqspn,
    "unco": unco,
}

FROM_CANDIDATES = ("hindex", "mqspn")
"""The rules that know a region by its index among the candidate boxes."""

ACROSS_TWEETS = ("riveg",)
"""The rules that match over all tweets of an image, and so need the whole split at once."""


def _is_indexed(box: Box | None, candidates: Sequence[Box], gold: Sequence[Box]) -> bool:
    if box is None:
        return is_region(None, gold)
    place = _candidate(box, candidates, above=LEAST_IOU)
    return place != _NO_CANDIDATE and is_region(candidates[place], gold)


def _candidate(box: Box, candidates: Sequence[Box], *, above: float) -> int:
    """The place of the candidate that a box overlaps most, the first of equals; `_NO_CANDIDATE` if not by more."""
    overlaps = intersection_over_union([box], candidates)[0]
    place = int(overlaps.argmax()) if len(overlaps) else _NO_CANDIDATE
    return place if place >= 0 and overlaps[place] > above else _NO_CANDIDATE


_AT_LEAST_HALF = float(np.nextafter(LEAST_IOU, 0))
"""Above this is 0.5 or more."""


def _bag(example: Example, entity: Entity) -> tuple[str, str | None, str]:
    inside = 0 <= entity.start < entity.end <= len(example.words)
    return example.image_id or example.id, example.surface(entity) if inside else None, entity.type


def _fits(box: Box | None, gold: Sequence[Box]) -> bool:
    if box is None or not gold:
        return box is None and not gold
    return bool(intersection_over_union([box], gold).max() >= LEAST_IOU)


def _mqspn(tweet: Tweet) -> Counts:
    owners = [_owner(box, tweet.annotated) for box in tweet.candidates]
    gold: list[Row] = []
    for entity in tweet.example.entities:
        surface = tweet.example.surface(entity)
        places: list[Region] = [place for place, owner in enumerate(owners) if owner == surface]
        gold += [(entity.start, entity.end, entity.type, place) for place in places or [None]]
    predicted: list[Row] = []
    for entity in tweet.predicted:
        box = region_of(entity)
        place = None if box is None else _candidate(box, tweet.candidates, above=_AT_LEAST_HALF)
        predicted.append((entity.start, entity.end, entity.type, place))
    return _compare(gold, _without_overlaps(predicted))


def _owner(box: Box, annotated: Sequence[tuple[str, Box]]) -> str | None:
    """The name of the last object that a box overlaps with IoU of 0.5 or more."""
    overlaps = intersection_over_union([box], [own for _, own in annotated])[0]
    places = np.flatnonzero(overlaps >= LEAST_IOU)
    return annotated[places[-1]][0] if len(places) else None


def _without_overlaps(rows: Sequence[Row]) -> list[Row]:
    """Rows by falling candidate index, the first given first among equals, without those that overlap one before."""
    kept: list[Row] = []
    for row in sorted(rows, key=_index, reverse=True):
        if not any(row[0] < other[1] and other[0] < row[1] for other in kept):
            kept.append(row)
    return kept


def _index(row: Row) -> int:
    return row[3] if isinstance(row[3], int) else _NO_CANDIDATE


def _unco(tweet: Tweet) -> Counts:
    gold: list[Row] = []
    boxes: dict[Span, list[Box]] = collections.defaultdict(list)
    for entity in tweet.example.entities:
        boxes[entity.span] += entity.boxes
        gold += [(entity.start, entity.end, entity.type, box) for box in entity.boxes or (None,)]
    predicted: list[Row] = []
    for entity in tweet.predicted:
        region: Region = region_of(entity)
        if entity.boxes:
            own = boxes.get(entity.span, [])
            places = np.flatnonzero(intersection_over_union(entity.boxes[:1], own)[0] >= LEAST_IOU)
            region = own[places[0]] if len(places) else _NO_CANDIDATE
        predicted.append((entity.start, entity.end, entity.type, region))
    return _compare(gold, predicted)


def _compare(gold: Sequence[Row], predicted: Sequence[Row]) -> Counts:
    """Compare as sets, after `_with_none`."""
    wanted = set(gold)
    found = _with_none(wanted, set(predicted))
    return Counts(len(wanted & found), len(found), len(wanted))


def _with_none(gold: set[Row], predicted: set[Row]) -> set[Row]:
    """Predictions and, for each that is wrong while its span and type are gold, the same with None (`collect`)."""
    typed = {row[:3] for row in gold}
    return predicted | {(*row[:3], None) for row in predicted - gold if row[:3] in typed}


def _total(parts: Iterable[Counts]) -> Counts:
    return sum(parts, Counts())
