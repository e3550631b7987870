"""The page without a server: an answer as HTML, everything in it escaped; examples; errors of the command in words."""

from __future__ import annotations

import builtins
import html
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from scanner_jax.app.__main__ import main
from scanner_jax.app.answering import Answer
from scanner_jax.app.clicked import SHOWN, read_examples
from scanner_jax.app.rendering import pieces, render, render_head, rows_of
from scanner_jax.drawing import COLOURS
from scanner_jax.gallery.pictures import Picture
from scanner_jax.scanner import Entity, Prediction
from scanner_jax.sentences import SentencesError
from scanner_jax.types import ImageObject, Knowledge, Span
from scanner_jax.words import split_words

LABELS = ("LOC", "ORG", "PER")
TEXT = "Ada met <b>Zen & Co</b> in Oslo"
MISSING = {"wikipedia": "no page", "caption": "no picture", "objects": "no picture"}
NASTY = "<img src=x onerror=alert(1)>'\""


def entity(text: str, label: str, **more: Any) -> Entity:
    start = TEXT.index(text)
    return Entity(text, label, 0.875, start, start + len(text), **more)


def answer(*entities: Entity, knowledge: dict[Span, Knowledge] | None = None, **more: Any) -> Answer:
    prediction = Prediction(split_words(TEXT), (), entities, knowledge or {})
    return Answer(prediction=prediction, missing=MISSING, **more)


def visible(page: str) -> str:
    """What of a page is read."""
    return html.unescape(re.sub("<[^>]*>", "", page))


def test_entities_are_marked_in_the_text() -> None:
    page = render(answer(entity("Ada", "PER"), entity("Zen & Co", "ORG")), LABELS)
    marks = re.findall(r'<mark style="--colour: (#\w+)">(.*?)<b>(\w+)</b></mark>', page)
    assert marks == [(COLOURS[2], "Ada", "PER"), (COLOURS[1], "Zen &amp; Co", "ORG")]
    assert "AdaPER met <b>Zen & CoORG</b> in Oslo" in visible(page)
    assert "0.88" in page and "no picture" in page
    assert "No entity was found." in render(answer(), LABELS)


def test_overlapping_entities_leave_the_text_whole() -> None:
    rows = rows_of(answer(entity("Ada met", "PER"), entity("met", "ORG"), entity("Oslo", "LOC")).prediction, LABELS)  # type: ignore[arg-type]
    cut = list(pieces(TEXT, rows))
    assert "".join(piece.text for piece in cut) == TEXT
    assert [piece.text for piece in cut if piece.row] == ["Ada met", "Oslo"]


def test_what_was_known_is_told_of_every_span_and_what_is_missing() -> None:
    known = Knowledge(
        wikipedia="a mathematician",
        wikipedia_how="redirect",
        caption="two people",
        objects=(ImageObject((0, 0, 9, 9), "person", 0.91, "in red"), ImageObject((0, 0, 5, 5), "hat", 0.5)),
        object_order="CLIP similarity",
    )
    page = render(answer(entity("Ada", "PER"), knowledge={Span(0, 1): known, Span(1, 2): Knowledge()}), LABELS)
    first, second = re.findall("<details.*?</details>", page, re.DOTALL)
    for said in ("Ada", "PER", "redirect", "a mathematician", "two people", "person 0.91: in red", "hat 0.50"):
        assert said in visible(first)
    assert "by CLIP similarity" in first and "no pa" not in first
    assert "met" in second and "taken for no entity" in second
    assert second.count("<i>no picture</i>") == 2 and "<i>no page</i>" in second
    remarked = render(answer(remarks=("pictures are not looked at",)), LABELS)
    assert '<p class="remark">pictures are not looked at</p>' in remarked


def test_boxes_stand_on_the_picture() -> None:
    picture = Picture("data:image/jpeg;base64,AA==", 1600, 800, 800, 400)
    seen = entity("Ada", "PER", box=(100.0, 50.0, 300.0, 250.5), box_score=0.8)
    unseen = entity("Oslo", "LOC", box_score=0.125)
    page = render(answer(seen, unseen, picture=picture), LABELS)
    assert 'viewBox="0 0 1600 800"' in page
    assert page.count('x="100.0" y="50.0" width="200.0" height="200.5"') == 2
    assert "box 100, 50, 300, 250 (overlap 0.80)" in visible(page)
    assert "not seen (overlap 0.12)" in visible(page)


def test_nothing_gets_out_of_its_place() -> None:
    """Markup in any text that a user, a store, an index or a model gives stays text."""
    known = Knowledge(
        wikipedia=NASTY,
        wikipedia_how=NASTY,
        notes=NASTY,
        caption=NASTY,
        objects=(ImageObject((0, 0, 9, 9), NASTY, 0.9, NASTY),),
        object_order=NASTY,
    )
    kinds = {**MISSING, "notes": NASTY}
    found = Entity(NASTY, NASTY, 0.5, 0, len(NASTY), (1, 2, 3, 4), 0.5)
    prediction = Prediction(split_words(NASTY), (), (found,), {Span(0, 1): known, Span(1, 2): Knowledge()})
    picture = Picture("data:,", 10, 10, 10, 10)
    full = Answer(problems=(NASTY,), remarks=(NASTY,), prediction=prediction, picture=picture, missing=kinds)
    page = render(full, [NASTY]) + render_head([NASTY], ["notes"], NASTY)
    assert "<img" not in page and page.count("&lt;img src=x onerror=alert(1)&gt;&#39;&#34;") >= 15
    assert visible(page).count(NASTY) >= 15


def test_examples_come_from_a_file_or_a_corpus(tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "7.png")
    (tmp_path / "8.jpg").write_text("no picture")
    lines = ['{"text": "Ada", "image": "7.png"}', '{"words": ["so", "cold"], "image": "8.jpg"}']
    (tmp_path / "some.jsonl").write_text("\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert read_examples(Path("some.jsonl")) == [("Ada", str(tmp_path / "7.png")), ("so cold", None)]
    (tmp_path / "bad.jsonl").write_text('{"text": 7}')
    with pytest.raises(SentencesError, match=r"bad.jsonl:1: text is no string"):
        read_examples(tmp_path / "bad.jsonl")
    corpus = tmp_path / "corpus"
    (corpus / "images").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(corpus / "images" / "1.png")
    tweets = "".join(f"IMGID:{number}\nOslo\tB-LOC\nagain\tO\n\n" for number in range(2 * SHOWN))
    for split in ("train", "valid", "test"):
        (corpus / f"{split}.txt").write_text(tweets)
    found = read_examples(corpus)
    assert len(found) == SHOWN
    assert found[:2] == [("Oslo again", None), ("Oslo again", str(corpus / "images" / "1.png"))]


def test_what_cannot_be_opened_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", str(tmp_path / "none"), "--port", "0"]) == 1
    assert "no such folder" in capsys.readouterr().err
    for wrong in (["--port", "seven"], ["--expert", "captions"], []):
        with pytest.raises(SystemExit, match="2"):
            main([*(["--model", "x"] if wrong else []), *wrong])


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["--model", str(tmp_path), "--port", str(port)]) == 1
    assert f"--host 127.0.0.1 --port {port}: Address already in use\n" in capsys.readouterr().err


def test_without_gradio_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.partition(".")[0] == "gradio" or name == "scanner_jax.app.page":
            raise ModuleNotFoundError("No module named 'gradio'", name="gradio")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["--model", "exported/none"]) == 1
    assert 'the page needs Gradio: pip install "scanner_jax[app]"' in capsys.readouterr().err
