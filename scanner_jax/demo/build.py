"""Builds everything that the demo's recipe reads: corpus, knowledge, tokenizer and encoder."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

from scanner_jax.demo.corpus import Sizes, invent_world, make_corpus, write_corpus
from scanner_jax.demo.pretraining import pretrain, pretraining_texts
from scanner_jax.files import read_json, write_json

VERSION = 2
"""Raised by hand when what is generated changes."""

_DESCRIPTION = "demo.json"


class DemoError(ValueError):
    """The demo can't be built or compared; the message says why and what to do."""


def build(folder: Path, *, seed: int, sizes: Sizes | None = None) -> tuple[dict[str, Any], bool]:
    """Build the demo's files, unless the folder holds just these; aside, then in place by a rename.

    Args:
        folder: a new one, or one that was built before, which is replaced if it differs.
        seed: of all that is generated; the same seed gives the same bytes.
        sizes: how much to generate; the demo's own by default.

    Returns:
        The description that `demo.json` holds, and whether anything was built.

    Raises:
        DemoError: the folder holds something else.
    """
    sizes = sizes or Sizes()
    wanted = {"version": VERSION, "seed": seed, "sizes": dataclasses.asdict(sizes)}
    found = _built(folder)
    if found is not None and {key: found.get(key) for key in wanted} == wanted:
        return found, False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as aside:
        new = Path(aside) / "new"
        new.mkdir()
        world = invent_world(seed=seed, sizes=sizes)
        counts = write_corpus(new, world, make_corpus(world, seed=seed, sizes=sizes), seed=seed)
        pretrain(new / "encoder", pretraining_texts(world, seed=seed, count=sizes.pretraining_texts), seed=seed)
        description = {**wanted, "counts": counts}
        write_json(new / _DESCRIPTION, description)
        if folder.exists():
            os.replace(folder, Path(aside) / "old")
        os.replace(new, folder)
    return description, True


def _built(folder: Path) -> dict[str, Any] | None:
    """What an earlier build says of itself; None where there is nothing yet.

    Raises:
        DemoError: there is something that no build has written.
    """
    if folder.is_dir() and (folder / _DESCRIPTION).is_file():
        try:
            found = read_json(folder / _DESCRIPTION)
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DemoError(f"{folder} holds something else than a demo; name another folder, such as prepared/demo")
    return None
