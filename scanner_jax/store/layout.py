"""How a knowledge store lies on disk.

A store is a folder; each kind of knowledge is a sub-folder `<store>/<kind>/`:

- `<hash>.array_record`: one msgpack map a record, `{"key": ..., **value}`;
- `<hash>.keys`: the keys in the records' order, one msgpack list;
- `provenance.json`: format, counts, fingerprint, and where the records came from.

`<hash>` begins the content's fingerprint. `provenance.json` names what counts: it is replaced last, by one
atomic rename, so a reader sees the old kind or the new one, never half of either.

| kind | key | value |
|---|---|---|
| `captions` | image id | `{"text": str}` |
| `notes` | example id | `{"text": str, "spans": [[start, end, str]]}`; words, end exclusive; `spans` may be missing |
| `objects` | image id | `{"objects": [{"box": [x1, y1, x2, y2], "label": str, "score": float, "caption": str}]}` |
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack

FORMAT = 1
"""Raised by hand when the layout changes; a reader refuses a newer one."""

RECORD_LIMIT = 64 * 2**20
"""Bytes of the largest record written or read: far above 100 boxes with their vectors."""

IMPORT_COMMANDS = {
    "captions": "python -m scanner_jax.store import captions SOURCE {folder}",
    "notes": "python -m scanner_jax.store import notes SOURCE {folder} --corpus FOLDER (or import notes-jsonl)",
    "objects": "python -m scanner_jax.store import vinvl SOURCE {folder}",
}

Value = dict[str, Any]


class StoreError(ValueError):
    """A knowledge source or store that can't be read or written; the message lists every problem."""


def file_names(fingerprint: str) -> tuple[str, str]:
    return f"{fingerprint[:16]}.array_record", f"{fingerprint[:16]}.keys"


def read_provenance(path: Path) -> dict[str, Any]:
    file = path / "provenance.json"
    with damage_reported(path):
        provenance = json.loads(file.read_text(encoding="utf-8"))
        if int(provenance["format"]) > FORMAT:
            raise StoreError(
                f"{file}: format {provenance['format']}, and this version reads up to {FORMAT}; "
                "upgrade scanner_jax or import again"
            )
        if not re.fullmatch("[0-9a-f]{64}", provenance["fingerprint"]):
            raise ValueError(f"{file.name} has no fingerprint")
        return {**provenance, "count": int(provenance["count"]), "bytes": int(provenance["bytes"])}


def import_command(kind: str, folder: Path) -> str:
    command = IMPORT_COMMANDS.get(kind, f"no command of this version imports {kind}; write_kind writes them")
    return command.format(folder=folder)


@contextmanager
def damage_reported(path: Path) -> Iterator[None]:
    """Turn what the libraries raise on damaged files into a StoreError that names the folder."""
    try:
        yield
    except StoreError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, msgpack.UnpackException) as error:
        raise StoreError(
            f"{path} is damaged or cut short ({error}); import it again: {import_command(path.name, path.parent)}"
        ) from error
