"""Phases of a recipe: each runs once per set of inputs, in a folder named after them.

A phase's hash covers what decides its result: its own part of the config, the fingerprints of the data it
reads, a VERSION that is raised by hand when its code changes its result, and its parents' hashes. So runs
that share a folder of phases share their results, and no result is ever mistaken for another's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scanner_jax.files import read_json, write_json

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """What decides a phase's result.

    Attributes:
        name: unique within the recipe.
        version: raised by hand when the phase's code changes what it computes.
        config: its part of the config, its seed included; JSON values.
        inputs: fingerprints of the files it reads, by kind.
        parents: the phases whose results it reads.
    """

    name: str
    version: int
    config: Mapping[str, Any]
    inputs: Mapping[str, str]
    parents: tuple[Phase, ...] = ()

    def describe(self) -> dict[str, Any]:
        """All that the hash covers, as JSON values."""
        return {
            "name": self.name,
            "version": self.version,
            "config": dict(self.config),
            "inputs": dict(self.inputs),
            "parents": {parent.name: parent.hash for parent in self.parents},
        }

    @property
    def hash(self) -> str:
        text = json.dumps(self.describe(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self, root: Path) -> Path:
        """Where the phase lies among the others."""
        return root / f"{self.name}-{self.hash}"


def finished(phase: Phase, root: Path) -> bool:
    """Whether the phase has run to its end in `root`."""
    return (phase.folder(root) / "result.json").is_file()


def run(phase: Phase, root: Path, body: Callable[[Path], Mapping[str, Any]]) -> dict[str, Any]:
    """Run a phase unless it is finished, and return its result.

    Args:
        phase: what to run.
        root: the folder of all phases.
        body: does the work in the folder it is given, going on from what an interrupted run left there,
            and returns the phase's result as JSON values.

    Returns:
        The result; written last and by renaming, it marks the phase as finished.
    """
    folder = phase.folder(root)
    if not finished(phase, root):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "phase.json", phase.describe())
        logger.info("%s: running in %s", phase.name, folder)
        write_json(folder / "result.json", dict(body(folder)))
    else:
        logger.info("%s: finished before, in %s", phase.name, folder)
    # What training needed to go on is of no more use; a run killed just here leaves it to the next one.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return read_json(folder / "result.json")
