"""The paper's recipe as a list of phases, each of which runs once and keeps its result.

    detector-teacher -> detector-fold-0..3 -> detector-student -> candidates -> recognizer-teacher -> recognizer-student

Raise a VERSION by hand when a change of code changes that phase's result.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scanner_jax import phases, stages
from scanner_jax.inputs import Inputs
from scanner_jax.phases import Phase
from scanner_jax.types import Example

VERSIONS = {"detector": 1, "candidates": 1, "recognizer": 1}

# Settings without an influence on what is learned.
_INDIFFERENT = ("eval_batch_size", "checkpoint_every", "log_every")

Body = Callable[[Path], Mapping[str, Any]]


def recipe_phases(config: ConfigDict, inputs: Inputs) -> dict[str, Phase]:
    """The phases that a config asks for, by name, each after its parents.

    Without TYT in a stage there is nothing to teach: that stage has no teacher. The recognizer is trained with
    plain cross entropy in one phase then, and the detector too.
    """
    listed: dict[str, Phase] = {}

    def add(name: str, *parents: str, settings: Mapping[str, Any], kind: str, reads: Mapping[str, str]) -> None:
        listed[name] = Phase(
            name=name,
            version=VERSIONS[kind],
            config={**settings, "seed": config.seed, "train_on": list(config.train_on)},
            inputs={"corpus": inputs.corpus.fingerprint, **reads},
            parents=tuple(listed[parent] for parent in parents),
        )

    encoder = {"encoder": inputs.encoder.fingerprint}
    detector = {"detector": _decisive(config.detector)}
    if config.tyt.detector:
        settings = detector | {"epochs": config.epochs.detector_teacher}
        add("detector-teacher", settings=settings, kind="detector", reads=encoder)
    folds = [f"detector-fold-{fold}" for fold in range(config.folds)]
    for fold, name in enumerate(folds):
        settings = detector | {"epochs": config.epochs.detector_folds, "folds": config.folds, "fold": fold}
        add(name, settings=settings, kind="detector", reads=encoder)
    settings = detector | {"epochs": config.epochs.detector_student, **_tyt(config, used=config.tyt.detector)}
    teacher = ["detector-teacher"] if config.tyt.detector else []
    add("detector-student", *teacher, settings=settings, kind="detector", reads=encoder)
    add("candidates", "detector-student", *folds, settings={}, kind="candidates", reads={})

    reads = encoder | inputs.sources.fingerprints()
    recognizer = {"recognizer": _decisive(config.recognizer), "knowledge": list(inputs.sources.used)}
    teacher = []
    if config.tyt.recognizer:
        settings = recognizer | {"epochs": config.epochs.recognizer_teacher}
        add("recognizer-teacher", "candidates", settings=settings, kind="recognizer", reads=reads)
        teacher = ["recognizer-teacher"]
    settings = recognizer | {"epochs": config.epochs.recognizer_student, **_tyt(config, used=config.tyt.recognizer)}
    add("recognizer-student", "candidates", *teacher, settings=settings, kind="recognizer", reads=reads)
    return listed


def run_recipe(config: ConfigDict, inputs: Inputs, *, root: Path, until: str | None = None) -> dict[str, Any]:
    """Run the phases that are not finished yet and return the contents of metrics.json.

    Args:
        config: the recipe's.
        inputs: opened inputs.
        root: the folder of phases, which other runs may share.
        until: the last phase to run; None runs all.

    Returns:
        Scores in percent by stage and split; what has not run is None.

    Raises:
        ValueError: there is no phase of the name `until`.
    """
    listed = recipe_phases(config, inputs)
    if until is not None and until not in listed:
        raise ValueError(f"until={until}: this recipe's phases are {', '.join(listed)}")
    wanted = [name for name in listed if until is None or _leads_to(listed[name], listed[until])]
    results = {name: phases.run(listed[name], root, _body(config, inputs, listed, root, name)) for name in wanted}
    return metrics_of(results)


def metrics_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Arrange the phases' results as metrics.json has them; no path, time or host is in it."""
    names = {
        "detector": "detector-student",
        "recognizer": "recognizer-student",
        "detector_teacher": "detector-teacher",
        "recognizer_teacher": "recognizer-teacher",
    }
    return {key: {"dev": None} | dict(results[name]) if name in results else None for key, name in names.items()}


def fold_of(example: Example, *, folds: int, seed: int) -> int:
    """Which fold an example belongs to: a seeded hash of its id (**Assumption:** the paper's split is not given)."""
    digest = hashlib.sha256(f"{seed}:{example.id}".encode()).digest()
    return int.from_bytes(digest[:8]) % folds


def phase_seed(name: str, seed: int) -> int:
    """A phase's own seed, from the recipe's."""
    return zlib.crc32(f"{name}:{seed}".encode()) & 0x7FFFFFFF


def _leads_to(phase: Phase, last: Phase) -> bool:
    return phase == last or any(_leads_to(phase, parent) for parent in last.parents)


def _body(config: ConfigDict, inputs: Inputs, listed: Mapping[str, Phase], root: Path, name: str) -> Body:
    """What a phase does, as a function of its folder."""
    folders = {parent.name: parent.folder(root) for parent in listed[name].parents}
    seed = phase_seed(name, config.seed)
    if name == "candidates":
        return lambda folder: stages.gather_candidates(inputs, folders, folder)
    stage, _, role = name.partition("-")
    alpha = config.tyt.alpha
    if stage == "detector":
        if role.startswith("fold"):
            own = listed[name].config["fold"]
            held_out = [fold_of(example, folds=config.folds, seed=config.seed) == own for example in inputs.training]
            return lambda folder: stages.run_fold(config, inputs, name, seed, folder, held_out=held_out)
        return lambda folder: stages.run_detector(
            config, inputs, name, seed, folder, teacher=folders.get("detector-teacher"), alpha=alpha
        )
    return lambda folder: stages.run_recognizer(
        config,
        inputs,
        name,
        seed,
        folder,
        candidates=folders["candidates"],
        teacher=folders.get("recognizer-teacher"),
        alpha=alpha,
    )


def _decisive(section: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in _INDIFFERENT}


def _tyt(config: ConfigDict, *, used: bool) -> dict[str, Any]:
    return {"alpha": config.tyt.alpha} if used else {}
