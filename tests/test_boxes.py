"""IoU: agreement with counting pixels, and boxes without an area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.boxes import intersection_over_union
from scanner_jax.types import Box

SIZE = 9
COORDINATE = st.integers(0, SIZE)
BOXES = st.lists(st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE), max_size=4)


def pixels(box: Box) -> set[tuple[int, int]]:
    """The pixels inside a box of whole numbers; none where a side is not positive."""
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(BOXES, BOXES)
def test_iou_counts_pixels(first: list[Box], second: list[Box]) -> None:
    found = intersection_over_union(first, second)
    assert found.shape == (len(first), len(second))
    for row, a in enumerate(map(pixels, first)):
        for column, b in enumerate(map(pixels, second)):
            assert found[row, column] == pytest.approx(len(a & b) / len(a | b) if a | b else 0.0, abs=1e-12)


@given(BOXES, BOXES, st.floats(0.01, 100), st.floats(-50, 50))
def test_iou_is_symmetric_and_keeps_under_scale_and_shift(
    first: list[Box], second: list[Box], scale: float, shift: float
) -> None:
    def moved(boxes: list[Box]) -> list[Box]:
        return [tuple((np.array(box) * scale + shift).tolist()) for box in boxes]

    found = intersection_over_union(first, second)
    np.testing.assert_array_equal(found, intersection_over_union(second, first).T)
    np.testing.assert_allclose(found, intersection_over_union(moved(first), moved(second)), atol=1e-9)


def test_hand_made_boxes() -> None:
    box, half, apart, line = (0.0, 0.0, 2.0, 2.0), (1.0, 0.0, 3.0, 2.0), (5.0, 5.0, 6.0, 6.0), (1.0, 1.0, 1.0, 2.0)
    found = intersection_over_union([box], [box, half, apart, line])
    np.testing.assert_allclose(found, [[1.0, 1 / 3, 0.0, 0.0]])
    assert intersection_over_union([line], [line]).tolist() == [[0.0]]
