"""A recipe that a test can run: an invented corpus, a tiny encoder and some knowledge, and its command line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from scanner_jax import checkpoint, phases
from scanner_jax.corpora import read_corpus
from scanner_jax.files import write_json
from scanner_jax.inputs import open_inputs
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.recipe import metrics_of, recipe_steps
from scanner_jax.runs import Run, detection_of, recognition_of
from scanner_jax.settings import paper_settings
from scanner_jax.store import objects_value, write_kind
from scanner_jax.train import run_record
from scanner_jax.types import ImageObject
from scanner_jax.wikipedia import build

NAMES = {
    "PER": ["Ada", "Bo Lind", "Cleo", "Dmitri Orlo", "Eve Park"],
    "LOC": ["Oslo", "Lake Mira", "Quito", "Port Vale"],
    "ORG": ["Acme", "Nova Labs", "Zen Bank", "Ulm FC"],
}
SENTENCES = [
    ["saw", "*", "again", "today"],
    ["nothing", "here"],
    ["*", "and", "*", "are", "great"],
    ["why", "is", "*", "so", "cold", "?"],
]
WORDS = [
    *sorted({word for sentence in SENTENCES for word in sentence if word != "*"}),
    *(part for names in NAMES.values() for name in names for part in name.split()),
    *"The entity is for in this sentence . a person place company photo of".split(),
]


def write_corpus(folder: Path) -> Path:
    folder.mkdir()
    drawn = [(kind, name) for kind, names in NAMES.items() for name in names]
    number = 0
    for split, count in (("train", 24), ("valid", 8), ("test", 8)):
        lines = []
        for _ in range(count):
            lines.append(f"IMGID:{number}")
            for place, word in enumerate(SENTENCES[number % len(SENTENCES)]):
                if word == "*":
                    kind, name = drawn[(7 * number + 3 * place) % len(drawn)]
                    prefixes = ["B", *("I" for _ in name.split()[1:])]
                    lines += [f"{part}\t{prefix}-{kind}" for part, prefix in zip(name.split(), prefixes, strict=True)]
                else:
                    lines.append(f"{word}\tO")
            lines.append("")
            number += 1
        (folder / f"{split}.txt").write_text("\n".join(lines))
    return folder


def write_world(folder: Path, tiny_encoder: Callable[[Sequence[str]], Path]) -> ConfigDict:
    """A config whose inputs are all there."""
    config = paper_settings()
    config.corpus = str(write_corpus(folder / "tweets"))
    config.encoder = str(tiny_encoder(WORDS))
    config.knowledge.store = str(folder / "store")
    captions = [(str(number), {"text": "a photo of a place"}) for number in range(0, 40, 2)]
    write_kind(config.knowledge.store, "captions", captions, {"importer": "test"})
    config.knowledge.wikipedia_index = str(folder / "index.sqlite")
    build([("Ada", "a person"), ("Oslo", "a place"), ("Acme", "a company")], config.knowledge.wikipedia_index)
    config.epochs.update(dict.fromkeys(config.epochs, 2))
    for stage in (config.detector, config.recognizer):
        stage.learning_rate = 1e-2
        stage.eval_batch_size = 8
    config.recognizer.max_tokens = 48
    config.folds = 2
    return config.lock()


BOX = "<object><name>{}</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"


def write_grounded_world(folder: Path, tiny_encoder: Callable[[Sequence[str]], Path]) -> ConfigDict:
    """A recipe that grounds: its images show their first entity, and have two objects each."""
    config = write_world(folder, tiny_encoder).copy_and_resolve_references().unlock()
    (annotations := Path(config.corpus) / "xml").mkdir()
    objects = []
    for example in (example for split in read_corpus(config.corpus).splits.values() for example in split):
        if example.entities:
            shown = BOX.format(example.surface(example.entities[0]))
            (annotations / f"{example.id}.xml").write_text(f"<annotation>{shown}</annotation>")
        found = [ImageObject((5, 0, 45, 40), "person", 0.9, "a person"), ImageObject((60, 0, 100, 40), "place", 0.5)]
        objects.append((example.id, objects_value(found)))
    write_kind(config.knowledge.store, "objects", objects, {"importer": "test"})
    parts = {part: kind for kind, names in NAMES.items() for name in names for part in name.split()}
    config.knowledge.wikipedia_index = str(folder / "parts.sqlite")
    build([(part, f"a {kind}") for part, kind in parts.items()], config.knowledge.wikipedia_index)
    config.knowledge.use_objects = True
    config.recognizer.update(grounding_weight=1.0, max_objects=2)
    return config.lock()


def command(world: ConfigDict, folder: Path) -> list[str]:
    """The command line of a recipe that leaves all it writes in `folder`."""
    config = folder / "own.py"
    folder.mkdir(parents=True, exist_ok=True)
    config.write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n"
        f"    return ConfigDict({json.loads(json.dumps(world.to_dict()))!r}).lock()\n"
    )
    paths = [f"--config={config}", f"--workdir={folder / 'run'}", f"--prepared={folder / 'prepared'}"]
    return [sys.executable, "-m", "scanner_jax.train", *paths]


def finish(world: ConfigDict, folder: Path) -> Path:
    """The workdir of a run as the recipe leaves it, but its students are random, which takes no time."""
    workdir = folder / "run"
    run = Run(config=world, inputs=open_inputs(world, prepared=folder / "prepared"), root=workdir / "phases")
    listed = {name: step.phase for name, step in recipe_steps(run).items()}
    for stage in ("detector", "recognizer"):
        phases.run(listed[f"{stage}-student"], run.root, functools.partial(_draw_student, run, stage))
    (workdir / "report").mkdir()
    write_json(workdir / "report" / "metrics.json", metrics_of(listed, run.root))
    write_json(workdir / "run.json", run_record(run, started=0.0))
    return workdir


def _draw_student(run: Run, stage: str, folder: Path) -> dict[str, Any]:
    """Leave a student whose heads are drawn so wide that it says different things of different texts."""
    key, config = jax.random.key(5), recognition_of(run).encoder
    if stage == "detector":
        params = init_detector(detection_of(run).encoder, run.encoder_params(stage), key)
    else:
        types = len(recognition_of(run).classes)
        params = init_recognizer(config, run.encoder_params(stage), key, num_types=types)
    heads = {name: jax.tree.map(lambda leaf: 40 * leaf, head) for name, head in params.items() if name != "encoder"}
    if stage == "detector":  # or there would be few spans, and fewer entities
        heads["tags"]["bias"] = np.array([0.0, 6.0, 1.0], np.float32)
    else:
        heads["types"]["bias"] = np.array([0.0] * (types - 1) + [-4.0], np.float32)
    checkpoint.save_params(folder / "params", jax.tree.map(np.asarray, params | heads))
    scores = {"precision": 40.0, "recall": 50.0, "f1": 44.44, "support": 8}
    return {"test": scores} if stage == "detector" else {"box_threshold": 0.4, "test": {"micro": scores}}
