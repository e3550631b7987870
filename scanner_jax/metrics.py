"""Scores of predicted entities: addable counts, the recognizer's block of metrics.json, and its text table."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypedDict

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


class _Mention(NamedTuple):
    """An entity and the sentence it stands in."""

    sentence: int
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
    return _compare(*_mentions(gold, predicted))


def span_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> Counts:
    """Count entities whose span is right, whatever the type; arguments and errors as in `entity_counts`."""
    gold_mentions, predicted_mentions = _mentions(gold, predicted)
    return _compare({mention[:3] for mention in gold_mentions}, {mention[:3] for mention in predicted_mentions})


def type_counts(gold: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]) -> dict[str, Counts]:
    """Split `entity_counts` by type: every type of gold or prediction, sorted by name; the counts add up to it."""
    gold_mentions, predicted_mentions = _mentions(gold, predicted)
    return {
        name: _compare(
            {mention for mention in gold_mentions if mention.type == name},
            {mention for mention in predicted_mentions if mention.type == name},
        )
        for name in sorted({mention.type for mention in gold_mentions | predicted_mentions})
    }


def surfaces(examples: Sequence[Example]) -> frozenset[str]:
    """The surfaces of all gold entities; of a training split, these are what "seen" refers to."""
    return frozenset(example.surface(entity) for example in examples for entity in example.entities)


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
    gold_mentions, predicted_mentions = _mentions([example.entities for example in examples], predicted)

    def seen(mention: _Mention) -> bool:
        words = examples[mention.sentence].words
        inside = 0 <= mention.start < mention.end <= len(words)
        return inside and " ".join(words[mention.start : mention.end]) in training_surfaces

    seen_gold = {mention for mention in gold_mentions if seen(mention)}
    seen_predicted = {mention for mention in predicted_mentions if seen(mention)}
    return (
        _compare(seen_gold, seen_predicted),
        _compare(gold_mentions - seen_gold, predicted_mentions - seen_predicted),
    )


def recognizer_scores(
    examples: Sequence[Example], predicted: Sequence[Sequence[Entity]], *, training_surfaces: AbstractSet[str]
) -> RecognizerScores:
    """Score typed entities over a whole split; arguments and errors as in `seen_counts`."""
    gold = [example.entities for example in examples]
    seen, unseen = seen_counts(examples, predicted, training_surfaces=training_surfaces)
    return RecognizerScores(
        micro=entity_counts(gold, predicted).prf(),
        per_type={name: counts.prf() for name, counts in type_counts(gold, predicted).items()},
        seen=seen.prf(),
        unseen=unseen.prf(),
    )


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
) -> tuple[set[_Mention], set[_Mention]]:
    """Both sides as sets, with one type for each predicted span."""
    if len(gold) != len(predicted):
        raise ValueError(
            f"{len(gold)} sentences of gold entities but {len(predicted)} of predicted ones: "
            "give one sequence for every sentence, an empty one where nothing is predicted"
        )
    last = {
        (sentence, entity.start, entity.end): entity.type
        for sentence, entities in enumerate(predicted)
        for entity in entities
    }
    return (
        {
            _Mention(sentence, entity.start, entity.end, entity.type)
            for sentence, entities in enumerate(gold)
            for entity in entities
        },
        {_Mention(*span, name) for span, name in last.items()},
    )


def _compare(gold: AbstractSet[tuple[object, ...]], predicted: AbstractSet[tuple[object, ...]]) -> Counts:
    return Counts(true_positives=len(gold & predicted), predicted=len(predicted), gold=len(gold))


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """Every mapping of plain values (a PRF is one) and every other value, with the keys that lead to it."""
    if isinstance(value, Mapping) and any(inner is None or isinstance(inner, Mapping) for inner in value.values()):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield " ".join(path), value


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
