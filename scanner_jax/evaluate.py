"""The report of a run: metrics.json, the same as a text table, and the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax.files import write_json, write_json_lines, write_text
from scanner_jax.metrics import metrics_table
from scanner_jax.types import Entity, Example


def prediction_record(example: Example, entities: Sequence[tuple[Entity, float]]) -> dict[str, Any]:
    """One line of the predictions format.

    Args:
        example: the sentence.
        entities: its predicted entities with the probability of their type.

    Returns:
        `id` and `entities`; each entity with `start`, `end` (words, end exclusive), `start_char`, `end_char`
        (in the words joined by single spaces), `text`, `type`, `score` and `box` ([x1, y1, x2, y2] pixels or None).
    """
    records = []
    for entity, score in sorted(entities, key=lambda item: item[0].span):
        start_char, end_char = example.characters(entity)
        records.append(
            {
                "start": entity.start,
                "end": entity.end,
                "start_char": start_char,
                "end_char": end_char,
                "text": example.surface(entity),
                "type": entity.type,
                "score": round(score, 6),
                "box": list(entity.boxes[0]) if entity.boxes else None,
            }
        )
    return {"id": example.id, "entities": records}


def write_report(folder: Path, metrics: Mapping[str, Any], predictions: Sequence[Mapping[str, Any]]) -> str:
    """Write `metrics.json`, `metrics.txt` and `predictions.jsonl`, each aside and then renamed.

    Args:
        folder: made if missing.
        metrics: without paths, times or hosts, so that equal runs give equal files.
        predictions: one record an example.

    Returns:
        The text table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = metrics_table(metrics)
    write_text(folder / "metrics.txt", [table])
    write_json_lines(folder / "predictions.jsonl", predictions)
    write_json(folder / "metrics.json", metrics)
    return table
