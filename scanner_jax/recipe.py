"""The paper's recipe as a list of phases, each of which runs once and keeps its result.

    detector-teacher -> detector-fold-0..3 -> detector-student -> candidates -> rank -> recognizer-teacher
    -> recognizer-student

Raise a VERSION by hand when a change of code changes that phase's result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from scanner_jax import phases, ranking, stages
from scanner_jax.files import read_json
from scanner_jax.inputs import InputError, Inputs
from scanner_jax.phases import Phase
from scanner_jax.processes import first_says
from scanner_jax.runs import Run
from scanner_jax.settings import execution

VERSIONS = {"detector": 1, "candidates": 1, "rank": 1, "recognizer": 1}

_INDIFFERENT = ("eval_batch_size", "checkpoint_every", "log_every", "steps_per_dispatch")  # teach nothing


class Step(NamedTuple):
    """A phase, the function that does its work in its folder, and whether all processes of a run do it together."""

    phase: Phase
    body: Callable[[Run, Phase, Path], Mapping[str, Any]]
    together: bool


def recipe_steps(run: Run) -> dict[str, Step]:
    """What a run's config asks for, by name, each after its parents.

    Without TYT in a stage there is nothing to teach, so that stage has no teacher, and its "student" is trained with
    plain cross entropy. `rank` is there where objects are ordered by CLIP.
    """
    config = run.config
    steps: dict[str, Step] = {}

    def add(name: str, body: Any, parents: list[str], **parts: Any) -> None:
        kind = name.partition("-")[0]
        settings = {"seed": config.seed, "train_on": list(config.train_on), **parts}
        inputs = {"corpus": run.inputs.corpus.fingerprint, **_reads(run.inputs, kind)}
        phase = Phase(
            name=name,
            version=VERSIONS[kind],
            config=settings,
            inputs=inputs,
            parents=tuple(steps[parent].phase for parent in parents),
        )
        steps[name] = Step(phase, body, together=kind in ("detector", "recognizer"))

    epochs, tyt = config.epochs, config.tyt
    rounding = _rounding(config)
    detector = {"detector": _decisive(config.detector), **rounding}
    if tyt.detector:
        add("detector-teacher", stages.run_detector, [], **detector, epochs=epochs.detector_teacher)
    folds = [f"detector-fold-{fold}" for fold in range(config.folds)]
    for fold, name in enumerate(folds):
        parts = detector | {"epochs": epochs.detector_folds, "folds": config.folds, "fold": fold}
        add(name, stages.run_fold, [], **parts)
    parts = detector | {"epochs": epochs.detector_student} | ({"alpha": tyt.alpha} if tyt.detector else {})
    add("detector-student", stages.run_detector, ["detector-teacher"] if tyt.detector else [], **parts)
    add("candidates", stages.gather_candidates, ["detector-student", *folds])
    asked = ["candidates"]
    if run.inputs.sources.orders_by_clip:
        add("rank", ranking.rank_objects, ["candidates"], template=config.knowledge.clip_template)
        asked.append("rank")

    recognizer = {"recognizer": _decisive(config.recognizer), "knowledge": list(run.inputs.sources.used), **rounding}
    if tyt.recognizer:
        parts = recognizer | {"epochs": epochs.recognizer_teacher}
        add("recognizer-teacher", stages.run_recognizer, asked, **parts)
    parts = recognizer | {"epochs": epochs.recognizer_student} | ({"alpha": tyt.alpha} if tyt.recognizer else {})
    teacher = ["recognizer-teacher"] if tyt.recognizer else []
    add("recognizer-student", stages.run_recognizer, [*asked, *teacher], **parts)
    return steps


def run_recipe(run: Run, *, until: str | None = None) -> dict[str, Any]:
    """Run the phases that are not finished yet and return the contents of metrics.json.

    Args:
        run: config, opened inputs and the folder of phases, which other runs may share.
        until: the last phase to run; None runs all.

    Returns:
        Scores in percent by stage and split, of all phases that have ever finished; None for the others.

    Raises:
        InputError: there is no phase of the name `until`.
    """
    steps = recipe_steps(run)
    if until is not None and until not in steps:
        raise InputError(f"- until={until}: this recipe's phases are {', '.join(steps)}")
    for phase, body, together in steps.values():
        wanted = until is None or _leads_to(phase, steps[until].phase)
        # A finished one runs no more, but its files are checked before metrics.json quotes it.
        if wanted or first_says(phases.finished(phase, run.root), where=f"asking for {phase.hash}"):
            phases.run(phase, run.root, functools.partial(body, run, phase), together=together)
    return metrics_of({name: step.phase for name, step in steps.items()}, run.root)


def metrics_of(listed: Mapping[str, Phase], root: Path) -> dict[str, Any]:
    """Arrange the finished phases' results as metrics.json has them; no path, time or host is in it."""
    names = {
        "detector": "detector-student",
        "recognizer": "recognizer-student",
        "detector_teacher": "detector-teacher",
        "recognizer_teacher": "recognizer-teacher",
    }
    return {
        key: {"dev": None} | read_json(listed[name].folder(root) / "result.json")
        if name in listed and phases.finished(listed[name], root)
        else None
        for key, name in names.items()
    }


def _leads_to(phase: Phase, last: Phase) -> bool:
    return phase == last or any(_leads_to(phase, parent) for parent in last.parents)


def _reads(inputs: Inputs, kind: str) -> dict[str, str]:
    """Fingerprints of what a phase reads besides the corpus and its parents' results."""
    if kind == "candidates":
        return {}
    if kind == "rank":
        return inputs.sources.rank_fingerprints()
    encoder = {"encoder": inputs.encoder.fingerprint}
    if inputs.warm_start:
        encoder["warm_start"] = inputs.warm_start.fingerprint(kind)
    return encoder if kind == "detector" else encoder | inputs.sources.fingerprints()


def _rounding(config: ConfigDict) -> dict[str, str]:
    """What trainings compute in, where that is not float32: hashes of runs in float32 do not have it."""
    dtype = execution(config).compute_dtype
    return {} if dtype == "float32" else {"compute_dtype": dtype}


def _decisive(section: ConfigDict) -> dict[str, Any]:
    """The settings that decide what is learned: those of AWP only where it is on."""
    return {
        key: value
        for key, value in section.items()
        if key not in _INDIFFERENT and (section.awp or not key.startswith("awp_"))
    }
