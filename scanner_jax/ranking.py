"""The phase `rank`: put each candidate's objects in the order of CLIP's similarity (paper, section 3.2.1).

CLIP runs in a process of its own, `python -m scanner_jax.knowledge rank`, so that torch and JAX never share one. The
two exchange JSON lines in the phase's folder. What the command had answered when it was stopped is not asked again.
"""

from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from scanner_jax.files import write_json_lines
from scanner_jax.phases import Phase
from scanner_jax.retrieval import ORDERS, ordered_by, read_orders, retrieve
from scanner_jax.runs import Run
from scanner_jax.stages import read_candidates

QUERIES = "queries.jsonl"


class RankError(RuntimeError):
    """The command that puts objects in order failed; the message shows it."""


def rank_objects(run: Run, phase: Phase, folder: Path) -> dict[str, Any]:
    """Order the objects of every split's candidates: all of an image's, before the prompt takes the first of them.

    **Assumption:** CLIP is asked for the span's text in the template `knowledge.clip_template`; the paper names none.

    Returns:
        For each split, how many candidates' objects stand in which order.

    Raises:
        RankError: the command failed; what it said went to standard error.
    """
    candidates = run.parent(phase, "candidates")
    assert candidates is not None
    by_split = {split: read_candidates(candidates, split, examples) for split, examples in run.inputs.by_use.items()}
    sources = dataclasses.replace(run.inputs.sources, index=None)
    assert sources.store is not None
    known = sources.store.keys("objects")
    spans = [(example.image_id, example.surface(span)) for found in by_split.values() for example, span in found]
    queries = dict.fromkeys((image, text) for image, text in spans if image in known)  # each once, in their order
    write_json_lines(folder / QUERIES, ({"image": image, "text": text} for image, text in queries))
    _ask(run, folder)
    orders = read_orders(folder)
    return {split: ordered_by(retrieve(sources, found, orders)) for split, found in by_split.items()}


def _ask(run: Run, folder: Path) -> None:
    """Let the command answer the queries; it speaks to the same standard error."""
    settings, store = run.config.knowledge, run.inputs.sources.store
    assert store is not None
    command = [sys.executable, "-m", "scanner_jax.knowledge", "rank", str(store.folder), str(folder / QUERIES)]
    command += [str(folder / ORDERS), f"--template={settings.clip_template}"]
    if settings.clip_model:
        command.append(f"--model={settings.clip_model}")
    status = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode
    if status:
        raise RankError(
            f"the objects' order could not be made; the reason stands above, from this command (status {status}):\n"
            f"  {shlex.join(command)}\n"
            "knowledge.clip_model=NAME takes another source of the model; knowledge.use_clip_order=False does without"
        )
