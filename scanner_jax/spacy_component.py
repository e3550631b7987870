"""A trained model in a spaCy pipeline: `nlp.add_pipe("scanner", config={"model": "exported/demo"})`.

The component reads a Doc's own tokens as words, and adds what it finds to `doc.ents`. Extensions:

- `ent._.score`, `ent._.box`, `ent._.box_score`: as of `Entity`; None for entities that are not its own;
- `doc._.image`: set before, a file or a PIL image that belongs to the text;
- `doc._.knowledge`: set before, a `Knowledge` record.

spaCy comes with `pip install "scanner_jax[spacy]"`, and finds the component by its entry point where this package is
installed; elsewhere import this module. It imports torch where that is installed, but runs nothing with it here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.pipeline import Pipe
from spacy.scorer import get_ner_prf
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.util import minibatch

from scanner_jax.exported import DESCRIPTION
from scanner_jax.files import read_json
from scanner_jax.scanner import BATCH_SIZE, Prediction, Request, Scanner

MODEL = "model"
"""The folder in a saved pipeline's that has the exported model."""

for _owner, _names in ((Doc, ("image", "knowledge")), (Span, ("score", "box", "box_score"))):
    for _name in _names:
        if not _owner.has_extension(_name):
            _owner.set_extension(_name, default=None)


@Language.factory(
    "scanner",
    default_config={
        "knowledge": None,
        "wikipedia": None,
        "experts": {},
        "device": None,
        "batch_size": BATCH_SIZE,
    },
    assigns=["doc.ents", "token.ent_iob", "token.ent_type", "span._.score", "span._.box", "span._.box_score"],
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0},
)
def make_scanner(
    nlp: Language,
    name: str,
    model: str,
    knowledge: str | None,
    wikipedia: str | None,
    experts: dict[str, str],
    device: str | None,
    batch_size: int,
) -> ScannerComponent:
    """The component's factory; its arguments after `name` are the pipe's config.

    Args:
        nlp: the pipeline.
        name: the component's in it.
        model: an exported model's folder.
        knowledge: a store's folder, which goes by the image's name.
        wikipedia: the file of an index.
        experts: as of `Scanner.from_pretrained`.
        device: likewise.
        batch_size: texts, and spans, that the models read at once.
    """
    return ScannerComponent(
        name, Path(model), knowledge=knowledge, wikipedia=wikipedia, experts=experts, device=device,
        batch_size=batch_size,
    )  # fmt: skip


class ScannerComponent(Pipe):
    """Fills `doc.ents`; make it with `nlp.add_pipe("scanner", config={"model": FOLDER})`.

    Entities that are there already stay, and what overlaps with them is left out. The model is loaded with the first
    Doc. `nlp.to_disk` copies its folder into the pipeline's, and `spacy.load` takes that copy; store, index and experts
    stay where the config says. `nlp.to_bytes` has the config alone, and so the model's path.

    Raises:
        ExportError: with the first Doc, where the folder is no whole exported model.
        RuntimeError: likewise, in a process that was forked (`n_process` above 1): JAX does not survive that.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        knowledge: str | None = None,
        wikipedia: str | None = None,
        experts: Mapping[str, str] | None = None,
        device: str | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.name, self.folder = name, folder
        self._told: dict[str, Any] = {"knowledge": knowledge, "wikipedia": wikipedia, "batch_size": batch_size}
        self._looking: dict[str, Any] = {"experts": experts, "device": device}
        self._scanner: Scanner | None = None
        self._process = os.getpid()

    @property
    def scanner(self) -> Scanner:
        """The model, loaded."""
        if self._process != os.getpid():
            raise RuntimeError(f"{self.name}: JAX runs in one process; leave n_process at 1, and raise batch_size")
        if self._scanner is None:
            self._scanner = Scanner.from_pretrained(self.folder, **self._looking)
        return self._scanner

    @property
    def labels(self) -> tuple[str, ...]:
        """The types that it knows; spaCy asks while it loads a pipeline, before it says where the model's copy is."""
        try:
            return tuple(read_json(self.folder / DESCRIPTION)["types"])
        except (OSError, ValueError, KeyError):  # said with the first Doc
            return ()

    def __call__(self, doc: Doc) -> Doc:
        self._read([doc])
        return doc

    def pipe(self, stream: Iterable[Doc], *, batch_size: int = BATCH_SIZE) -> Iterator[Doc]:
        """Read Docs, `batch_size` at a time; it is that of `nlp.pipe`, and the models' batches are the config's."""
        for batch in minibatch(stream, batch_size):
            try:
                self._read(batch)
            except Exception as error:
                self.get_error_handler()(self.name, self, batch, error)
            else:
                yield from batch

    def score(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Precision, recall and F1, for `nlp.evaluate`."""
        return dict(get_ner_prf(examples))

    def to_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> None:
        """Copy the exported model into the pipeline's folder."""
        target = Path(path) / MODEL
        if target.resolve() != self.folder.resolve():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(self.folder, target)

    def from_disk(self, path: str | Path, *, exclude: Sequence[str] = ()) -> ScannerComponent:
        """Take the copy that `to_disk` made."""
        if (Path(path) / MODEL).exists():  # else the pipeline was saved without this component's files
            self.folder, self._scanner = Path(path) / MODEL, None
        return self

    def close(self) -> None:
        """End the process of the experts that look at pictures, if there is one."""
        if self._scanner is not None:
            self._scanner.close()

    def _read(self, docs: Sequence[Doc]) -> None:
        # Blanks that are tokens, such as line breaks, are no words.
        tokens = [[token for token in doc if token.text.strip()] for doc in docs]
        requests = [
            Request(words=[token.text for token in own], image=doc._.image, knowledge=doc._.knowledge)
            for doc, own in zip(docs, tokens, strict=True)
        ]
        found = self.scanner.explain(requests, **self._told)
        for doc, own, prediction in zip(docs, tokens, found, strict=True):
            _add(doc, [token.i for token in own], prediction)


def _add(doc: Doc, places: Sequence[int], prediction: Prediction) -> None:
    """Add entities over words to a Doc; word i is its token `places[i]`."""
    taken = {token.i for token in doc if token.ent_type}
    added = []
    for predicted, entity in zip(prediction.predicted, prediction.entities, strict=True):
        start, end = places[predicted.entity.start], places[predicted.entity.end - 1] + 1
        if taken.isdisjoint(range(start, end)):
            span = Span(doc, start, end, label=entity.label)
            span._.score, span._.box, span._.box_score = entity.score, entity.box, entity.box_score
            added.append(span)
    doc.ents = [*doc.ents, *added]
