"""What each phase of the recipe does in its folder: train, predict, score, and leave files for its children.

Every function goes on from what an interrupted run left in the folder and returns the phase's result as JSON.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scanner_jax import checkpoint, convert, metrics
from scanner_jax.detection import Detection, span_scores, spans_of, tag, train_detector
from scanner_jax.evaluate import prediction_record
from scanner_jax.files import read_arrays, read_json_lines, write_arrays, write_json_lines
from scanner_jax.inputs import Inputs
from scanner_jax.loop import TrainingSettings
from scanner_jax.prompts import cut_report
from scanner_jax.recognition import (
    Candidate,
    Prompted,
    Recognition,
    candidate_counts,
    classify,
    decode,
    entities_of,
    train_recognizer,
    write_prompts,
)
from scanner_jax.retrieval import coverage, retrieve
from scanner_jax.types import Example, Span


def run_detector(
    config: ConfigDict,
    inputs: Inputs,
    name: str,
    seed: int,
    folder: Path,
    *,
    teacher: Path | None,
    alpha: float | None,
) -> dict[str, Any]:
    """Train the teacher, or the student of a teacher's folder; tag training, dev and test with it."""
    detection = _detection(config, inputs)
    _, encoder_params = convert.load_encoder(inputs.encoder.folder)
    params = train_detector(
        detection,
        name=name,
        encoder_params=encoder_params,
        training=inputs.training,
        dev=inputs.dev,
        settings=_settings(config.detector, epochs=config.epochs[name.replace("-", "_")]),
        seed=seed,
        folder=folder,
        teacher_logits=read_arrays(teacher / "training-logits.npz") if teacher else None,
        alpha=alpha,
    )
    checkpoint.save_params(folder / "params", params)
    write_arrays(folder / "training-logits.npz", tag(detection, params, inputs.training))
    result = {}
    for split, examples in inputs.evaluated.items():
        spans = spans_of(tag(detection, params, examples))
        write_json_lines(folder / f"{split}-spans.jsonl", _span_records(examples, spans))
        result[split] = span_scores(examples, spans)
    return result


def run_fold(
    config: ConfigDict, inputs: Inputs, name: str, seed: int, folder: Path, *, held_out: Sequence[bool]
) -> dict[str, Any]:
    """Train a detector on all folds but one and tag that one with it (paper, section 3.1)."""
    detection = _detection(config, inputs)
    _, encoder_params = convert.load_encoder(inputs.encoder.folder)
    unseen = [example for example, out in zip(inputs.training, held_out, strict=True) if out]
    params = train_detector(
        detection,
        name=name,
        encoder_params=encoder_params,
        training=[example for example, out in zip(inputs.training, held_out, strict=True) if not out],
        dev=inputs.dev,
        settings=_settings(config.detector, epochs=config.epochs.detector_folds),
        seed=seed,
        folder=folder,
    )
    spans = spans_of(tag(detection, params, unseen))
    write_json_lines(folder / "held-out-spans.jsonl", _span_records(unseen, spans))
    return {"held_out": span_scores(unseen, spans)}


