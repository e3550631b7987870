"""What a candidate's prompt was told, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from scanner_jax.analysis.suspects import probabilities
from scanner_jax.candidates import Prompted
from scanner_jax.decoding import TypeLogits
from scanner_jax.prompts import Prompt
from scanner_jax.types import Example, Knowledge, Span


def prompt_records(
    prompted: Prompted, logits: TypeLogits, *, classes: Sequence[str], max_objects: int
) -> Iterator[dict[str, Any]]:
    """What each candidate's prompt was told, and what the recognizer made of it; one `prompt_record` each."""
    rows = zip(prompted.candidates, prompted.knowledge, prompted.prompts, probabilities(logits), strict=True)
    for (example, span), known, prompt, row in rows:
        yield prompt_record(
            example,
            span,
            knowledge=known,
            prompt=prompt,
            max_objects=max_objects,
            classes=classes,
            probabilities=row.tolist(),
        )


def prompt_record(
    example: Example,
    span: Span,
    *,
    knowledge: Knowledge,
    prompt: Prompt,
    max_objects: int,
    classes: Sequence[str],
    probabilities: Sequence[float],
) -> dict[str, Any]:
    """One line of prompts.jsonl.

    Args:
        example: the candidate's sentence.
        span: the candidate.
        knowledge: what was found for it.
        prompt: what became of it.
        max_objects: objects beyond this many were left out.
        classes: the recognizer's, in order.
        probabilities: the recognizer's, one for each class.

    Returns:
        `id`, `start`, `end`, `text`; `wikipedia`, `notes`, `caption` and `objects` as they were given, before any cut;
        `wikipedia_how` that text was found, "" where it was not; `object_order`, what the objects stand in order of, ""
        where there are none; `cut`, the tokens of each part that did not fit; the `predicted` class and all
        `probabilities`.
    """
    rounded = {name: round(float(value), 6) for name, value in zip(classes, probabilities, strict=True)}
    return {
        "id": example.id,
        "start": span.start,
        "end": span.end,
        "text": example.surface(span),
        "wikipedia": knowledge.wikipedia,
        "wikipedia_how": knowledge.wikipedia_how,
        "notes": knowledge.notes,
        "caption": knowledge.caption,
        "objects": [dataclasses.asdict(item) for item in knowledge.objects[:max_objects]],
        "object_order": knowledge.object_order,
        "cut": dataclasses.asdict(prompt.cut),
        "predicted": max(zip(probabilities, classes, strict=True), key=lambda item: item[0])[1],
        "probabilities": rounded,
    }
