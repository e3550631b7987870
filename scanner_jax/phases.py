"""Phases of a recipe: each runs once per set of inputs, in a folder named after them.

A phase's hash covers what decides its result: its own part of the config, the fingerprints of the data it
reads, a VERSION that is raised by hand when its code changes its result, and its parents' hashes. So runs
that share a folder of phases share their results, and no result is ever mistaken for another's.

A finished phase has the SHA-256 of its files beside them, and each run that uses it checks them once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scanner_jax import checkpoint
from scanner_jax.files import damaged_files, json_text, read_json, write_checksums, write_json
from scanner_jax.lock import LOCK, locked
from scanner_jax.processes import first_does, first_says, is_first, meet
from scanner_jax.progress import EVENTS, METRICS, SECONDS

logger = logging.getLogger(__name__)

RESULT = "result.json"
"""Marks a phase as finished."""

CHECKPOINTS = "checkpoints"

_CHANGING = (LOCK, METRICS, EVENTS, SECONDS, CHECKPOINTS)
"""What in a phase's folder is no part of its result."""


class DamagedPhaseError(RuntimeError):
    """The files of a finished phase are no longer what it left; the message names them and says what to do."""


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
    return (phase.folder(root) / RESULT).is_file()


def run(
    phase: Phase, root: Path, body: Callable[[Path], Mapping[str, Any]], *, together: bool = False
) -> dict[str, Any]:
    """Run a phase unless it is finished, and return its result.

    One run at a time has it; another waits and then finds it finished (`lock.locked` says where that holds).

    Args:
        phase: what to run.
        root: the folder of all phases.
        body: does the work in the folder it is given, going on from what an interrupted run left there,
            and returns the phase's result as JSON values.
        together: whether all processes of a run do it together; otherwise the first one does it for them.

    Returns:
        The result; written last and by renaming, it marks the phase as finished.

    Raises:
        DamagedPhaseError: a file of the finished phase has changed since, or is missing.
        OSError: the disk is full, or the folder cannot be written.
    """
    folder = phase.folder(root)
    with contextlib.ExitStack() as lock:
        done = is_first() and finished(phase, root)
        if is_first() and not done:
            lock.enter_context(locked(folder))
            done = finished(phase, root)  # by the run that this one waited for
        if not first_says(done, where=f"beginning {phase.hash}"):
            _run(phase, folder, body, together)
        elif is_first():
            _finished_before(phase, folder)
        meet(f"finished {phase.hash}")
    # What training needed to go on is of no more use; a run killed just here leaves it to the next one.
    first_does(shutil.rmtree, folder / CHECKPOINTS, True)
    return read_json(folder / RESULT)


def _run(phase: Phase, folder: Path, body: Callable[[Path], Mapping[str, Any]], together: bool) -> None:
    """Do a phase's work; the folder is locked."""
    if is_first():
        _remove_litter(folder)
        write_json(folder / "phase.json", phase.describe())
    logger.info("%s: running in %s", phase.name, folder)
    result = dict(body(folder)) if together or is_first() else {}
    if is_first():
        write_checksums(folder, leave_out=_CHANGING, planned={RESULT: json_text(result)})
        write_json(folder / RESULT, result)


def _finished_before(phase: Phase, folder: Path) -> None:
    """Check the files of a phase that some run has finished."""
    logger.info("%s: finished before, in %s", phase.name, folder)
    try:
        damaged = damaged_files(folder)
    except FileNotFoundError:
        logger.warning("%s: from a version that recorded no checksums; its files are used unchecked", folder)
        return
    if damaged:
        raise DamagedPhaseError(
            f"{', '.join(str(folder / name) for name in damaged[:3])}: missing, or changed since {phase.name} was "
            f"finished; delete {folder} and give the same command again, which runs it anew"
        )


def _remove_litter(folder: Path) -> None:
    """Remove what killed processes were just writing; with the folder locked, nobody else is."""
    for pattern in ("*.tmp", checkpoint.ASIDE, f"{CHECKPOINTS}/{checkpoint.ASIDE}"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
