"""The recognizer's phase with grounding on: what is decoded, scored and left in the report, on a corpus with boxes."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ml_collections import ConfigDict
from tiny_recipe import write_world

from scanner_jax import evaluate, phases
from scanner_jax.analysis import BOX_KINDS
from scanner_jax.corpora import read_corpus
from scanner_jax.files import read_json_lines, write_json_lines
from scanner_jax.grounding import grounded_counts
from scanner_jax.inputs import InputError, Inputs, open_inputs
from scanner_jax.metrics import entity_counts
from scanner_jax.predictions import read_predictions
from scanner_jax.recipe import metrics_of, recipe_steps
from scanner_jax.report import write_report
from scanner_jax.runs import Run
from scanner_jax.store import write_kind

LEFT, RIGHT, CORNER = (0, 0, 40, 40), (60, 0, 100, 40), (0, 60, 30, 100)
OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
SCORES = ("gmner", "mner", "eeg", "span", "always_none", "gmner_per_type", "groundable", "ungroundable")


class Finished(NamedTuple):
    config: ConfigDict
    inputs: Inputs
    metrics: dict[str, Any]
    report: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[[Sequence[str]], Path]) -> ConfigDict:
    """Most images show their first entity on the left, found a little to the side; in one of four nothing is found."""
    config = write_world(tmp_path_factory.mktemp("world"), tiny_encoder)
    (folder := Path(config.corpus) / "xml").mkdir()
    objects = []
    splits = read_corpus(config.corpus).splits
    for number, example in enumerate(example for split in splits.values() for example in split):
        if number % 4 != 3 and example.entities:
            shown = OBJECT.format(example.surface(example.entities[0]), *LEFT)
            (folder / f"{example.id}.xml").write_text(f"<annotation>{shown}</annotation>")
        found = [((5, 0, 45, 40), "person"), (RIGHT, "place"), (CORNER, "person")]
        records = [{"box": list(box), "label": label, "score": 0.5, "caption": ""} for box, label in found]
        objects += [(example.id, {"objects": records})] if number % 4 != 3 else []
    write_kind(config.knowledge.store, "objects", objects, {"importer": "test"})
    config = config.copy_and_resolve_references()
    config.unlock()
    config.knowledge.update(use_objects=True, use_wikipedia=False)
    config.recognizer.update(grounding_weight=1.0, max_objects=2)
    config.tyt.update(detector=False, recognizer=False)
    config.epochs.recognizer_student = 8
    return config.lock()


def run_student(run: Run) -> dict[str, Any]:
    """Run the last phase alone, with the gold spans in place of what detectors find."""
    steps = recipe_steps(run)
    candidates = steps["candidates"].phase.folder(run.root)
    candidates.mkdir(parents=True)
    for split, examples in run.inputs.by_use.items():
        lines = [{"id": e.id, "spans": [(entity.start, entity.end) for entity in e.entities]} for e in examples]
        write_json_lines(candidates / f"{split}.jsonl", lines)
    phase, body, _ = steps["recognizer-student"]
    phases.run(phase, run.root, functools.partial(body, run, phase))
    return metrics_of({"recognizer-student": phase}, run.root)


@pytest.fixture(scope="module")
def finished(world: ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    inputs = open_inputs(world, prepared=folder / "prepared")
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    metrics = run_student(run)
    write_report(folder / "report", run, metrics)
    return Finished(world, inputs, metrics, folder / "report")


def test_the_corpus_has_boxes_and_objects_that_are_theirs(finished: Finished) -> None:
    assert finished.inputs.corpus.has_boxes
    for split in ("dev", "test"):
        assert finished.metrics["recognizer"][split]["groundable"]["support"] > 0


def test_metrics_have_the_documented_form(finished: Finished) -> None:
    found = finished.metrics["recognizer"]
    assert 0 <= found["box_threshold"] <= 1
    for split in ("dev", "test"):
        assert {*SCORES, "micro", "seen", "unseen", "per_type", "candidate_boxes", "candidates"} == set(found[split])
        assert found[split]["mner"] == found[split]["micro"]
        assert found[split]["gmner"]["f1"] <= found[split]["mner"]["f1"]
        # Every groundable entity is a candidate, and its image has objects.
        assert found[split]["candidate_boxes"] == {"recall": 100.0, "support": found[split]["groundable"]["support"]}
    table = (finished.report / "metrics.txt").read_text()
    for row in ("recognizer test gmner", "recognizer test always_none", "recognizer test gmner_per_type PER"):
        assert row in table
    assert "recognizer test candidate_boxes" in table and "recognizer box_threshold" in table


def test_the_report_can_be_scored_again(finished: Finished) -> None:
    out = finished.report.parent / "scores.json"
    for split, name in (("test", "predictions.jsonl"), ("dev", "predictions-dev.jsonl")):
        arguments = ["--gold", finished.config.corpus, "--split", split, "--json", str(out)]
        assert evaluate.main([*arguments, "--predictions", str(finished.report / name)]) == 0
        scores = json.loads(out.read_text())
        for key in (*SCORES, "micro"):
            assert scores[key] == finished.metrics["recognizer"][split][key]


def test_boxes_are_objects_above_the_threshold(finished: Finished) -> None:
    threshold = finished.metrics["recognizer"]["box_threshold"]
    boxes = [[5, 0, 45, 40], list(RIGHT), list(CORNER)]
    images = set(finished.inputs.sources.store.keys("objects"))  # type: ignore[union-attr]
    lines = read_json_lines(finished.report / "predictions.jsonl")
    assert {entity["box"] is None for line in lines for entity in line["entities"]} == {True, False}
    for line in lines:
        for entity in line["entities"]:
            if line["id"] not in images:
                assert entity["box"] is entity["box_score"] is None
            elif entity["box_score"] > threshold:
                assert entity["box"] in boxes[:2]  # the third did not fit into the prompt
            else:
                assert entity["box"] is None


def test_the_report_lists_errors_of_boxes(finished: Finished) -> None:
    read = read_predictions(finished.report / "predictions.jsonl")
    gold, predicted = [example.entities for example in finished.inputs.test], [*read.values()]
    errors = read_json_lines(finished.report / "errors.jsonl")
    boxes = [error[side]["boxes"] for error in errors for side in ("gold", "predicted") if error[side]]
    assert any(boxes) and not all(boxes)
    wrong_types = {(error["id"], error["gold"]["start"]) for error in errors if error["kind"] == "type"}
    wrong = [error for error in errors if error["kind"] in BOX_KINDS]
    cost = entity_counts(gold, predicted).true_positives - grounded_counts(gold, predicted).true_positives
    assert sum((error["id"], error["gold"]["start"]) not in wrong_types for error in wrong) == cost
    assert "box missing" in (finished.report / "errors.txt").read_text()


def test_grounding_needs_objects(world: ConfigDict, tmp_path: Path) -> None:
    config = world.copy_and_resolve_references()
    config.unlock()
    config.knowledge.use_objects = False
    with pytest.raises(InputError, match="without objects in the prompt there is no box to choose"):
        open_inputs(config, prepared=tmp_path)


def test_without_dev_the_threshold_is_a_half(world: ConfigDict, tmp_path: Path) -> None:
    config = world.copy_and_resolve_references()
    config.unlock()
    config.train_on = ("train", "dev")
    config.epochs.recognizer_student = 1
    inputs = open_inputs(config, prepared=tmp_path / "prepared")
    metrics = run_student(Run(config=config, inputs=inputs, root=tmp_path / "phases"))
    assert metrics["recognizer"]["box_threshold"] == 0.5 and metrics["recognizer"]["dev"] is None
    assert "gmner" in metrics["recognizer"]["test"]
