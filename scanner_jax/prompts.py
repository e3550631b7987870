"""The recognizer's prompt, within a token budget (paper, section 3.2).

The entity is <mask> for {entity} in this sentence. {sentence} {Wikipedia} {caption} <obj> {object 1} <obj> ...

**Assumption:** a language model's notes, which the paper puts in Wikipedia's place, stand between Wikipedia and caption
where both are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from scanner_jax.tokens import Tokenizer
from scanner_jax.types import Example, Knowledge, Span

_SMALLEST_WINDOW = 16  # tokens of the sentence that nothing may push out
_SMALLEST_ENTITY = 8  # and of the entity, "for" included


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """Tokens of each part that did not fit into one prompt."""

    entity: int = 0
    sentence: int = 0
    wikipedia: int = 0
    notes: int = 0
    caption: int = 0
    objects: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as token ids, with the places that the model reads."""

    token_ids: tuple[int, ...]
    mask_position: int
    object_positions: tuple[int, ...]
    cut: Cut


@dataclasses.dataclass(frozen=True, slots=True)
class _Parts:
    """The token ids of a prompt's pieces, before any cut."""

    before: list[int]
    entity: list[int]
    after: list[int]
    sentence: list[int]
    wikipedia: list[int]
    notes: list[int]
    caption: list[int]
    labels: list[list[int]]
    regions: list[list[int]]


class PromptError(ValueError):
    """A token budget that cannot hold what a prompt must keep."""


def build_prompt(
    tokenizer: Tokenizer,
    example: Example,
    span: Span,
    knowledge: Knowledge,
    *,
    max_tokens: int,
    max_objects: int,
    object_token: int,
) -> Prompt:
    """Write the prompt of one candidate.

    Every piece is tokenised as plain text and the pieces are joined by ids, so text that spells `<mask>` or
    `<obj>` never becomes one, and positions are known from construction. Entity, mask, sentence and every
    `<obj>` with its label stay. What exceeds the budget is cut in this order: region captions (the last
    objects' first), then Wikipedia and the notes (whichever is longer, from its end), then the caption, and
    last the sentence, to a window around the entity. Of a candidate that is too long even so, which only a bad
    detector proposes, the first tokens stand.

    **Assumption:** the paper gives no budget and no order of cutting.

    Args:
        tokenizer: the encoder's.
        example: the sentence.
        span: the candidate.
        knowledge: what is known about it; objects in the order in which they shall stand.
        max_tokens: length of the prompt at most, special tokens included.
        max_objects: objects beyond this many are left out.
        object_token: the id of `<obj>`.

    Returns:
        The prompt.

    Raises:
        PromptError: the budget is too small for the template and the objects' labels.
    """
    parts = _tokenize(tokenizer, example, span, knowledge, max_objects=max_objects)
    frame = 3 + len(parts.before) + len(parts.after)  # start, mask and end are three
    frame += sum(1 + len(label) for label in parts.labels)
    room = max_tokens - frame
    least = min(len(parts.sentence), _SMALLEST_WINDOW)
    if room < least + min(len(parts.entity), _SMALLEST_ENTITY):
        raise PromptError(
            f"example {example.id}, candidate {example.surface(span)!r}: {max_tokens} tokens cannot hold the prompt's "
            f"frame of {frame} with a piece of entity and sentence; raise recognizer.max_tokens or lower "
            f"recognizer.max_objects ({max_objects})"
        )
    entity = parts.entity[: room - least]
    room -= len(entity)
    sentence = _window(tokenizer, example, span, parts.sentence, room)
    room -= len(sentence)
    caption = parts.caption[:room]
    room -= len(caption)
    wikipedia, notes = _share(parts.wikipedia, parts.notes, room)
    room -= len(wikipedia) + len(notes)
    regions = _fill(parts.regions, room)

    ids = [tokenizer.start, *parts.before, tokenizer.mask]
    mask_position = len(ids) - 1
    ids += [*entity, *parts.after, *sentence, *wikipedia, *notes, *caption]
    object_positions = []
    for label, region in zip(parts.labels, regions, strict=True):
        object_positions.append(len(ids))
        ids += [object_token, *label, *region]
    ids.append(tokenizer.end)
    cut = Cut(
        entity=len(parts.entity) - len(entity),
        sentence=len(parts.sentence) - len(sentence),
        wikipedia=len(parts.wikipedia) - len(wikipedia),
        notes=len(parts.notes) - len(notes),
        caption=len(parts.caption) - len(caption),
        objects=sum(map(len, parts.regions)) - sum(map(len, regions)),
    )
    return Prompt(tuple(ids), mask_position, tuple(object_positions), cut)


def cut_report(prompts: Sequence[Prompt]) -> dict[str, dict[str, float]]:
    """What did not fit: for each part the share of prompts that lost some of it, and the tokens lost in all."""
    names = [field.name for field in dataclasses.fields(Cut)]
    lost = {name: [getattr(prompt.cut, name) for prompt in prompts] for name in names}
    count = max(1, len(prompts))
    return {
        "cut_prompts_percent": {name: round(100 * sum(map(bool, lost[name])) / count, 2) for name in names},
        "cut_tokens": {name: sum(lost[name]) for name in names},
    }


def _tokenize(tokenizer: Tokenizer, example: Example, span: Span, knowledge: Knowledge, *, max_objects: int) -> _Parts:
    objects = knowledge.objects[:max_objects]
    return _Parts(
        before=tokenizer.text("The entity is"),
        entity=tokenizer.text(f"for {example.surface(span)}"),
        after=tokenizer.text("in this sentence."),
        sentence=tokenizer.text(example.text),
        wikipedia=tokenizer.text(knowledge.wikipedia),
        notes=tokenizer.text(knowledge.notes),
        caption=tokenizer.text(knowledge.caption),
        labels=[tokenizer.text(item.label) for item in objects],
        regions=[tokenizer.text(item.caption) for item in objects],
    )


def _window(tokenizer: Tokenizer, example: Example, span: Span, sentence: list[int], room: int) -> list[int]:
    """The sentence, or `room` of its tokens with the entity as near to the middle as the ends allow."""
    if len(sentence) <= room:
        return sentence
    first = len(tokenizer.text(" ".join(example.words[: span.start])))
    length = len(tokenizer.text(example.surface(span)))
    start = first + length // 2 - room // 2
    start = max(0, min(start, len(sentence) - room))
    return sentence[start : start + room]


def _share(first: list[int], second: list[int], room: int) -> tuple[list[int], list[int]]:
    """Cut two pieces to `room` tokens together, the longer one down to the shorter before both shrink."""
    half = room // 2
    if len(first) <= half:
        return first, second[: room - len(first)]
    if len(second) <= room - half:
        return first[: room - len(second)], second
    return first[:half], second[: room - half]


def _fill(regions: list[list[int]], room: int) -> list[list[int]]:
    """Keep region captions from the first object on, until the room is used up."""
    kept = []
    for region in regions:
        kept.append(region[:room])
        room -= len(kept[-1])
    return kept
