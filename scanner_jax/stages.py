"""What each phase of the recipe does in its folder: train, predict, score, and leave files for its children.

Every function goes on from what an interrupted run left in the folder and returns the phase's result as JSON.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scanner_jax import checkpoint, metrics
from scanner_jax.analysis import prompt_records
from scanner_jax.candidates import Candidate, Prompted, candidate_counts, object_recall
from scanner_jax.corpora import Examples
from scanner_jax.decoding import DEFAULT_THRESHOLD, above, best_threshold, entities_of
from scanner_jax.detection import span_scores, spans_of, tag, train_detector
from scanner_jax.files import iter_json_lines, read_arrays, write_arrays, write_json_lines
from scanner_jax.grounding import grounded_scores
from scanner_jax.phases import Phase
from scanner_jax.predictions import prediction_record
from scanner_jax.processes import first_does
from scanner_jax.prompts import cut_report
from scanner_jax.recognition import judge, predicted_entities, train_recognizer
from scanner_jax.retrieval import coverage, found_by, ordered_by, read_orders
from scanner_jax.runs import (
    Run,
    detection_of,
    detector_vocabulary_of,
    prompted_with_knowledge,
    recognition_of,
    recognizer_vocabulary_of,
)
from scanner_jax.settings import training_settings
from scanner_jax.types import Entity, Example, Span


def run_detector(run: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """Train the teacher, or the student of a teacher that is its parent; tag dev and test with it."""
    inputs, detection = run.inputs, detection_of(run)
    teacher = run.parent(phase, "detector-teacher")
    params = train_detector(
        detection,
        name=phase.name,
        encoder_params=run.encoder_params("detector"),
        training=inputs.training,
        dev=inputs.dev,
        settings=training_settings(run.config.detector, epochs=phase.config["epochs"]),
        seed=phase_seed(phase),
        folder=folder,
        teacher_logits=read_arrays(teacher / "training-logits.npz") if teacher else None,
        alpha=phase.config.get("alpha"),
        vocabulary=detector_vocabulary_of(run, detection),
        watch=run.watch(phase, detection.sizes),
    )
    first_does(checkpoint.save_params, folder / "params", params)
    if phase.name == "detector-teacher":
        first_does(write_arrays, folder / "training-logits.npz", list(tag(detection, params, inputs.training)))
    result = {}
    for split, examples in inputs.evaluated.items():
        spans = spans_of(tag(detection, params, examples))
        first_does(write_json_lines, folder / f"{split}-spans.jsonl", _span_records(examples, spans))
        result[split] = span_scores(examples, spans) if split in inputs.scored else None
    return result


def run_fold(run: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """Train a detector on all folds but one and tag that one with it (paper, section 3.1)."""
    inputs, detection = run.inputs, detection_of(run)
    folds = [fold_of(example, folds=run.config.folds, seed=run.config.seed) for example in inputs.training]
    own = phase.config["fold"]
    held_out = Examples(example for example, fold in zip(inputs.training, folds, strict=True) if fold == own)
    params = train_detector(
        detection,
        name=phase.name,
        encoder_params=run.encoder_params("detector"),
        training=Examples(example for example, fold in zip(inputs.training, folds, strict=True) if fold != own),
        dev=inputs.dev,
        settings=training_settings(run.config.detector, epochs=phase.config["epochs"]),
        seed=phase_seed(phase),
        folder=folder,
        vocabulary=detector_vocabulary_of(run, detection),
        watch=run.watch(phase, detection.sizes),
    )
    spans = spans_of(tag(detection, params, held_out))
    first_does(write_json_lines, folder / "held-out-spans.jsonl", _span_records(held_out, spans))
    return {"held_out": span_scores(held_out, spans)}


def fold_of(example: Example, *, folds: int, seed: int) -> int:
    """Which fold an example belongs to: a seeded hash of its id (**Assumption:** the paper's split is not given)."""
    digest = hashlib.sha256(f"{seed}:{example.id}".encode()).digest()
    return int.from_bytes(digest[:8]) % folds


def phase_seed(phase: Phase) -> int:
    """A phase's own seed, from the recipe's and its name."""
    return zlib.crc32(f"{phase.name}:{phase.config['seed']}".encode()) & 0x7FFFFFFF


def gather_candidates(run: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """Collect what stage 2 is asked about: in training gold and out-of-fold mistakes, else the student's spans."""
    inputs = run.inputs
    folders = {parent.name: parent.folder(run.root) for parent in phase.parents}
    student = folders.pop("detector-student")
    mined: dict[str, set[Span]] = {}
    for fold in folders.values():
        mined |= _read_spans(fold / "held-out-spans.jsonl")
    spans = {
        "train": {
            example.id: {entity.span for entity in example.entities} | mined[example.id] for example in inputs.training
        }
    }
    spans |= {split: _read_spans(student / f"{split}-spans.jsonl") for split in inputs.evaluated}
    counts = {}
    for split, examples in inputs.by_use.items():
        records = _span_records(examples, [sorted(spans[split][example.id]) for example in examples])
        write_json_lines(folder / f"{split}.jsonl", records)
        known = split == "train" or split in inputs.scored
        counts[split] = candidate_counts(read_candidates(folder, split, examples)) if known else None
    return counts


def read_candidates(folder: Path, split: str, examples: Sequence[Example]) -> list[Candidate]:
    """The candidates that `gather_candidates` left for a split, in the examples' order."""
    spans = _read_spans(folder / f"{split}.jsonl")
    return [(example, span) for example in examples for span in sorted(spans[example.id])]


def run_recognizer(run: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """Train the teacher, or the student of a teacher that is its parent; predict and score dev and test with it.

    Where the grounding loss is on, an entity has a box if its best object's overlap score is above the threshold that
    is best on dev, which the result keeps.
    """
    inputs, recognition = run.inputs, recognition_of(run)
    candidates, teacher = run.parent(phase, "candidates"), run.parent(phase, "recognizer-teacher")
    assert candidates is not None
    orders = read_orders(run.parent(phase, "rank"))
    prompted = {
        split: prompted_with_knowledge(run, recognition, read_candidates(candidates, split, examples), orders)
        for split, examples in inputs.by_use.items()
    }
    params = train_recognizer(
        recognition,
        name=phase.name,
        encoder_params=run.encoder_params("recognizer"),
        training=prompted["train"],
        dev=None if inputs.dev is None else (inputs.dev, prompted["dev"]),
        settings=training_settings(run.config.recognizer, epochs=phase.config["epochs"]),
        grounding_weight=run.config.recognizer.grounding_weight,
        seed=phase_seed(phase),
        folder=folder,
        teacher_logits=read_arrays(teacher / "training-logits.npz")[0] if teacher else None,
        alpha=phase.config.get("alpha"),
        vocabulary=recognizer_vocabulary_of(run, recognition, prompted.values()),
        watch=run.watch(phase, recognition.sizes),
    )
    first_does(checkpoint.save_params, folder / "params", params)
    if phase.name == "recognizer-teacher":
        first_does(write_arrays, folder / "training-logits.npz", [judge(recognition, params, prompted["train"]).types])
    grounded = bool(run.config.recognizer.grounding_weight)
    judged = {split: judge(recognition, params, prompted[split]) for split in inputs.evaluated}
    decoded = {
        split: predicted_entities(recognition, examples, prompted[split], judged[split], grounded=grounded)
        for split, examples in inputs.evaluated.items()
    }
    result: dict[str, Any] = {}
    if grounded:
        threshold = DEFAULT_THRESHOLD
        if inputs.dev is not None:
            threshold = best_threshold([example.entities for example in inputs.dev], decoded["dev"])
        decoded = {split: above(found, threshold) for split, found in decoded.items()}
        result["box_threshold"] = threshold
    for split, examples in inputs.evaluated.items():
        records = [prediction_record(example, found) for example, found in zip(examples, decoded[split], strict=True)]
        first_does(write_json_lines, folder / f"{split}-predictions.jsonl", records)
        if phase.name == "recognizer-student" and split == "test":
            told = prompt_records(
                prompted[split], judged[split].types, classes=recognition.classes, max_objects=recognition.max_objects
            )
            first_does(write_json_lines, folder / "test-prompts.jsonl", told)
        scored = split in inputs.scored
        result[split] = _scores(run, split, prompted[split], entities_of(decoded[split])) if scored else None
    return result


def _scores(run: Run, split: str, prompted: Prompted, predicted: list[list[Entity]]) -> dict[str, Any]:
    """What metrics.json says of the recognizer on a split that has gold."""
    inputs, examples = run.inputs, run.inputs.evaluated[split]
    scores = metrics.recognizer_scores(examples, predicted, training_surfaces=metrics.surfaces(inputs.training))
    result: dict[str, Any] = {**scores}
    if run.config.recognizer.grounding_weight:
        result |= grounded_scores([example.entities for example in examples], predicted)
        result["candidate_boxes"] = object_recall(prompted)
    return {**result, "candidates": _candidates_report(prompted)}


def _candidates_report(prompted: Prompted) -> dict[str, Any]:
    """How many candidates there are, for how many each kind of knowledge was found, and what was cut from prompts.

    Of those with objects, also what these stand in order of: objects beyond `max_objects` are the last of it.
    """
    orders = ordered_by(prompted.knowledge)
    return {
        "count": candidate_counts(prompted.candidates),
        "with_knowledge_percent": coverage(prompted.knowledge),
        "wikipedia_found_by": found_by(prompted.knowledge),
        **({"object_order": orders} if orders else {}),
        **cut_report(prompted.prompts),
    }


def _span_records(examples: Iterable[Example], spans: Iterable[Iterable[Span]]) -> Iterator[dict[str, Any]]:
    for example, found in zip(examples, spans, strict=True):
        yield {"id": example.id, "spans": [[span.start, span.end] for span in found]}


def _read_spans(path: Path) -> dict[str, set[Span]]:
    return {record["id"]: {Span(*span) for span in record["spans"]} for record in iter_json_lines(path)}
