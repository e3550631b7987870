"""Boxes in an image, as x1, y1, x2, y2 in pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from scanner_jax.types import Box


def intersection_over_union(first: Sequence[Box], second: Sequence[Box]) -> Float[np.ndarray, "n m"]:
    """IoU of every box of `first` with every box of `second`; 0 where neither has an area."""
    a = np.asarray(first, np.float64).reshape(-1, 1, 4)
    b = np.asarray(second, np.float64).reshape(1, -1, 4)
    sides = np.clip(np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2]), 0, None)
    shared = sides.prod(axis=-1)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _area(boxes: Float[np.ndarray, "*b 4"]) -> Float[np.ndarray, "*b"]:
    return np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(axis=-1)
