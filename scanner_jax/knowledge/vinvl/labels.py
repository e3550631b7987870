"""VinVL's label map: class and attribute numbers to names."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.network import ATTRIBUTES, CLASSES


@dataclasses.dataclass(frozen=True, slots=True)
class Labels:
    """Names by number; number 0 (background, no attribute) has an empty one.

    Attributes:
        classes: 1,595 of them.
        attributes: 525.
        sha256: of the file.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    sha256: str


def read_labels(path: Path) -> Labels:
    """Read `VG-SGG-dicts-vgoi6-clipped.json`, whose numbers are the network's.

    Raises:
        ModelError: no such file, or not numbers from 1 to 1,594 and to 524.
    """
    try:
        data = path.read_bytes()
        held = json.loads(data)
        classes = _names(held["label_to_idx"], CLASSES)
        attributes = _names(held["attribute_to_idx"], ATTRIBUTES)
    except FileNotFoundError as error:
        raise ModelError(f"--labels {path}: no such file; give VG-SGG-dicts-vgoi6-clipped.json") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"--labels {path}: expected VG-SGG-dicts-vgoi6-clipped.json, with label_to_idx (names to 1 to "
            f"{CLASSES - 1:,}) and attribute_to_idx (names to 1 to {ATTRIBUTES - 1}); {error}"
        ) from error
    return Labels(classes, attributes, hashlib.sha256(data).hexdigest())


def _names(numbers: dict[str, Any], count: int) -> tuple[str, ...]:
    if sorted(numbers.values()) != list(range(1, count)):
        raise ValueError(f"found {len(numbers):,} names, whose numbers are not 1 to {count - 1:,}")
    by_number = {number: name for name, number in numbers.items()}
    return "", *(by_number[number] for number in range(1, count))
