"""Both stages trained for some steps on one device and on a mesh, in a process that has eight devices.

    python -m tests.mesh_training CONFIG.json FOLDER

leaves in FOLDER what the losses were, what the models say of dev, how parameters are cut, and what checkpoints keep.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr
from ml_collections import ConfigDict

from scanner_jax.beginning import TrainingSettings
from scanner_jax.checkpoint import Checkpoints, Saved
from scanner_jax.convert import load_encoder
from scanner_jax.detection import tag, train_detector
from scanner_jax.encoder import Params
from scanner_jax.files import read_json_lines, write_json
from scanner_jax.inputs import open_inputs
from scanner_jax.placement import ONE_DEVICE, place
from scanner_jax.recognition import judge, train_recognizer
from scanner_jax.runs import Run, detection_of, prompted_with_knowledge, recognition_of
from scanner_jax.settings import placement, training_settings
from scanner_jax.types import BIO


def train_both(run: Run, folder: Path) -> dict[str, Any]:
    """Losses and logits of a detector under AWP and of a recognizer that grounds, each taught by made-up teachers."""
    inputs, rng, found = run.inputs, np.random.default_rng(0), {}
    detection, recognition = detection_of(run), recognition_of(run)
    detector = train_detector(
        detection,
        name="detector",
        encoder_params=run.encoder_params("detector"),
        training=inputs.training,
        dev=None,
        settings=_settings(run, "detector"),
        seed=3,
        folder=folder / "detector",
        teacher_logits=[rng.normal(size=(len(e.words), len(BIO))).astype(np.float32) for e in inputs.training],
    )
    found["dev_detector"] = np.concatenate([*tag(detection, detector, inputs.dev)]).tolist()
    prompted = {
        split: prompted_with_knowledge(run, recognition, [(e, entity.span) for e in examples for entity in e.entities])
        for split, examples in inputs.by_use.items()
    }
    recognizer = train_recognizer(
        recognition,
        name="recognizer",
        encoder_params=run.encoder_params("recognizer"),
        training=prompted["train"],
        dev=None,
        settings=_settings(run, "recognizer"),
        grounding_weight=1.0,
        seed=4,
        folder=folder / "recognizer",
        teacher_logits=rng.normal(size=(len(prompted["train"].prompts), len(recognition.classes))).astype(np.float32),
    )
    found["dev_recognizer"] = judge(recognition, recognizer, prompted["dev"]).types.tolist()
    for stage in ("detector", "recognizer"):
        lines = read_json_lines(folder / stage / "metrics.jsonl")
        found[stage] = [line["loss"] for line in lines if "loss" in line]
    return found


def _settings(run: Run, stage: str) -> TrainingSettings:
    return training_settings(run.config[stage], epochs=2)


def kept_by_checkpoints(params: Params, folder: Path) -> list[bool]:
    """Whether parameters are the same bits after each restoring, saved on 8 devices, then on 1, then on 4."""
    same, placements = [], (place(data=4, fsdp=2), ONE_DEVICE, place(data=1, fsdp=4))
    with Checkpoints(folder) as checkpoints:
        for step, placed in enumerate(placements):
            held = placed.copied(checkpoints.restore_last(lambda _: params).state if step else params)
            same.append(jax.tree.all(jax.tree.map(np.array_equal, params, held)))
            checkpoints.save(step, Saved(held, {}, None))
            checkpoints.wait()
    return same


def main(config: str, folder: str) -> None:
    settings, out = ConfigDict(json.loads(Path(config).read_text())), Path(folder)
    inputs = open_inputs(settings, prepared=out / "prepared")
    found = {}
    for data, fsdp in ((1, 1), (4, 2)):
        settings = settings.copy_and_resolve_references()
        settings.mesh.update(data=data, fsdp=fsdp)
        found[f"{data}x{fsdp}"] = train_both(Run(config=settings, inputs=inputs, root=out), out / f"{data}x{fsdp}")
    params = load_encoder(inputs.encoder.folder)[1]
    leaves = jax.tree_util.tree_leaves_with_path(placement(settings).put(params))
    found["cut"] = {keystr(path, simple=True, separator="/"): str(leaf.sharding.spec) for path, leaf in leaves}
    found["kept"] = kept_by_checkpoints(params, out / "checkpoints")
    write_json(out / "found.json", found)


if __name__ == "__main__":
    main(*sys.argv[1:])
