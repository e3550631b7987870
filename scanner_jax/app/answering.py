"""What the page answers, without Gradio: one question at a time, whatever is wrong with it in words."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from scanner_jax.gallery.pictures import Picture, read_picture
from scanner_jax.images import UnreadableImage, without_extension
from scanner_jax.model_options import Known
from scanner_jax.scanner import Prediction, Request, Scanner

logger = logging.getLogger(__name__)

LONGEST_TEXT = 5_000
"""Characters of a question; longer ones would keep the others waiting."""

LONGEST_SIDE = 800
"""Pixels of the picture in an answer."""

_STORED = {"caption": "captions", "objects": "objects"}
"""What a store has by images: field of `Knowledge` -> the store's kind."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found, or why nothing was.

    Attributes:
        problems: what is wrong with what was given.
        remarks: what else there is to say, such as what could not be looked up.
        prediction: None where there was nothing to predict.
        picture: as the page shows it; None where none was given, or it cannot be read.
        missing: by kind of knowledge, as fields of `Knowledge`, why a span may have none.
    """

    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    prediction: Prediction | None = None
    picture: Picture | None = None
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Desk:
    """Answers questions with a model, one after the other.

    Args:
        scanner: the model.
        known: where knowledge is looked up.
    """

    def __init__(self, scanner: Scanner, known: Known) -> None:
        self.scanner = scanner
        self._known = known
        self._lock = threading.Lock()  # a scanner is for one thread at a time

    def answer(self, text: str | None, image: Path | None) -> Answer:
        """Find the entities of a text; never raises.

        Args:
            text: as a user wrote it.
            image: a file, whose name a store may know; None where there is none.
        """
        text = (text or "").encode(errors="replace").decode()  # half a character, which JSON can spell, is no UTF-8
        if not text.strip():
            return Answer(problems=("Write a sentence: entities are found in it, and a picture tells more of them.",))
        if len(text) > LONGEST_TEXT:
            size = f"{len(text):,} characters, and {LONGEST_TEXT:,} are the most here"
            return Answer(problems=(f"The text has {size}; python -m scanner_jax.predict takes more.",))
        try:
            with self._lock:
                return self._answer(text, image)
        except ValueError as error:  # of model, store or index, in words
            return Answer(problems=(str(error),))
        except Exception as error:
            logger.exception("a question could not be answered")
            what = f"This could not be answered ({type(error).__name__}); the page's terminal tells why."
            return Answer(problems=(what,))

    def _answer(self, text: str, image: Path | None) -> Answer:
        problems, picture = [], None
        if image is not None:
            try:
                picture = read_picture(image, longest_side=LONGEST_SIDE)
            except UnreadableImage as error:
                problems.append(f"The picture cannot be used: {error}. The sentence was read without it.")
        shown = image if picture is not None else None
        (prediction,) = self.scanner.explain([Request(text=text, image=shown)], batch_size=1, **self._known)
        return Answer(
            problems=tuple(problems),
            remarks=(*self._recognized(shown), *prediction.remarks),
            prediction=prediction,
            picture=picture,
            missing=self._missing(shown),
        )

    def _recognized(self, image: Path | None) -> tuple[str, ...]:
        """Say so where the store takes a picture for one of its own, by the name of its file."""
        store = self._known["knowledge"]
        if image is None or store is None:
            return ()
        image_id = without_extension(image.name) or image.name
        kinds = [kind for kind, stored in _STORED.items() if stored in store.kinds and store.get(stored, image_id)]
        if not set(kinds) & set(self.scanner.kinds):
            return ()
        return (f"The store has a picture of this name, {image_id}: {' and '.join(kinds)} are that one's.",)

    def _missing(self, image: Path | None) -> dict[str, str]:
        """Why there may be none of each kind that the model was trained with."""
        no_index = "none: the page was started without an index, --wikipedia FILE"
        of_picture = "none: no picture was given" if image is None else "none of this picture"
        why = {
            "wikipedia": no_index if self._known["wikipedia"] is None else "none: the index has no page of this name",
            "notes": "none: notes belong to the sentences of a corpus",
            "caption": of_picture,
            "objects": of_picture,
        }
        return {kind: why[kind] for kind in self.scanner.kinds}
