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
| `regions` | image id | `{"captions": [str], "boxes": str}`: a caption of each object's region, and `box_digest` |
| `clip` | image id | `{"vectors": bytes, "width": d, "boxes": str}`: unit vectors (n, d), float16 little-endian |

`regions` and `clip` belong to the boxes of `objects`, which may be replaced: `box_digest` tells whether they still do.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack

from scanner_jax.types import Box

FORMAT = 1
"""Raised by hand when the layout changes; a reader refuses a newer one."""

RECORD_LIMIT = 64 * 2**20
"""Bytes of the largest record written or read: far above 100 boxes with their vectors."""

IMPORT_COMMANDS = {
    "captions": "python -m scanner_jax.store import captions SOURCE {folder} (or knowledge captions IMAGES {folder})",
    "notes": "python -m scanner_jax.store import notes SOURCE {folder} --corpus FOLDER (or import notes-jsonl)",
    "objects": "python -m scanner_jax.store import vinvl SOURCE {folder} (or knowledge objects IMAGES {folder})",
    "regions": "python -m scanner_jax.knowledge regions IMAGES {folder}",
    "clip": "python -m scanner_jax.knowledge clip IMAGES {folder}",
}

Value = dict[str, Any]


class StoreError(ValueError):
    """A knowledge source or store that can't be read or written; the message lists every problem."""


def file_names(fingerprint: str) -> tuple[str, str]:
    return f"{fingerprint[:16]}.array_record", f"{fingerprint[:16]}.keys"


def box_digest(boxes: Iterable[Box]) -> str:
    """What `regions` and `clip` know their boxes by, in the boxes' order: 16 hexadecimal digits of a sha256."""
    data = b"".join(struct.pack("<4d", *box) for box in boxes)
    return hashlib.sha256(data).hexdigest()[:16]


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
