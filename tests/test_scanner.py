"""`Scanner`: offsets, batches, windows, and prompts that are the ones of training."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from scanner_jax import export
from scanner_jax import scanner as scanner_module
from scanner_jax.candidates import Prompted
from scanner_jax.files import read_json
from scanner_jax.forward import Forward
from scanner_jax.inputs import open_inputs
from scanner_jax.recognition import write_prompts
from scanner_jax.retrieval import retrieve
from scanner_jax.scanner import Entity, Request, Scanner
from scanner_jax.store import Store, write_kind
from scanner_jax.types import ImageObject, Knowledge
from scanner_jax.wikipedia import build

TEXTS = ["saw Ada again today", "Lake Mira, and Quito are great!", "why is Zen Bank so cold?", "nothing here", "Oslo"]
KNOWN = Knowledge(
    caption="a photo of a place",
    wikipedia="a company",
    objects=(ImageObject((1, 2, 30, 40), "person", 0.9, "a person"), ImageObject((50, 0, 60, 9), "place", 0.4)),
)


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(finished_run, tmp_path_factory.mktemp("exported") / "model", weights="safetensors")


@pytest.fixture(scope="module")
def scanner(folder: Path) -> Scanner:
    return Scanner.from_pretrained(folder)


def same(first: list[Entity], second: list[Entity]) -> bool:
    plain = [[dataclasses.replace(e, score=0.0, box_score=None) for e in found] for found in (first, second)]
    numbers = [[(e.score, e.box_score or 0.0) for e in found] for found in (first, second)]
    return plain[0] == plain[1] and np.allclose(*numbers, atol=1e-5, rtol=0)


def test_entities_are_where_they_stand_in_the_text(scanner: Scanner) -> None:
    text = "  saw Lake  Mira,\tagain and \u00a0Zen Bank's Ada"
    found = scanner.predict(text, knowledge=KNOWN)
    assert found
    assert all(text[entity.start : entity.end] == entity.text == entity.text.strip() for entity in found)
    assert all(entity.label in scanner.labels and 0 < entity.score <= 1 for entity in found)
    assert [entity.start for entity in found] == sorted(entity.start for entity in found)


def test_an_entity_prints_as_documented() -> None:
    assert str(Entity("Kroger", "ORG", 0.9651, 26, 32)) == "Kroger[26:32] ORG 0.97"
    with pytest.raises(dataclasses.FrozenInstanceError):
        Entity("Kroger", "ORG", 0.97, 26, 32).label = "PER"  # type: ignore[misc]


@pytest.mark.parametrize("text", ["", "  ", "!", "\ud800", "<mask> <obj> </s>", "a" * 5000, "\0"])
def test_odd_texts_do_no_harm(scanner: Scanner, text: str) -> None:
    for entity in scanner.predict(text):
        assert text[entity.start : entity.end] == entity.text


def test_given_words_and_their_text_are_the_same(scanner: Scanner) -> None:
    assert same(scanner.predict(["saw", "Lake", "Mira"]), scanner.predict("saw Lake Mira"))


def test_a_result_does_not_depend_on_its_batch(scanner: Scanner) -> None:
    texts = [*TEXTS, " ".join(TEXTS * 20)]
    alone = [scanner.predict(text, knowledge=KNOWN) for text in texts]
    assert sum(map(len, alone)) > 5
    for batch_size in (1, 3, 32):
        together = scanner.predict_batch(texts, batch_size=batch_size, knowledge=KNOWN)
        assert all(map(same, alone, together))
    assert scanner.predict_batch([]) == []


def test_texts_are_padded_to_their_own_length(scanner: Scanner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one is read alone and short, and a long one beside others leaves them as they are."""
    shapes: list[tuple[int, int]] = []
    compiled = Forward.compiled

    def noting(self: Forward, params: Any, batch: Any) -> Any:
        shapes.append(batch["token_ids"].shape)
        return compiled(self, params, batch)

    monkeypatch.setattr(Forward, "compiled", noting)
    scanner.predict("Oslo")
    assert set(shapes) == {(1, 32)}
    shapes.clear()
    scanner.predict_batch(["Oslo"] * 5 + [" ".join(TEXTS * 3)])
    assert {rows for rows, tokens in shapes if tokens > 48} == {1}  # the detector's; no prompt is as long
    assert {(1, 32), (4, 32)} <= set(shapes)


def test_long_texts_are_read_to_their_end(scanner: Scanner) -> None:
    """An encoder of 128 tokens reads 1,000 words, each with context on both sides; nothing is lost."""
    text = " ".join(TEXTS * 60)
    found = scanner.predict(text)
    assert len(scanner._model.detection.tokenizer.text(text)) > 1000
    assert max(entity.end for entity in found) > 0.95 * len(text)


def test_boxes_are_objects_above_the_threshold(scanner: Scanner) -> None:
    found = [e for found in scanner.predict_batch(TEXTS, knowledge=KNOWN) for e in found]
    for entity in found:
        assert entity.box_score is not None
        assert (entity.box in [item.box for item in KNOWN.objects]) if entity.box_score > 0.4 else entity.box is None
    assert all(e.box is e.box_score is None for found in scanner.predict_batch(TEXTS) for e in found)


