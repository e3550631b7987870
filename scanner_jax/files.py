"""Files that are never seen half-written: each is written aside, then renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def write_text(path: Path, pieces: Iterable[str]) -> None:
    aside = _aside(path)
    with aside.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    os.replace(aside, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, [json.dumps(value, indent=2, ensure_ascii=False), "\n"])


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, (json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_arrays(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Write arrays that differ in their first axis only."""
    aside = _aside(path)
    with aside.open("wb") as file:
        np.savez(file, values=np.concatenate(arrays), lengths=np.array([len(array) for array in arrays]))
    os.replace(aside, path)


def read_arrays(path: Path) -> list[np.ndarray]:
    """Read what `write_arrays` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return np.split(stored["values"], np.cumsum(stored["lengths"])[:-1])


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.tmp")