def gather_candidates(inputs: Inputs, parents: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Collect what stage 2 is asked about: in training gold and out-of-fold mistakes, else the student's spans."""
    mined: dict[str, set[Span]] = {}
    for name, parent in parents.items():
        if name.startswith("detector-fold"):
            mined |= _read_spans(parent / "held-out-spans.jsonl")
    found = {
        "train": {
            example.id: {entity.span for entity in example.entities} | mined[example.id] for example in inputs.training
        }
    }
    student = parents["detector-student"]
    found |= {split: _read_spans(student / f"{split}-spans.jsonl") for split in inputs.evaluated}
    examples = {"train": inputs.training, **inputs.evaluated}
    for split, spans in found.items():
        records = _span_records(examples[split], [sorted(spans[example.id]) for example in examples[split]])
        write_json_lines(folder / f"{split}.jsonl", records)
    return dict(candidate_counts({split: _read_candidates(folder, split, examples[split]) for split in found}))


def run_recognizer(
    config: ConfigDict,
    inputs: Inputs,
    name: str,
    seed: int,
    folder: Path,
    *,
    candidates: Path,
    teacher: Path | None,
    alpha: float | None,
) -> dict[str, Any]:
    """Train the teacher, or the student of a teacher's folder; predict and score dev and test with it."""
    recognition = _recognition(config, inputs)
    examples = {"train": inputs.training, **inputs.evaluated}
    prompted = {
        split: write_prompts(
            recognition,
            split_candidates := _read_candidates(candidates, split, of_split),
            retrieve(inputs.sources, split_candidates),
        )
        for split, of_split in examples.items()
    }
    _, encoder_params = convert.load_encoder(inputs.encoder.folder)
    params = train_recognizer(
        recognition,
        name=name,
        encoder_params=convert.add_token_row(encoder_params),
        training=prompted["train"],
        dev=None if inputs.dev is None else (inputs.dev, prompted["dev"]),
        settings=_settings(config.recognizer, epochs=config.epochs[name.replace("-", "_")]),
        grounding_weight=config.recognizer.grounding_weight,
        seed=seed,
        folder=folder,
        teacher_logits=read_arrays(teacher / "training-logits.npz")[0] if teacher else None,
        alpha=alpha,
    )
    checkpoint.save_params(folder / "params", params)
    if name.endswith("teacher"):
        write_arrays(folder / "training-logits.npz", [classify(recognition, params, prompted["train"])])
    known = metrics.surfaces(inputs.training)
    result: dict[str, Any] = {}
    for split, of_split in inputs.evaluated.items():
        decoded = decode(recognition, of_split, prompted[split], classify(recognition, params, prompted[split]))
        records = [prediction_record(example, found) for example, found in zip(of_split, decoded, strict=True)]
        write_json_lines(folder / f"{split}-predictions.jsonl", records)
        scores = metrics.recognizer_scores(of_split, entities_of(decoded), training_surfaces=known)
        result[split] = {**scores, "candidates": _candidates_report(prompted[split])}
    return result


def _candidates_report(prompted: Prompted) -> dict[str, Any]:
    """How many candidates there are, for how many each kind of knowledge was found, and what was cut from prompts."""
    return {
        "count": candidate_counts({"": prompted.candidates})[""],
        "with_knowledge_percent": coverage(prompted.knowledge),
        **cut_report(prompted.prompts),
    }


def _detection(config: ConfigDict, inputs: Inputs) -> Detection:
    return Detection(
        encoder=inputs.encoder.config,
        tokenizer=inputs.encoder.tokenizer,
        max_tokens=inputs.encoder.config.max_tokens,
        eval_batch_size=config.detector.eval_batch_size,
    )


def _recognition(config: ConfigDict, inputs: Inputs) -> Recognition:
    encoder = inputs.encoder.config
    return Recognition(
        encoder=dataclasses.replace(encoder, vocab_size=encoder.vocab_size + 1),  # the row of <obj>
        tokenizer=inputs.encoder.tokenizer,
        types=inputs.corpus.types,
        max_tokens=min(config.recognizer.max_tokens, encoder.max_tokens),
        max_objects=config.recognizer.max_objects,
        eval_batch_size=config.recognizer.eval_batch_size,
    )


def _settings(section: ConfigDict, *, epochs: int) -> TrainingSettings:
    return TrainingSettings(
        epochs=epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        warmup_fraction=section.warmup_fraction,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        awp_gamma=section.awp_gamma if section.awp else 0.0,
        awp_start=section.awp_start,
        awp_clip_eps=section.awp_clip_eps,
        checkpoint_every=section.checkpoint_every,
        log_every=section.log_every,
    )


def _span_records(examples: Sequence[Example], spans: Iterable[Iterable[Span]]) -> list[dict[str, Any]]:
    return [
        {"id": example.id, "spans": [[span.start, span.end] for span in found]}
        for example, found in zip(examples, spans, strict=True)
    ]


def _read_spans(path: Path) -> dict[str, set[Span]]:
    return {record["id"]: {Span(*span) for span in record["spans"]} for record in read_json_lines(path)}


def _read_candidates(folder: Path, split: str, examples: Sequence[Example]) -> list[Candidate]:
    spans = _read_spans(folder / f"{split}.jsonl")
    return [(example, span) for example in examples for span in sorted(spans[example.id])]