def test_prompts_are_those_of_training(
    scanner: Scanner, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same text, store and index, once through the recipe's own functions and once through `Scanner`."""
    config = ConfigDict(read_json(finished_run / "run.json")["config"])
    inputs = open_inputs(config, prepared=tmp_path)
    made: list[Prompted] = []

    def noting(*arguments: Any) -> Prompted:
        made.append(write_prompts(*arguments))
        return made[-1]

    monkeypatch.setattr(scanner_module, "write_prompts", noting)
    examples = inputs.by_use["train"]
    requests = [Request(words=example.words, id=example.id, image_id=example.image_id) for example in examples]
    found = scanner.explain(requests, knowledge=inputs.sources.store, wikipedia=inputs.sources.index)
    asked = [(e, span) for e, prediction in zip(examples, found, strict=True) for span in prediction.knowledge]
    trained = write_prompts(scanner._model.recognition, asked, retrieve(inputs.sources, asked))
    assert made[0].prompts == trained.prompts
    assert len(asked) > 8 and any(known.wikipedia and known.caption and known.objects for known in trained.knowledge)


def test_knowledge_reaches_the_prompt(scanner: Scanner, tmp_path: Path) -> None:
    build([("Oslo", "a place"), ("Zen", "a company")], tmp_path / "index.sqlite")
    write_kind(tmp_path / "store", "captions", [("7", {"text": "a photo"})], {"importer": "test"})
    request = Request(text="Oslo and Zen Bank are great", image_id="7")
    (found,) = scanner.explain([request], knowledge=str(tmp_path / "store"), wikipedia=tmp_path / "index.sqlite")
    known = {found.words.text[slice(*found.words.characters(s.start, s.end))]: k for s, k in found.knowledge.items()}
    assert all(item.caption == "a photo" for item in known.values())
    assert "a company" in {item.wikipedia for item in known.values()}


def test_a_record_stands_before_store_and_index(scanner: Scanner, tmp_path: Path) -> None:
    write_kind(tmp_path / "store", "captions", [("7", {"text": "stored"})], {"importer": "test"})
    own = Request(text=TEXTS[0], image_id="7", knowledge=Knowledge(caption="own"))
    other = Request(text=TEXTS[0], image_id="7")
    first, second = scanner.explain([own, other], knowledge=Store.open(tmp_path / "store"))
    assert {k.caption for k in first.knowledge.values()} == {"own"}
    assert {k.caption for k in second.knowledge.values()} == {"stored"}


def test_what_is_missing_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Scanner.from_pretrained(folder) as scanner:
        scanner.predict(TEXTS[0])
        scanner.predict_batch(TEXTS)
        (said,) = caplog.messages
        assert "was trained with knowledge" in said and "caption: an image" in said and "wikipedia=INDEX" in said
        caplog.clear()
        scanner.predict(TEXTS[0], knowledge=KNOWN)
        assert not caplog.messages
        assert scanner.explain([TEXTS[0]], knowledge=KNOWN)[0].remarks == ()
        told = [dataclasses.replace(KNOWN, notes="a person"), dataclasses.replace(KNOWN, notes="a place")]
        found = [scanner.explain([TEXTS[0]], knowledge=known)[0].remarks for known in told]
        said = "this model was trained without notes: they are left out of its prompts"
        assert caplog.messages == [said] and found == [(said,), (said,)]


def test_a_picture_without_experts_is_said_once(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Scanner.from_pretrained(folder) as scanner:
        request = Request(text=TEXTS[0], image=tmp_path / "x.jpg")
        found = [scanner.explain([request])[0].remarks for _ in range(2)]
        pictures = [said for said in caplog.messages if "pictures are not looked at" in said]
    (said,) = pictures
    assert found == [(said,), (said,)]
    assert 'experts={"captions": MODEL}' in said and 'experts={"objects": MODEL}' in said


def test_wrong_arguments_are_refused(scanner: Scanner, folder: Path) -> None:
    for wrong in (7, ["Ada", 7]):
        with pytest.raises(ValueError, match="expected a list of strings|is int"):
            scanner.predict(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give a text, or words"):
        scanner.predict_batch([Request()])
    with pytest.raises(ValueError, match="expected a Knowledge record, a store or its folder"):
        scanner.predict("Ada", knowledge=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size=0"):
        scanner.predict_batch(["Ada"], batch_size=0)
    with pytest.raises(ValueError, match="captoins: no such kind"):
        Scanner.from_pretrained(folder, experts={"captoins": "models/blip2"})
    long = Knowledge(objects=(ImageObject((0, 0, 9, 9), "a person " * 60, 0.5),))
    with pytest.raises(ValueError, match="leave no room in a prompt of 48 tokens"):
        scanner.predict(TEXTS[0], knowledge=long)
