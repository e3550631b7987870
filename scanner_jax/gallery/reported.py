"""What a report folder says of each example of test."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.alignment import align, check_ids
from scanner_jax.files import read_json_lines
from scanner_jax.predictions import read_predictions
from scanner_jax.types import Entity, Example, ImageObject, Knowledge, Span

Place = tuple[str, int, int]
"""An example's id, and a span's start and end in it."""


class GalleryError(ValueError):
    """Reports of which no gallery can be made; the message says why and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a candidate's prompt was told, and what came of it; its fields are those of `analysis.prompt_record`."""

    span: Span
    knowledge: Knowledge
    cut: Mapping[str, int]
    predicted: str
    probabilities: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A run's predictions on test, and how it came to them.

    Attributes:
        entities: each example's predicted entities, by id.
        box_scores: of a predicted entity, the overlap score of its best object, where it had any.
        prompts: each example's candidates, by id; None where the run kept no prompts.
        box_threshold: the score above which an entity has a box; None where the run does not ground its entities.
    """

    entities: Mapping[str, Sequence[Entity]]
    box_scores: Mapping[Place, float]
    prompts: Mapping[str, Sequence[Told]] | None
    box_threshold: float | None

    @property
    def grounded(self) -> bool:
        return self.box_threshold is not None


def read_report(folder: Path, examples: Sequence[Example], *, box_threshold: float | None) -> Reported:
    """Read `predictions.jsonl` and `prompts.jsonl`.

    Args:
        folder: the report's.
        examples: those of test.
        box_threshold: as `Reported` has it.

    Raises:
        GalleryError: a file is missing, or not what a report has.
        PredictionsError: predictions.jsonl has malformed lines.
        EvaluationError: the predictions are those of other examples.
    """
    path = folder / "predictions.jsonl"
    try:
        predictions = read_predictions(path)
    except FileNotFoundError:
        raise GalleryError(f"{path} is missing: give the folder of a run that training has finished") from None
    check_ids(examples, predictions)
    found = align(examples, predictions).entities
    entities = {example.id: own for example, own in zip(examples, found, strict=True)}
    return Reported(
        entities=entities, box_scores=_box_scores(path), prompts=_prompts(folder), box_threshold=box_threshold
    )


def _box_scores(path: Path) -> dict[Place, float]:
    return {
        (line["id"], item["start"], item["end"]): float(item["box_score"])
        for line in read_json_lines(path)
        for item in line["entities"]
        if isinstance(item.get("box_score"), int | float)
    }


def _prompts(folder: Path) -> dict[str, list[Told]] | None:
    path = folder / "prompts.jsonl"
    if not path.is_file():
        return None
    found: dict[str, list[Told]] = {}
    try:
        for record in read_json_lines(path):
            found.setdefault(record["id"], []).append(_told(record))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise GalleryError(
            f"{path}: not what a report has there ({error!r}); give the training's command again, which writes it anew"
        ) from None
    return found


def _told(record: Mapping[str, Any]) -> Told:
    """A line of prompts.jsonl; where something is missing or of another kind, one of many errors."""
    texts = ("wikipedia", "notes", "caption", "wikipedia_how", "object_order")
    objects = []
    for item in record["objects"]:
        x1, y1, x2, y2 = map(float, item["box"])
        objects.append(ImageObject((x1, y1, x2, y2), str(item["label"]), float(item["score"]), str(item["caption"])))
    return Told(
        span=Span(int(record["start"]), int(record["end"])),
        knowledge=Knowledge(**{name: str(record[name]) for name in texts}, objects=tuple(objects)),
        cut={str(part): int(tokens) for part, tokens in record["cut"].items()},
        predicted=str(record["predicted"]),
        probabilities={str(name): float(value) for name, value in record["probabilities"].items()},
    )
