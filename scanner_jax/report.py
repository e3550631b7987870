"""The report of a run: its scores, its predictions, and what explains them, made of what its phases left.

Nothing in it depends on paths, times or hosts, so that equal runs give equal files. A file of an earlier report that
this run has nothing to put into is removed.

| file | what |
|---|---|
| `metrics.json`, `metrics.txt` | the scores; the same as a table |
| `predictions.jsonl`, `predictions-dev.jsonl` | the recognizer's entities, in the predictions format |
| `predictions.conll` | test as columns: `conlleval -d '\\t' < predictions.conll` |
| `errors.jsonl`, `errors.txt` | every error on test, of boxes too, frequent confusions first; how many of each |
| `suspect_labels.jsonl` | of each teacher, the `SUSPECTS` training labels that it trusts least, lowest alpha first |
| `prompts.jsonl` | what each test candidate's prompt was told, what was cut, each class's probability |
| `gallery.html` | all of that on a page, with the images |
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scanner_jax import phases
from scanner_jax.analysis import errors_of, errors_table, judged_candidates, judged_words, lowest_alpha
from scanner_jax.corpora import own_images
from scanner_jax.files import read_arrays, read_json_lines, write_json, write_json_lines, write_text
from scanner_jax.gallery import GalleryError, read_report, write_gallery
from scanner_jax.images import ImagesError, find_images
from scanner_jax.metrics import metrics_table
from scanner_jax.predictions import conll_lines
from scanner_jax.recipe import recipe_steps
from scanner_jax.runs import Run
from scanner_jax.stages import read_candidates
from scanner_jax.types import Entity

logger = logging.getLogger(__name__)

SUSPECTS = 500
"""Training labels that suspect_labels.jsonl keeps of each teacher."""

Records = Sequence[Mapping[str, Any]]


def write_report(folder: Path, run: Run, metrics: Mapping[str, Any]) -> str:
    """Write the files above, each aside and then renamed; metrics.json is the last.

    Args:
        folder: made if missing.
        run: config, inputs and the folder of phases; files of phases that have not run yet are left out.
        metrics: what `recipe.run_recipe` returned.

    Returns:
        The text table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _finished_phases(run)
    recognizer = done.get("recognizer-student")
    table = metrics_table(metrics)
    write_text(folder / "metrics.txt", [table])
    for split, name in (("test", "predictions.jsonl"), ("dev", "predictions-dev.jsonl")):
        found = None if recognizer is None or split not in run.inputs.evaluated else _predictions(recognizer, split)
        _write(folder / name, found)
    _write_errors(folder, run, recognizer, grounded=_box_threshold(metrics) is not None)
    _write(folder / "suspect_labels.jsonl", _suspect_labels(run, done))
    _write(folder / "prompts.jsonl", _prompts(recognizer))
    _write_gallery(folder, run, metrics)
    write_json(folder / "metrics.json", metrics)
    return table


def _finished_phases(run: Run) -> dict[str, Path]:
    """The folders of the phases that have finished, by name."""
    listed = {name: step.phase for name, step in recipe_steps(run).items()}
    return {name: phase.folder(run.root) for name, phase in listed.items() if phases.finished(phase, run.root)}


def _predictions(recognizer: Path, split: str) -> Records:
    """One record for each of the split's examples, in their order."""
    return read_json_lines(recognizer / f"{split}-predictions.jsonl")


def _write(path: Path, records: Records | None) -> None:
    """Write JSON lines; None removes what an earlier report left."""
    if records is None:
        path.unlink(missing_ok=True)
    else:
        write_json_lines(path, records)


def _box_threshold(metrics: Mapping[str, Any]) -> float | None:
    """Above which overlap score entities have a box; None where the run does not ground them."""
    threshold: float | None = (metrics["recognizer"] or {}).get("box_threshold")
    return threshold


def _write_errors(folder: Path, run: Run, recognizer: Path | None, *, grounded: bool) -> None:
    """Write what compares test's predictions with its gold, where there are both."""
    if recognizer is None or "test" not in run.inputs.scored:
        for name in ("predictions.conll", "errors.jsonl", "errors.txt"):
            (folder / name).unlink(missing_ok=True)
        return
    examples, records = run.inputs.test, _predictions(recognizer, "test")
    predicted = [[_entity(item) for item in line["entities"]] for line in records]
    errors = errors_of(examples, predicted, grounded=grounded)
    write_text(folder / "predictions.conll", conll_lines(examples, predicted))
    write_json_lines(folder / "errors.jsonl", errors)
    write_text(folder / "errors.txt", [errors_table(errors, grounded=grounded)])


def _entity(item: Mapping[str, Any]) -> Entity:
    box = item.get("box")
    return Entity(item["start"], item["end"], item["type"], (tuple(box),) if box else ())


def _suspect_labels(run: Run, done: Mapping[str, Path]) -> Records | None:
    """The labels that the teachers trust least, as far as there are teachers."""
    judged, training = [], run.inputs.training
    if "detector-teacher" in done:
        words = judged_words(training, read_arrays(done["detector-teacher"] / "training-logits.npz"))
        judged += lowest_alpha(words, keep=SUSPECTS)
    if "recognizer-teacher" in done:
        candidates = read_candidates(done["candidates"], "train", training)
        (logits,) = read_arrays(done["recognizer-teacher"] / "training-logits.npz")
        spans = judged_candidates(candidates, logits, types=run.inputs.corpus.types)
        judged += lowest_alpha(spans, keep=SUSPECTS)
    if not judged:
        why = "not trained yet" if run.config.tyt.detector or run.config.tyt.recognizer else "off (tyt.*=False)"
        logger.info("report: no suspect_labels.jsonl: it takes a teacher's view, and the teachers are %s", why)
        return None
    for teacher, count in Counter(item.teacher for item in judged).items():
        logger.info("report: suspect_labels.jsonl has the %d labels that the %s's teacher trusts least", count, teacher)
    return [item.record() for item in lowest_alpha(judged, keep=len(judged))]


def _prompts(recognizer: Path | None) -> Records | None:
    if recognizer is None:
        return None
    path = recognizer / "test-prompts.jsonl"
    if path.is_file():
        return read_json_lines(path)
    logger.info("report: no prompts.jsonl: an older version trained this recognizer and did not keep its prompts")
    return None


def _write_gallery(folder: Path, run: Run, metrics: Mapping[str, Any]) -> None:
    """Write the page of test's tweets, of the files that the report has of them."""
    path = folder / "gallery.html"
    if not metrics["recognizer"]:
        path.unlink(missing_ok=True)
        return
    inputs = run.inputs
    try:
        reported = read_report(folder, inputs.test, box_threshold=_box_threshold(metrics))
    except GalleryError as error:  # prompts that an older version kept
        logger.warning("report: no gallery.html: %s", error)
        path.unlink(missing_ok=True)
        return
    scored = "test" in inputs.scored
    write_gallery(path, inputs.test, reported, corpus=inputs.corpus.name, scored=scored, images=_images(run))


def _images(run: Run) -> Mapping[str, Path] | None:
    """The corpus's images, as far as there are any to find: what is wrong with them is no reason to lose a report."""
    folder = run.config.images or own_images(run.config.corpus)
    if folder is None:
        return None
    try:
        return find_images(Path(folder))
    except (ImagesError, OSError) as error:
        logger.warning("report: gallery.html has no images: %s", error)
        return None
