"""Use a trained model: `Scanner.from_pretrained(FOLDER).predict("Ada Okafor plays in Lake Tamsin tonight")`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import jax
from PIL import Image

from scanner_jax.candidates import Candidate
from scanner_jax.compilation_cache import keep_compiled
from scanner_jax.decoding import DEFAULT_THRESHOLD, above
from scanner_jax.detection import spans_of, tag
from scanner_jax.experts import Experts
from scanner_jax.exported import Exported, open_exported
from scanner_jax.forward import compile_all
from scanner_jax.gathering import Gatherer, Told
from scanner_jax.images import without_extension
from scanner_jax.predictions import Predicted
from scanner_jax.prompts import PromptError
from scanner_jax.questions import Entity as Entity
from scanner_jax.questions import Picture as Picture
from scanner_jax.questions import Prediction as Prediction
from scanner_jax.questions import Request as Request
from scanner_jax.recognition import judge, predicted_entities, write_prompts
from scanner_jax.store import Store
from scanner_jax.types import Example, Knowledge, Span
from scanner_jax.warming import judging_programs, tagging_programs
from scanner_jax.wikipedia import WikipediaIndex
from scanner_jax.words import Words

BATCH_SIZE = 32

LEAST_SPANS = 8
"""That the recognizer may read at once, however few texts there are: one text has some."""

logger = logging.getLogger(__name__)


class Scanner:
    """A trained model, ready to predict; make one with `from_pretrained`, close it or use it in a `with`.

    What is missing of the knowledge that the model was trained with is logged as a warning, once. A result does not
    depend on what else is predicted with it, but for the last digits of floating-point sums.
    """

    def __init__(self, model: Exported, *, experts: Mapping[str, str] | None = None, device: str | None = None) -> None:
        self._model = model
        self._detector, self._recognizer = jax.device_put((model.detector, model.recognizer))
        self._gatherer = Gatherer(model.description, Experts(model.description, models=experts or {}, device=device))
        threshold = model.description["box_threshold"]
        self._threshold = DEFAULT_THRESHOLD if threshold is None else float(threshold)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        experts: Mapping[str, str] | None = None,
        device: str | None = None,
        compilation_cache: str | Path | bool = True,
        warm_up: bool = False,
    ) -> Self:
        """Load an exported model.

        Args:
            folder: what `python -m scanner_jax.export` wrote, in any format.
            experts: models to look at pictures with, by kind (captions, objects, regions, clip), where those that
                the model names are not at hand under their names, or there are none: {"captions": "models/blip2"}.
            device: of the experts, as torch names it; by default a GPU where there is one.
            compilation_cache: the folder for compiled programs, as of `keep_compiled`: True takes the user's own,
                False leaves JAX as it is set.
            warm_up: compile ahead what `predict` takes; `Scanner.warm_up` does it for batches.

        Raises:
            ExportError: no exported model, of a newer format, cut short or changed, or with another tokenizer.
        """
        if compilation_cache is not False:
            keep_compiled(None if compilation_cache is True else compilation_cache)
        scanner = cls(open_exported(folder), experts=experts, device=device)
        if warm_up:
            scanner.warm_up()
        return scanner

    @property
    def labels(self) -> tuple[str, ...]:
        """The types that it knows."""
        return self._model.recognition.types

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of knowledge that it was trained with, as fields of `Knowledge`."""
        return self._gatherer.kinds

    @property
    def fingerprint(self) -> str:
        """Tells models apart: a sha256 in hex."""
        return self._model.fingerprint

    def predict(
        self,
        text: str | Sequence[str],
        image: Picture | None = None,
        *,
        knowledge: Knowledge | Store | str | Path | None = None,
        wikipedia: WikipediaIndex | str | Path | None = None,
    ) -> list[Entity]:
        """Find the entities of a text, in its order.

        Args:
            text: or its words.
            image: that belongs to it; the experts look at it, in a process of their own that the next calls use too.
            knowledge: what is known, or a store (or its folder), which goes by the image's name.
            wikipedia: an index, or its file.

        Raises:
            ValueError: an argument of the wrong kind, or knowledge whose objects leave no room for the sentence.
            StoreError, WikipediaError: a store or an index that cannot be read.
        """
        request = Request(text=text, image=image) if isinstance(text, str) else Request(words=text, image=image)
        return self.predict_batch([request], batch_size=1, knowledge=knowledge, wikipedia=wikipedia)[0]

    def predict_batch(
        self,
        examples: Sequence[str | Request],
        *,
        batch_size: int = BATCH_SIZE,
        knowledge: Knowledge | Store | str | Path | None = None,
        wikipedia: WikipediaIndex | str | Path | None = None,
    ) -> list[list[Entity]]:
        """Find the entities of many texts; arguments and errors as of `predict`.

        Args:
            examples: texts, or requests with image, words or knowledge of their own.
            batch_size: texts, and spans, that the models read at once.
            knowledge: of those that have none of their own.
            wikipedia: for all.
        """
        found = self.explain(examples, batch_size=batch_size, knowledge=knowledge, wikipedia=wikipedia)
        return [list(prediction.entities) for prediction in found]

    def explain(
        self,
        examples: Sequence[str | Request],
        *,
        batch_size: int = BATCH_SIZE,
        knowledge: Knowledge | Store | str | Path | None = None,
        wikipedia: WikipediaIndex | str | Path | None = None,
    ) -> list[Prediction]:
        """What `predict_batch` finds, with the words that were read and the knowledge that was used."""
        _check(batch_size)
        requests = [Request(text=example) if isinstance(example, str) else example for example in examples]
        words = [request.split() for request in requests]
        # Their own ids need not be unique, and decoding goes by ids.
        numbered = [Example(str(number), _readable(item.words)) for number, item in enumerate(words)]
        detection = dataclasses.replace(self._model.detection, eval_batch_size=batch_size)
        spans = list(spans_of(tag(detection, self._detector, numbered)))
        with contextlib.ExitStack() as stack:
            store = _opened_store(knowledge)
            index = wikipedia
            if isinstance(wikipedia, str | Path):
                index = stack.enter_context(WikipediaIndex.open(wikipedia))
            record = knowledge if isinstance(knowledge, Knowledge) else None
            files = stack.enter_context(_files())
            told = [
                _told(request, example, own, record, files)
                for request, example, own in zip(requests, numbered, spans, strict=True)
            ]
            known = self._gatherer.gather(told, store=store, index=index)  # type: ignore[arg-type]
            remarks = self._gatherer.remarks
        candidates = [(example, span) for example, own in zip(numbered, spans, strict=True) for span in own]
        decoded = self._recognize(numbered, candidates, [item for own in known for item in own], batch_size)
        return [
            _prediction(item, predicted, dict(zip(own, own_known, strict=True)), remarks)
            for item, predicted, own, own_known in zip(words, decoded, spans, known, strict=True)
        ]

    def warm_up(self, *, batch_size: int = 1) -> int:
        """Compile ahead every program that predictions can take, whatever the lengths of texts and prompts.

        Args:
            batch_size: of the predictions to come; 1 is `predict`'s.

        Returns:
            How many programs there were to compile, or to read from the compilation cache.
        """
        _check(batch_size)
        spans = max(batch_size, LEAST_SPANS)
        programs = [
            *tagging_programs(self._model.detection, self._detector, batch_size=batch_size),
            *judging_programs(self._model.recognition, self._recognizer, batch_size=spans),
        ]
        logger.info("compiling %d programs ahead", len(programs))
        compile_all(programs)
        return len(programs)

    def close(self) -> None:
        """End the experts' process, if there is one; the next picture would start another."""
        self._gatherer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _recognize(
        self, examples: Sequence[Example], candidates: list[Candidate], known: list[Knowledge], batch_size: int
    ) -> list[list[Predicted]]:
        """Type the candidates, or reject them; boxes that score too low are taken away."""
        recognition = dataclasses.replace(self._model.recognition, eval_batch_size=max(batch_size, LEAST_SPANS))
        try:
            prompted = write_prompts(recognition, candidates, known)
        except PromptError as error:
            raise ValueError(
                f"knowledge: the labels of its objects leave no room in a prompt of {recognition.max_tokens} tokens; "
                "give shorter labels, or fewer objects"
            ) from error
        judgement = judge(recognition, self._recognizer, prompted)
        grounded = bool(self._model.description["grounded"])
        return above(predicted_entities(recognition, examples, prompted, judgement, grounded=grounded), self._threshold)


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1")


