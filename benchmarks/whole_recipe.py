"""How long the whole recipe of a config takes for one seed: an estimate from what its parts take here.

    python benchmarks/whole_recipe.py
    python benchmarks/whole_recipe.py --config configs/mner15.py:small --encoder models/granite-30m-english

`scanner_jax.profiling` times the steps of each stage's most frequent shapes, before and after AWP sets in; tagging and
judging dev are timed here, compiled and warm. All of it is multiplied by how often the recipe does it: every phase's
epochs, dev after each, and each split at a phase's end. Compiling is counted once for each loss of a stage, as if
nothing ran beside it. Weights are random. Not counted: reading weights and corpora, saving checkpoints, and looking
knowledge up, once for all.

Non-entities among stage 2's training candidates are only known once folds are trained; --non-entities says how many to
expect beside the gold spans. The last line is JSON: `seconds` is the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
from machine import describe
from ml_collections import ConfigDict

from scanner_jax.detection import tag
from scanner_jax.encoder import random_params
from scanner_jax.files import read_json
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.pipeline import steps_per_epoch
from scanner_jax.recognition import judge
from scanner_jax.runs import Run, detection_of, prompted_with_knowledge, recognition_of

LARGE = "models/xlm-roberta-large-shape"
PREPARED = Path("prepared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/mner15.py", help="FILE or FILE:VARIANT (default: %(default)s)")
    parser.add_argument("--encoder", default=LARGE, help="a folder; weights are not read (default: %(default)s)")
    parser.add_argument("--non-entities", type=int, default=2450, help="mined for stage 2 (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a shape (default: %(default)s)")
    parser.add_argument("--shapes", type=int, default=2, help="timed shapes of a stage (default: %(default)s)")
    parser.add_argument("--sentences", type=int, help="tag and judge only so many of dev")
    options = parser.parse_args()
    try:
        config = read_config(options.config)
    except ValueError as error:
        parser.error(f"--config: {error}")
    config.encoder = options.encoder
    profile = profiled(options)
    with tempfile.TemporaryDirectory() as folder:
        try:
            inputs = open_inputs(config, prepared=PREPARED, weights=False)
        except InputError as error:
            parser.exit(1, f"this is missing or does not fit:\n{error}\n")
        run = Run(config=config, inputs=inputs, root=Path(folder))
        rates = evaluation_rates(run, options.sentences)
    counts = counted(run, options.non_entities)
    parts = estimate(config, profile, rates, counts)
    for name, seconds in parts.items():
        print(f"{name:<34}{seconds:10.1f} s")
    print(f"{'all':<34}{sum(parts.values()):10.1f} s")
    result = {
        "benchmark": "whole_recipe",
        "seconds": round(sum(parts.values()), 1),
        "parts": {name: round(seconds, 1) for name, seconds in parts.items()},
        "steps": steps_of(config, counts),
        "counts": counts,
        "config": options.config,
        "encoder": options.encoder,
        "machine": describe(),
    }
    print(json.dumps(result))


def read_config(name: str) -> ConfigDict:
    """The config of a file and its variant, unlocked.

    Raises:
        ValueError: there is no such file or variant.
    """
    path, _, variant = name.partition(":")
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    config: ConfigDict = runpy.run_path(path)["get_config"](variant)
    return config.unlock()


def profiled(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Measured steps of both stages, as `scanner_jax.profiling` writes them."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"--config={options.config}", f"--config.encoder={options.encoder}", "--random_weights"]
        some = [f"--steps={options.steps}", f"--shapes={options.shapes}", "--traced_steps=0", f"--out={folder}"]
        done = subprocess.run([sys.executable, "-m", "scanner_jax.profiling", *own, *some], check=False)
        if done.returncode:
            sys.exit(done.returncode)
        stages: dict[str, list[dict[str, Any]]] = read_json(Path(folder) / "profile.json")["stages"]
        return stages


def evaluation_rates(run: Run, sentences: int | None) -> dict[str, float]:
    """Sentences tagged, and prompts judged, a second; without compiling."""
    detection, recognition = detection_of(run), recognition_of(run)
    dev = (run.inputs.dev or run.inputs.training)[:sentences]
    candidates = [(example, entity.span) for example in dev for entity in example.entities]
    prompted = prompted_with_knowledge(run, recognition, candidates)
    key = jax.random.key(0)
    detector = jax.device_put(init_detector(detection.encoder, random_params(detection.encoder, seed=1), key))
    rates = {"detector": _rate(lambda: list(tag(detection, detector, dev)), len(dev))}
    del detector
    encoder_params = random_params(recognition.encoder, seed=1)
    recognizer = jax.device_put(
        init_recognizer(recognition.encoder, encoder_params, key, num_types=len(recognition.classes))
    )
    return rates | {"recognizer": _rate(lambda: judge(recognition, recognizer, prompted), len(candidates))}


def _rate(function: Callable[[], object], count: int) -> float:
    function()
    started = time.perf_counter()
    function()
    return count / (time.perf_counter() - started)


def counted(run: Run, non_entities: int) -> dict[str, int]:
    """Sentences of each split, and candidates of each, as many as there are gold entities but in training."""
    counts: dict[str, int] = {}
    for split, examples in run.inputs.by_use.items():
        counts[f"{split} sentences"] = len(examples)
        counts[f"{split} candidates"] = sum(len(example.entities) for example in examples)
    counts["train candidates"] += non_entities
    return counts


def steps_of(config: ConfigDict, counts: Mapping[str, int]) -> dict[str, int]:
    """Updates of both stages; a fold leaves its own part of the sentences out."""
    epochs, size = config.epochs, config.detector.batch_size
    whole = steps_per_epoch(counts["train sentences"], size)
    fold = steps_per_epoch(round(counts["train sentences"] * (1 - 1 / config.folds)), size)
    teacher = epochs.detector_teacher if config.tyt.detector else 0
    detector = (teacher + epochs.detector_student) * whole + config.folds * epochs.detector_folds * fold
    teacher = epochs.recognizer_teacher if config.tyt.recognizer else 0
    prompts = steps_per_epoch(counts["train candidates"], config.recognizer.batch_size)
    return {"detector": detector, "recognizer": (teacher + epochs.recognizer_student) * prompts}


def estimate(
    config: ConfigDict,
    profile: Mapping[str, Sequence[Mapping[str, Any]]],
    rates: Mapping[str, float],
    counts: Mapping[str, int],
) -> dict[str, float]:
    """Seconds by what they go into."""
    epochs, parts = config.epochs, {}
    steps = steps_of(config, counts)
    for stage, rows in profile.items():
        begins = config[stage].awp_start if config[stage].awp else 1.0
        shares = {1: begins, 2: 1 - begins}
        parts[f"{stage}, steps"] = steps[stage] * sum(
            share * mean_step([row for row in rows if row["gradients"] == gradients])
            for gradients, share in shares.items()
            if share
        )
        losses = 2 if config.tyt[stage] else 1
        compiled = {(row["rows"], row["tokens"], row["shared"]): row["compile_seconds"] for row in rows}
        parts[f"{stage}, compiling"] = losses * sum(compiled.values())
    dev = counts.get("dev sentences", 0)
    teacher = epochs.detector_teacher if config.tyt.detector else 0
    rounds = teacher + epochs.detector_student + config.folds * epochs.detector_folds
    tagged = rounds * dev + counts["train sentences"]  # of each fold the part that was held out
    ends = 1 + bool(config.tyt.detector)
    tagged += ends * (dev + counts.get("test sentences", 0)) + (ends - 1) * counts["train sentences"]
    parts["detector, tagging"] = tagged / rates["detector"]
    dev = counts.get("dev candidates", 0)
    teacher = epochs.recognizer_teacher if config.tyt.recognizer else 0
    ends = 1 + bool(config.tyt.recognizer)
    judged = (teacher + epochs.recognizer_student + ends) * dev + ends * counts.get("test candidates", 0)
    judged += (ends - 1) * counts["train candidates"]
    parts["recognizer, judging"] = judged / rates["recognizer"]
    return parts


def mean_step(rows: Sequence[Mapping[str, Any]]) -> float:
    """Seconds of a step, over shapes as frequent as they are."""
    return sum(row["batches"] * row["step_seconds"] for row in rows) / sum(row["batches"] for row in rows)


if __name__ == "__main__":
    main()
