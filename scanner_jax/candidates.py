"""What stage 2 is asked about: spans with their sentences, the gold they stand for, and their prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from scanner_jax.boxes import intersection_over_union
from scanner_jax.grounding import CandidateRecall, candidate_recall
from scanner_jax.prompts import Prompt
from scanner_jax.types import NON_ENTITY, Box, Example, ImageObject, Knowledge, Span

Candidate = tuple[Example, Span]
"""A span that stage 2 is asked about, with its sentence."""


@dataclasses.dataclass(frozen=True)
class Prompted:
    """A split's candidates with the knowledge and the prompt of each."""

    candidates: list[Candidate]
    knowledge: list[Knowledge]
    prompts: list[Prompt]

    @property
    def boxes(self) -> list[list[Box]]:
        """Those of the objects in each prompt, in its order."""
        return [
            [item.box for item in known.objects[: len(prompt.object_positions)]]
            for known, prompt in zip(self.knowledge, self.prompts, strict=True)
        ]


def gold_class(example: Example, span: Span) -> str:
    """The type of the gold entity with exactly this span, else *non-entity* (paper, section 3.2)."""
    return {entity.span: entity.type for entity in example.entities}.get(span, NON_ENTITY)


def gold_boxes(candidate: Candidate) -> tuple[Box, ...]:
    """The boxes of the gold entity with exactly the candidate's span; none where there is no such entity."""
    example, span = candidate
    return {entity.span: entity.boxes for entity in example.entities}.get(span, ())


def object_overlaps(candidate: Candidate, objects: Sequence[ImageObject]) -> Float[np.ndarray, " o"]:
    """Each object's IoU with the best of the candidate's gold boxes; 0 where it has none (paper, section 3.2)."""
    boxes = [item.box for item in objects]
    return intersection_over_union(boxes, gold_boxes(candidate)).max(axis=1, initial=0.0).astype(np.float32)


def candidate_counts(candidates: Sequence[Candidate]) -> dict[str, int]:
    """How many of a split's candidates are gold entities, and how many are not."""
    entities = sum(gold_class(example, span) != NON_ENTITY for example, span in candidates)
    return {"entities": entities, "non_entities": len(candidates) - entities}


def object_recall(prompted: Prompted) -> CandidateRecall:
    """Of the groundable entities among a split's candidates, how many have an object in their prompt that is theirs."""
    return candidate_recall(
        (gold_boxes(candidate), boxes) for candidate, boxes in zip(prompted.candidates, prompted.boxes, strict=True)
    )
