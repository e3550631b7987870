"""The spaCy component: entities on the Doc's own tokens, scores and boxes, batches, saved pipelines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scanner_jax import export
from scanner_jax.exported import ExportError
from scanner_jax.scanner import Scanner
from scanner_jax.types import ImageObject, Knowledge

spacy = pytest.importorskip("spacy", reason='needs spaCy: pip install "scanner_jax[spacy]"')

ROOT = Path(__file__).parent.parent
TEXTS = ["Lake  Mira, and\nQuito are great!", "nothing", "", " \n ", "why is Zen Bank so cold , Oslo ?"]
KNOWN = Knowledge(caption="a photo", objects=(ImageObject((1, 2, 30, 40), "person", 0.9),))


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export.export(finished_run, tmp_path_factory.mktemp("exported") / "model", weights="safetensors")


def pipeline(folder: Path, **config: Any) -> Any:
    import scanner_jax.spacy_component  # noqa: F401 (as its entry point would)

    nlp = spacy.blank("en")
    nlp.add_pipe("scanner", config={"model": str(folder), **config})
    return nlp


@pytest.fixture(scope="module")
def nlp(folder: Path) -> Iterator[Any]:
    nlp = pipeline(folder, batch_size=8)
    yield nlp
    nlp.get_pipe("scanner").close()


def listed(doc: Any) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def test_entities_are_those_of_the_docs_own_words(nlp: Any, folder: Path) -> None:
    scanner = Scanner.from_pretrained(folder)
    count = 0
    for text in TEXTS:
        doc = nlp(text)
        words = [token.text for token in doc if not token.is_space]
        expected = scanner.predict(words)
        assert [(" ".join(ent.text.split()), ent.label_) for ent in doc.ents] == [(e.text, e.label) for e in expected]
        assert [ent._.score for ent in doc.ents] == pytest.approx([e.score for e in expected], abs=1e-5)
        assert all(not ent[0].is_space and not ent[-1].is_space for ent in doc.ents)
        count += len(expected)
    assert count > 3
    assert nlp.get_pipe("scanner").labels == scanner.labels


def test_streams_give_the_same_in_their_order(nlp: Any) -> None:
    alone = [listed(nlp(text)) for text in TEXTS]
    for batch_size in (2, 100):
        docs = list(nlp.pipe(TEXTS, batch_size=batch_size))
        assert [doc.text for doc in docs] == TEXTS
        assert [listed(doc) for doc in docs] == alone


def test_knowledge_and_boxes(nlp: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [nlp.make_doc(TEXTS[0]), nlp.make_doc(TEXTS[-1])]
    docs[0]._.knowledge = KNOWN
    docs[1]._.image = "photo.jpg"
    asked: list[Any] = []
    scanner, explain = nlp.get_pipe("scanner").scanner, Scanner.explain

    def noting(self: Scanner, requests: Any, **options: Any) -> Any:
        asked.extend(requests)
        return explain(self, requests, **options)

    monkeypatch.setattr(Scanner, "explain", noting)
    with_objects, _ = nlp.pipe(docs)
    assert [(request.image, request.knowledge) for request in asked] == [(None, KNOWN), ("photo.jpg", None)]
    words = [token.text for token in docs[0] if not token.is_space]
    expected = scanner.predict(words, knowledge=KNOWN)
    assert [ent._.box for ent in with_objects.ents] == [entity.box for entity in expected] and expected
    found = [ent._.box_score for ent in with_objects.ents]
    assert found == pytest.approx([entity.box_score for entity in expected], abs=1e-5)


def test_entities_that_are_there_stay(folder: Path, nlp: Any) -> None:
    text = TEXTS[-1]
    first = nlp(text).ents[0]
    ruled = pipeline(folder)
    ruler = ruled.add_pipe("entity_ruler", before="scanner")
    ruler.add_patterns([{"label": "RULE", "pattern": first.text}])
    doc = ruled(text)
    assert doc.ents[0].label_ == "RULE" and doc.ents[0]._.score is None
    assert listed(doc)[1:] == listed(nlp(text))[1:]


def test_a_saved_pipeline_has_the_model_with_it(folder: Path, nlp: Any, tmp_path: Path) -> None:
    original = Path(shutil.copytree(folder, tmp_path / "original"))
    saved = pipeline(original, batch_size=3)
    saved.to_disk(tmp_path / "pipeline")
    saved.to_disk(tmp_path / "pipeline")  # over itself
    shutil.rmtree(original)
    moved = (tmp_path / "pipeline").rename(tmp_path / "moved")
    loaded = spacy.load(moved)
    assert [listed(doc) for doc in loaded.pipe(TEXTS)] == [listed(nlp(text)) for text in TEXTS]
    assert loaded.config["components"]["scanner"]["batch_size"] == 3
    loaded.to_disk(moved)  # into the folder that it reads from
    assert listed(spacy.load(moved)(TEXTS[0])) == listed(nlp(TEXTS[0]))


def test_evaluation(nlp: Any) -> None:
    from spacy.training import Example

    doc = nlp(TEXTS[0])
    gold = {"entities": [(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents]}
    scores = nlp.evaluate([Example.from_dict(nlp.make_doc(TEXTS[0]), gold)])
    assert scores["ents_f"] == 1.0


def test_mistakes_are_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="no such folder; make one"):
        pipeline(tmp_path / "none")("Ada")
    with pytest.raises(Exception, match="batchsize"):
        pipeline(folder, batchsize=3)
    failed: list[str] = []
    nlp = pipeline(folder)
    nlp.set_error_handler(lambda name, component, docs, error: failed.append(f"{name}: {error}"))
    wrong = nlp.make_doc(TEXTS[0])
    wrong._.knowledge = KNOWN.__class__(objects=(ImageObject((0, 0, 9, 9), "a person " * 60, 0.5),))
    assert len(list(nlp.pipe([wrong, nlp.make_doc("Oslo")], batch_size=1))) == 1
    assert "leave no room in a prompt" in failed[0]
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(RuntimeError, match="scanner: JAX runs in one process; leave n_process at 1"):
        nlp.get_pipe("scanner").scanner  # noqa: B018


def test_spacy_finds_it_by_its_entry_point(folder: Path, tmp_path: Path) -> None:
    """As where the package is installed: no import of the module."""
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["spacy_factories"]
    installed = tmp_path / "elsewhere-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n")
    lines = [f"{name} = {place}" for name, place in points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[spacy_factories]", *lines]))
    code = (
        "import spacy, sys\n"
        "nlp = spacy.blank('en')\n"
        "nlp.add_pipe('scanner', config={'model': sys.argv[1]})\n"
        f"print([(ent.text, ent.label_) for ent in nlp({TEXTS[0]!r}).ents])"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    run = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == str(listed(pipeline(folder)(TEXTS[0])))