def _readable(words: Sequence[str]) -> tuple[str, ...]:
    """Words with ? for half a character, which JSON can spell and no tokenizer takes."""
    return tuple(word.encode(errors="replace").decode() for word in words)


def _opened_store(knowledge: Knowledge | Store | str | Path | None) -> Store | None:
    if isinstance(knowledge, str | Path):
        return Store.open(knowledge)
    if knowledge is not None and not isinstance(knowledge, Knowledge | Store):
        raise ValueError(f"knowledge is {type(knowledge).__name__}; expected a Knowledge record, a store or its folder")
    return knowledge if isinstance(knowledge, Store) else None


@contextlib.contextmanager
def _files() -> Iterator[Path]:
    """A folder for images in memory, which the experts read as files."""
    with tempfile.TemporaryDirectory(prefix="scanner-") as folder:
        yield Path(folder)


def _told(request: Request, example: Example, spans: Sequence[Span], record: Knowledge | None, files: Path) -> Told:
    image, image_id = request.image, request.image_id
    if isinstance(image, Image.Image):
        path = files / f"{example.id}.png"
        image.convert("RGB").save(path)
        image = path
    elif image is not None:
        image = Path(image)
        image_id = image_id or without_extension(image.name) or image.name
    own = dataclasses.replace(example, id=request.id, image_id=image_id)
    return Told([(own, span) for span in spans], request.knowledge or record, image)


def _prediction(
    words: Words, predicted: Sequence[Predicted], knowledge: Mapping[Span, Knowledge], remarks: tuple[str, ...]
) -> Prediction:
    ordered = tuple(sorted(predicted, key=lambda item: item.entity.span))
    entities = []
    for entity, score, box_score in ordered:
        start, end = words.characters(entity.start, entity.end)
        box = entity.boxes[0] if entity.boxes else None
        entities.append(Entity(words.text[start:end], entity.type, score, start, end, box, box_score))
    return Prediction(words, ordered, tuple(entities), knowledge, remarks)
