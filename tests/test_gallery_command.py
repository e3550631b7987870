"""`python -m scanner_jax.gallery`: the page of a run's folder, and sentences for what is no such folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from gallery_cases import images, person, report

from scanner_jax.corpora import read_corpus
from scanner_jax.files import write_json
from scanner_jax.gallery.__main__ import main
from scanner_jax.types import Box, Entity

BOX: Box = (10.0, 20.0, 60.0, 90.0)
XML = (
    "<annotation><object><name>Mira Okafor</name><bndbox><xmin>10</xmin><ymin>20</ymin><xmax>60</xmax>"
    "<ymax>90</ymax></bndbox></object></annotation>"
)
PREDICTED = {"image-1": [person()], "image-2": [Entity(3, 5, "LOC")]}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "tweets"
    (folder / "xml").mkdir(parents=True)
    words = ["Mira\tB-PER", "Okafor\tI-PER", "visits\tO", "Lake\tB-LOC", "Tamsin\tI-LOC"]
    for split, names in {"train": "89", "test": "12"}.items():
        tweets = ["\n".join([f"IMGID:image-{name}", *words, "", ""]) for name in names]
        (folder / f"{split}.txt").write_text("".join(tweets))
    (folder / "xml" / "image-1.xml").write_text(XML)
    return folder


def run_folder(folder: Path, corpus: Path, *, threshold: float | None = 0.4, predicted: dict = PREDICTED) -> Path:
    """What a finished run leaves, as far as the command reads it."""
    found = read_corpus(corpus)
    report(folder / "report", predicted, found.splits["test"], threshold=threshold)
    recognizer = {"test": {}} if threshold is None else {"test": {}, "box_threshold": threshold}
    write_json(folder / "report" / "metrics.json", {"recognizer": recognizer})
    write_json(folder / "run.json", {"config": {"corpus": str(corpus)}, "corpus": {"sha256": found.fingerprint}})
    return folder


def test_a_page_of_a_run(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_folder(tmp_path / "run", corpus)
    assert main([str(run)]) == 0
    page = (run / "report" / "gallery.html").read_text()
    assert "There was no folder of images" in page and "box missing" in page
    printed = capsys.readouterr().out
    assert f"2 of 2 tweets, 0 with their image -> {run}/report/gallery.html" in printed
    assert "with an error: 2 of 2" in printed
    assert "gold boxes within reach of an object in the prompt: 1 of 1" in printed


def test_images_come_from_the_corpus_or_from_a_folder(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_folder(tmp_path / "run", corpus)
    images(tmp_path / "pictures", "12")
    assert main([str(run), "--images", str(tmp_path / "pictures")]) == 0
    images(corpus / "images", "1")
    assert main([str(run), "--out", str(tmp_path / "own.html"), "--ids", "image-1"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 tweets, 2 with their image" in printed
    assert f"1 of 1 tweets, 1 with their image -> {tmp_path / 'own.html'}" in printed
    assert main([str(run), "--images", str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_other_runs_beside(tmp_path: Path, corpus: Path) -> None:
    run = run_folder(tmp_path / "run", corpus)
    whole = {name: [person(BOX), Entity(3, 5, "LOC")] for name in PREDICTED}
    other = run_folder(tmp_path / "other", corpus, predicted=whole)
    assert main([str(run), "--limit", "1", "--without", f"caption={other}", f"notes={other}"]) == 0
    page = (run / "report" / "gallery.html").read_text()
    assert "right only without caption <b>1</b>" in page and "right only without notes <b>1</b>" in page
    assert page.count("<article") == 1


def test_what_is_no_such_run_is_said(tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        assert main([*map(str, arguments)]) == 1
        return capsys.readouterr().err

    assert "run.json is missing: give the folder of a run" in refused(str(tmp_path))
    run = run_folder(tmp_path / "run", corpus)
    assert "test has no example nobody" in refused(str(run), "--ids", "nobody")
    assert "nowhere/run.json is missing" in refused(str(run), "--without", f"caption={tmp_path / 'nowhere'}")
    assert "two runs are without a b" in refused(str(run), "--without", f"a b={run}", "--without", f"a b={run}")
    for name in ("run.json", "report/metrics.json"):
        content = (run / name).read_text()
        (run / name).write_text("[]")
        assert f"{name}: not what training writes" in refused(str(run))
        (run / name).write_text(content)
    (corpus / "test.txt").write_text("IMGID:image-1\nMira\tB-PER\n")
    assert "is a run on another corpus, or the corpus tweets was changed since" in refused(str(run))
    assert "no such folder" in refused(str(run), "--corpus", str(tmp_path / "nowhere"))


@pytest.mark.parametrize("wrong", [["--limit", "0"], ["--limit", "many"], ["--without", "folder"], ["--without", "=x"]])
def test_wrong_usage(tmp_path: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), *wrong])
    assert caught.value.code == 2
