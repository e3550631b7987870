"""What a scanner is asked, and what it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from scanner_jax.predictions import Predicted
from scanner_jax.types import Box, Knowledge, Span
from scanner_jax.words import Words, given_words, split_words

Picture = str | Path | Image.Image
"""A file, or an image in memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """An entity found in a text; it prints as `Kroger[26:32] ORG 0.97`.

    Attributes:
        text: as it stands in the text.
        label: its type.
        score: the probability of the type.
        start: its first character in the text as given.
        end: the character after its last.
        box: x1, y1, x2, y2 in pixels of the image; None where it is not seen there.
        box_score: the overlap score of the image's best object, from 0 to 1, even where it is too low for a box;
            None where there was no object.
    """

    text: str
    label: str
    score: float
    start: int
    end: int
    box: Box | None = None
    box_score: float | None = None

    def __str__(self) -> str:
        return f"{self.text}[{self.start}:{self.end}] {self.label} {self.score:.2f}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A text to predict, with more than the text.

    Attributes:
        text: split into words by the rule of `scanner_jax.words`.
        words: in its place; offsets then count characters of the words joined by single blanks.
        image: that belongs to it.
        knowledge: what is known; it stands before a store's.
        id: the example's in a store with notes.
        image_id: the image's in a store; by default its file's name without the ending.
    """

    text: str | None = None
    words: Sequence[str] | None = None
    image: Picture | None = None
    knowledge: Knowledge | None = None
    id: str = ""
    image_id: str | None = None

    def split(self) -> Words:
        """The words, and where they are in the text.

        Raises:
            ValueError: there are not either text or words, or not of the right kind.
        """
        if (self.text is None) == (self.words is None):
            raise ValueError("give a text, or words in its place")
        if self.words is not None:
            return given_words(self.words)
        if not isinstance(self.text, str):
            raise ValueError(f"text is {type(self.text).__name__}; expected a string, or words=[...]")
        return split_words(self.text)


class Prediction(NamedTuple):
    """What was found in one text, and what it was told for.

    Attributes:
        words: the text and its words.
        predicted: the entities over words, as the predictions format has them.
        entities: the same over characters.
        knowledge: of every span that the detector proposed, entity or not; with no more objects than a prompt has.
        remarks: what could not be used, and why, of all texts that were predicted together.
    """

    words: Words
    predicted: tuple[Predicted, ...]
    entities: tuple[Entity, ...]
    knowledge: Mapping[Span, Knowledge]
    remarks: tuple[str, ...] = ()
