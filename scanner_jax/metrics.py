"""Scores of predicted entities: addable counts, the recognizer's block of metrics.json, and its text table."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple, TypedDict

from scanner_jax.spill import SpilledSet
from scanner_jax.types import Entity, Example


class PRF(TypedDict):
    """Precision, recall and F1 in percent, and the number of gold items behind them."""

    precision: float
    recall: float
    f1: float
    support: int


class RecognizerScores(TypedDict):
    """The recognizer's scores over one split; all of them judge span and type."""

    micro: PRF
    per_type: dict[str, PRF]
    seen: PRF
    unseen: PRF


@dataclasses.dataclass(frozen=True, slots=True)
class Counts:
    """How many items were right, predicted and gold; the counts of two parts of a split add up."""

    true_positives: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.true_positives + other.true_positives, self.predicted + other.predicted, self.gold + other.gold
        )

    @property
    def precision(self) -> float:
        """Right among predicted, in percent; 0 where nothing was predicted."""
        return _percent(self.true_positives, self.predicted)

    @property
    def recall(self) -> float:
        """Right among gold, in percent; 0 where there is no gold."""
        return _percent(self.true_positives, self.gold)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in percent; 0 where nothing is right."""
        return _percent(2 * self.true_positives, self.predicted + self.gold)

    def prf(self) -> PRF:
        """The scores as reports give them, rounded to two decimals."""
        return PRF(
            precision=round(self.precision, 2),
            recall=round(self.recall, 2),
            f1=round(self.f1, 2),
            support=self.gold,
        )


Tally = Mapping[str, Counts | Mapping[str, Counts]]
"""Counts by the names of their scores; some are split by type."""


class _Mention(NamedTuple):
    """An entity of one sentence."""

    start: int
    end: int
    type: str


def entity_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Counts:
    """Count entities whose span and type are both right (the micro score of NER and MNER).

    Every gold entity counts, proposed by stage 1 or not. A span predicted more than once counts once:
    its last prediction stands.

    Args:
        gold: the gold entities of each sentence.
        predicted: the predicted ones, in the same order of sentences.

    Returns:
        The counts over all sentences.

    Raises:
        ValueError: the two have different numbers of sentences.
    """
    return _total(_compare(*mentions) for mentions in _mentions(gold, predicted))


def span_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Counts:
    """Count entities whose span is right, whatever the type; arguments and errors as in `entity_counts`."""
    return _total(
        _compare({mention[:2] for mention in wanted}, {mention[:2] for mention in found})
        for wanted, found in _mentions(gold, predicted)
    )


def type_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> dict[str, Counts]:
    """Split `entity_counts` by type: every type of gold or prediction, sorted by name; the counts add up to it."""
    right, guesses, golds = Counter[str](), Counter[str](), Counter[str]()
    for wanted, found in _mentions(gold, predicted):
        right.update(mention.type for mention in wanted & found)
        guesses.update(mention.type for mention in found)
        golds.update(mention.type for mention in wanted)
    return {name: Counts(right[name], guesses[name], golds[name]) for name in sorted(guesses | golds)}


def surfaces(examples: Iterable[Example]) -> SpilledSet:
    """The surfaces of all gold entities; of a training split, these are what "seen" refers to."""
    return SpilledSet(example.surface(entity) for example in examples for entity in example.entities)


def seen_counts(
    examples: Sequence[Example], predicted: Sequence[Sequence[Entity]], *, training_surfaces: AbstractSet[str]
) -> tuple[Counts, Counts]:
    """Split `entity_counts` into surfaces that are gold in the training split and all others (paper, Table 8).

    **Assumption:** an entity is seen where its exact surface (its words joined by single spaces, case kept)
    is a gold surface of any type there; gold and predictions are each split by their own surface. A span that is
    not within its sentence has no surface, so it is unseen.

    Args:
        examples: the split, with its gold entities.
        predicted: the predicted entities of each example.
        training_surfaces: `surfaces` of the training split.

    Returns:
        The counts of the seen and of the unseen; they add up to `entity_counts`.

    Raises:
        ValueError: the numbers of examples and of predictions differ.
    """
    seen_total, unseen_total = Counts(), Counts()
    sides = _mentions([example.entities for example in examples], predicted)
    for example, (wanted, found) in zip(examples, sides, strict=False):  # whose numbers `_mentions` compares
        seen = {mention for mention in wanted | found if _surface(example, mention) in training_surfaces}
        seen_total += _compare(wanted & seen, found & seen)
        unseen_total += _compare(wanted - seen, found - seen)
    return seen_total, unseen_total


def recognizer_scores(
    examples: Sequence[Example], predicted: Sequence[Sequence[Entity]], *, training_surfaces: AbstractSet[str]
) -> RecognizerScores:
    """Score typed entities over a whole split; arguments and errors as in `seen_counts`."""
    scores = scores_of(recognizer_tally(examples, predicted, training_surfaces=training_surfaces))
    return RecognizerScores(
        micro=scores["micro"], per_type=scores["per_type"], seen=scores["seen"], unseen=scores["unseen"]
    )


def recognizer_tally(
    examples: Sequence[Example], predicted: Sequence[Sequence[Entity]], *, training_surfaces: AbstractSet[str]
) -> Tally:
    """The counts behind `recognizer_scores`; those of two parts of a split may be added."""
    gold = [example.entities for example in examples]
    seen, unseen = seen_counts(examples, predicted, training_surfaces=training_surfaces)
    per_type = type_counts(gold, predicted)
    return {"micro": entity_counts(gold, predicted), "per_type": per_type, "seen": seen, "unseen": unseen}


def added(one: Tally, other: Tally) -> Tally:
    """The counts of two parts of a split together; what one of them lacks is nothing there."""
    total: dict[str, Counts | Mapping[str, Counts]] = {**one}
    for name, counts in other.items():
        known = total.get(name)
        if isinstance(counts, Counts):
            total[name] = counts + known if isinstance(known, Counts) else counts
        else:
            before = known if isinstance(known, Mapping) else {}
            both = {kind: before.get(kind, Counts()) + counts.get(kind, Counts()) for kind in {**before, **counts}}
            total[name] = dict(sorted(both.items()))
    return total


def scores_of(tally: Tally) -> dict[str, Any]:
    """The scores of counts, as reports give them."""
    return {
        name: counts.prf() if isinstance(counts, Counts) else {kind: own.prf() for kind, own in counts.items()}
        for name, counts in tally.items()
    }


def metrics_table(metrics: Mapping[str, object]) -> str:
    """Write the contents of metrics.json as plain aligned text.

    Args:
        metrics: nested mappings; each PRF becomes a row named by the keys that lead to it, and so does None
            (not measured), shown as dashes; other values stand below the table, those of one mapping on a line.

    Returns:
        The text, in the mapping's own order, each line ended by a newline.
    """
    columns = tuple(PRF.__annotations__)
    rows: list[tuple[str, ...]] = [("", *columns)]
    others: list[tuple[str, str]] = []
    for name, value in _leaves(metrics, ()):
        if isinstance(value, Mapping) and value.keys() != PRF.__annotations__.keys():
            others.append((name, ", ".join(f"{key} {_cell(inner)}" for key, inner in value.items())))
        elif isinstance(value, Mapping):
            rows.append((name, *(_cell(value[column]) for column in columns)))
        elif value is None:
            rows.append((name, *("-" for _ in columns)))
        else:
            others.append((name, _cell(value)))
    name_width = max(len(row[0]) for row in [*rows, *others])
    lines = [row[0].ljust(name_width) + "".join(f"{cell:>11}" for cell in row[1:]) for row in rows]
    if others:
        lines += ["", *(f"{name.ljust(name_width)}   {cell}" for name, cell in others)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _mentions(
    gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> Iterator[tuple[set[_Mention], set[_Mention]]]:
    """Both sides of each sentence as sets, with one type for each predicted span."""
    if len(gold) != len(predicted):
        raise ValueError(
            f"{len(gold)} sentences of gold entities but {len(predicted)} of predicted ones: "
            "give one sequence for every sentence, an empty one where nothing is predicted"
        )
    for wanted, found in zip(gold, predicted, strict=True):
        last = {(entity.start, entity.end): entity.type for entity in found}
        yield (
            {_Mention(entity.start, entity.end, entity.type) for entity in wanted},
            {_Mention(*span, name) for span, name in last.items()},
        )


def _surface(example: Example, mention: _Mention) -> str | None:
    """A mention's words, None where it is not within its sentence."""
    inside = 0 <= mention.start < mention.end <= len(example.words)
    return " ".join(example.words[mention.start : mention.end]) if inside else None


def _compare(gold: AbstractSet[tuple[object, ...]], predicted: AbstractSet[tuple[object, ...]]) -> Counts:
    return Counts(true_positives=len(gold & predicted), predicted=len(predicted), gold=len(gold))


def _total(parts: Iterable[Counts]) -> Counts:
    return sum(parts, Counts())


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """Every mapping of plain values (a PRF is one) and every other value, with the keys that lead to it."""
    if isinstance(value, Mapping) and any(inner is None or isinstance(inner, Mapping) for inner in value.values()):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield " ".join(path), value


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
