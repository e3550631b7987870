"""The report folder, made of phases that some run finished; test_recipe.py has the report of a real run."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from scanner_jax import phases
from scanner_jax.analysis import prompt_record
from scanner_jax.corpora import read_corpus
from scanner_jax.files import read_json_lines, write_arrays, write_json_lines
from scanner_jax.inputs import Inputs, PretrainedEncoder
from scanner_jax.metrics import metrics_table
from scanner_jax.predictions import Predicted, prediction_record
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.recipe import metrics_of, recipe_steps
from scanner_jax.report import write_report
from scanner_jax.retrieval import KnowledgeSources
from scanner_jax.runs import Run
from scanner_jax.settings import paper_settings
from scanner_jax.types import Entity, Example, Knowledge, Span

TWEETS = {
    "train": "IMGID:1\nMira\tB-PER\nvisits\tO\nTamsin\tB-LOC\n\nIMGID:2\nnothing\tO\n",
    "valid": "IMGID:3\nTamsin\tB-LOC\n",
    "test": "IMGID:4\nMira\tB-PER\nOkafor\tI-PER\nin\tO\n\nIMGID:5\nTamsin\tB-LOC\n",
}
ALL = {
    *("metrics.json", "metrics.txt", "predictions.jsonl", "predictions-dev.jsonl", "predictions.conll"),
    *("errors.jsonl", "errors.txt", "suspect_labels.jsonl", "prompts.jsonl", "gallery.html"),
}
PREDICTED = {"3": [], "4": [Entity(0, 1, "PER")], "5": [Entity(0, 1, "LOC")]}
PROMPTS = [
    prompt_record(
        Example("4", ("Mira", "Okafor", "in")),
        Span(0, 1),
        knowledge=Knowledge(caption="a photo"),
        prompt=Prompt((), 0, (), Cut()),
        max_objects=0,
        classes=("non-entity", "PER"),
        probabilities=(0.25, 0.75),
    )
]


def make_run(folder: Path, *, test: str = TWEETS["test"], seed: int = 1, tyt: bool = True) -> Run:
    corpus_folder = folder / f"tweets-{len(test)}"
    corpus_folder.mkdir(parents=True, exist_ok=True)
    for name, text in (TWEETS | {"test": test}).items():
        (corpus_folder / f"{name}.txt").write_text(text)
    corpus = read_corpus(corpus_folder)
    config: ConfigDict = paper_settings()
    config.corpus = str(corpus_folder)
    config.seed = seed
    config.tyt.update(detector=tyt, recognizer=tyt)
    encoder = PretrainedEncoder(folder=folder, fingerprint="encoder", config=None, tokenizer=None)  # type: ignore[arg-type]
    inputs = Inputs(
        corpus=corpus,
        encoder=encoder,
        sources=KnowledgeSources(),
        training=tuple(corpus.splits["train"]),
        evaluated={split: tuple(corpus.splits[split]) for split in ("dev", "test")},
    )
    return Run(config=config, inputs=inputs, root=folder / "phases")


def finish(run: Run, *, until: str = "recognizer-student", prompts: bool = True) -> None:
    """Leave what the phases leave, as far as a report reads it."""

    def detector_teacher(folder: Path) -> None:
        words = [[[0.1, 0.8, 0.1], [0.7, 0.2, 0.1], [0.6, 0.3, 0.1]], [[0.9, 0.05, 0.05]]]
        write_arrays(folder / "training-logits.npz", [np.log(rows) for rows in words])

    def candidates(folder: Path) -> None:
        spans = {"1": [[0, 1], [2, 3]], "2": [[0, 1]]}
        write_json_lines(folder / "train.jsonl", [{"id": key, "spans": value} for key, value in spans.items()])

    def recognizer_teacher(folder: Path) -> None:
        write_arrays(folder / "training-logits.npz", [np.log([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.2, 0.3, 0.5]])])

    def recognizer_student(folder: Path) -> None:
        for split, examples in run.inputs.evaluated.items():
            records = [
                prediction_record(item, [Predicted(entity, 0.5) for entity in PREDICTED[item.id]]) for item in examples
            ]
            write_json_lines(folder / f"{split}-predictions.jsonl", records)
        if prompts:
            write_json_lines(folder / "test-prompts.jsonl", PROMPTS)

    bodies: dict[str, Callable[[Path], None]] = {
        "detector-teacher": detector_teacher,
        "candidates": candidates,
        "recognizer-teacher": recognizer_teacher,
        "recognizer-student": recognizer_student,
    }
    for name, step in recipe_steps(run).items():
        body = bodies.get(name, lambda folder: None)
        phases.run(step.phase, run.root, lambda folder, body=body: body(folder) or {"test": None})
        if name == until:
            return


def report(run: Run, folder: Path) -> set[str]:
    metrics = metrics_of({name: step.phase for name, step in recipe_steps(run).items()}, run.root)
    assert write_report(folder, run, metrics) == metrics_table(metrics) == (folder / "metrics.txt").read_text()
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    return {path.name for path in folder.iterdir()}


def test_every_file(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    folder = tmp_path / "report"
    assert report(run, folder) == ALL
    assert (folder / "predictions.conll").read_text() == (
        "Mira\tB-PER\tB-PER\nOkafor\tI-PER\tO\nin\tO\tO\n\nTamsin\tB-LOC\tB-LOC\n\n"
    )
    (error,) = read_json_lines(folder / "errors.jsonl")
    assert error["kind"] == "boundary" and error["gold"]["text"] == "Mira Okafor"
    assert "1  boundary  PER -> PER" in (folder / "errors.txt").read_text()
    assert [record["id"] for record in read_json_lines(folder / "predictions.jsonl")] == ["4", "5"]
    assert [record["id"] for record in read_json_lines(folder / "predictions-dev.jsonl")] == ["3"]
    assert read_json_lines(folder / "prompts.jsonl") == PROMPTS
    page = (folder / "gallery.html").read_text()
    assert "Mira Okafor" in page and "a photo" in page and "boundary <b>1</b>" in page


def test_suspect_labels_of_both_teachers_lowest_alpha_first(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    finish(run)
    report(run, tmp_path / "report")
    records = read_json_lines(tmp_path / "report" / "suspect_labels.jsonl")
    assert [
        (record["teacher"], record["text"], record["label"], record["alpha"], record["opinion"]) for record in records
    ] == [
        ("detector", "Tamsin", "B", 0.3, "O"),
        ("recognizer", "nothing", "non-entity", 0.5, "non-entity"),
        ("detector", "visits", "O", 0.7, "O"),
        ("detector", "Mira", "B", 0.8, "B"),
        ("recognizer", "Mira", "PER", 0.8, "PER"),
        ("recognizer", "Tamsin", "LOC", 0.8, "LOC"),
        ("detector", "nothing", "O", 0.9, "O"),
    ]


def test_suspect_labels_are_limited_for_each_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner_jax.report.SUSPECTS", 2)
    run = make_run(tmp_path)
    finish(run)
    report(run, tmp_path / "report")
    records = read_json_lines(tmp_path / "report" / "suspect_labels.jsonl")
    assert [record["alpha"] for record in records] == [0.3, 0.5, 0.7, 0.8]


def test_equal_runs_give_equal_files_without_paths(tmp_path: Path) -> None:
    for name in ("one", "two"):
        run = make_run(tmp_path / name)
        finish(run)
        report(run, tmp_path / name / "report")
    for name in ALL:
        content = (tmp_path / "one" / "report" / name).read_bytes()
        assert content == (tmp_path / "two" / "report" / name).read_bytes()
        assert str(tmp_path).encode() not in content


def test_a_report_holds_nothing_of_an_earlier_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    whole, other = make_run(tmp_path), make_run(tmp_path, seed=2)
    finish(whole)
    assert report(whole, tmp_path / "report") == ALL
    assert "not trained yet" not in caplog.text
    finish(other, until="detector-teacher")
    assert report(other, tmp_path / "report") == {"metrics.json", "metrics.txt", "suspect_labels.jsonl"}
    assert report(make_run(tmp_path, seed=3), tmp_path / "report") == {"metrics.json", "metrics.txt"}
    assert "the teachers are not trained yet" in caplog.text


def test_without_teachers_no_label_is_suspected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path, tyt=False)
    finish(run)
    assert report(run, tmp_path / "report") == ALL - {"suspect_labels.jsonl"}
    assert "no suspect_labels.jsonl" in caplog.text and "the teachers are off (tyt.*=False)" in caplog.text


def test_a_recognizer_of_an_older_version_kept_no_prompts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = make_run(tmp_path)
    finish(run, prompts=False)
    assert report(run, tmp_path / "report") == ALL - {"prompts.jsonl"}
    assert "no prompts.jsonl" in caplog.text


def test_a_test_split_without_gold_is_predicted_only(tmp_path: Path) -> None:
    run = make_run(tmp_path, test="IMGID:4\nMira\nOkafor\n\nIMGID:5\nTamsin\n")
    finish(run)
    assert report(run, tmp_path / "report") == ALL - {"predictions.conll", "errors.jsonl", "errors.txt"}


def test_the_gallery_shows_the_images_of_the_corpus(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(tmp_path)
    finish(run)
    page = tmp_path / "report" / "gallery.html"
    report(run, tmp_path / "report")
    assert page.read_text().count("<image ") == 0
    for folder in (Path(run.config.corpus) / "images", tmp_path / "pictures"):
        folder.mkdir()
        Image.new("RGB", (30, 20)).save(folder / "4.png")
    report(run, tmp_path / "report")
    assert page.read_text().count("<image ") == 1
    run.config.images = str(tmp_path / "pictures")
    Image.new("RGB", (30, 20)).save(tmp_path / "pictures" / "5.png")
    report(run, tmp_path / "report")
    assert page.read_text().count("<image ") == 2
    (tmp_path / "pictures" / "4.jpg").touch()  # two images with one id
    report(run, tmp_path / "report")
    assert page.read_text().count("<image ") == 0 and "gallery.html has no images" in caplog.text


def test_prompts_of_an_older_version_make_no_gallery(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROMPTS[0], "objects", [{"box": [0, 0, 1, 1]}])
    run = make_run(tmp_path)
    finish(run)
    assert report(run, tmp_path / "report") == ALL - {"gallery.html"}
    assert "no gallery.html" in caplog.text and "KeyError" in caplog.text
