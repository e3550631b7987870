"""VinVL's boxes: anchors, deltas, clipping, sizes, and which label a proposal gets, against loops written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision_shim import declare_operators

from scanner_jax.knowledge.vinvl.boxes import best_per_proposal, cell_anchors, clip, decode, grid_anchors
from scanner_jax.knowledge.vinvl.preprocessing import prepare, resized

declare_operators()

ANCHORS = """
-15 -4 30 19 | -38 -16 53 31 | -84 -40 99 55 | -176 -88 191 103 | -360 -184 375 199
-8 -8 23 23 | -24 -24 39 39 | -56 -56 71 71 | -120 -120 135 135 | -248 -248 263 263
-3 -14 18 29 | -14 -36 29 51 | -36 -80 51 95 | -80 -168 95 183 | -168 -344 183 359
"""


def test_anchors() -> None:
    rows = [[float(side) for side in row.split()] for row in ANCHORS.replace("\n", "|").split("|") if row.strip()]
    assert cell_anchors().tolist() == rows


def test_anchors_go_by_row_column_and_anchor() -> None:
    grid = grid_anchors(cell_anchors(), 2, 3).reshape(2, 3, 15, 4)
    assert grid[1, 2, 4].tolist() == [-360 + 32, -184 + 16, 375 + 32, 199 + 16]


def test_deltas_count_both_edges() -> None:
    box = torch.tensor([[10.0, 20.0, 29.0, 59.0]])  # 20 x 40 about (20, 40)
    assert decode(box, torch.zeros(1, 4), (1, 1, 1, 1)).tolist() == box.tolist()
    (moved,) = decode(box, torch.tensor([[1.0, -2.0, 5 * math.log(2), 0.0]]), (10, 10, 5, 5)).tolist()
    assert moved == pytest.approx([22 - 20, 32 - 20, 22 + 20 - 1, 32 + 20 - 1], abs=1e-4)
    (wide,) = decode(box, torch.tensor([[0.0, 0.0, 50.0, 0.0]]), (1, 1, 1, 1)).tolist()
    assert wide[2] - wide[0] + 1 == pytest.approx(20 * 1000 / 16, rel=1e-5)


def test_boxes_are_cut_at_the_last_pixel() -> None:
    cut = clip(torch.tensor([[-3.0, -4.0, 500.0, 600.0], [120.0, 30.0, 130.0, 40.0]]), (50, 100))
    assert cut.tolist() == [[0, 0, 99, 49], [99, 30, 99, 40]]


def every_class(
    probabilities: Tensor, class_boxes: Tensor, threshold: float, fewest: int, most: int
) -> list[tuple[int, int, float]]:
    """NMS_FILTER 1 as it is defined: each class over all proposals, then the best that is left of each proposal."""
    from torchvision.ops import nms

    left = torch.zeros_like(probabilities)
    for label in range(1, probabilities.shape[1]):
        kept = nms(class_boxes[:, label], probabilities[:, label], 0.3)
        left[kept, label] = probabilities[kept, label]
    best = [(row.max().item(), int(row.argmax())) for row in left]
    order = sorted((place for place in range(len(best)) if best[place][0] > 0), key=lambda place: -best[place][0])
    count = min(max(sum(best[place][0] >= threshold for place in order), fewest), most)
    return [(place, best[place][1], best[place][0]) for place in order[:count]]


@pytest.mark.parametrize("regression", [True, False])
@pytest.mark.parametrize("sharpness", [0.2, 3.0, 30.0])
@pytest.mark.parametrize("threshold", [0.2, 0.9, 0.01, 0.0])
def test_the_floors_change_nothing(threshold: float, sharpness: float, regression: bool) -> None:
    rng = torch.Generator().manual_seed(int(sharpness * 10) + regression)
    proposals = torch.rand(40, 4, generator=rng) * 50
    proposals[:, 2:] += proposals[:, :2]
    moved = proposals[:, None] + torch.randn(40, 12, 4, generator=rng) * (8 if regression else 0)
    probabilities = (torch.randn(40, 12, generator=rng) * sharpness).softmax(1)
    kept, labels, scores = best_per_proposal(
        probabilities, moved if regression else None, proposals, threshold=threshold, fewest=10, most=25
    )
    expected = every_class(probabilities, moved, threshold, 10, 25)
    assert list(zip(kept.tolist(), labels.tolist(), scores.tolist(), strict=True)) == expected
    assert 10 <= len(expected) <= 25


def test_what_has_no_label_left_is_dropped() -> None:
    proposals = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3 + [[50.0, 50.0, 60.0, 60.0]])
    probabilities = torch.tensor([[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.1, 0.7, 0.2], [1.0, 0.0, 0.0]])
    kept, labels, scores = best_per_proposal(probabilities, None, proposals, threshold=0.2, fewest=10, most=100)
    assert (kept.tolist(), labels.tolist()) == ([0, 2], [1, 2])  # the third gives way to its second class
    assert scores.tolist() == pytest.approx([0.9, 0.2])


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((600, 407), (884, 600)),
        ((320, 240), (800, 600)),
        ((2000, 500), (1000, 250)),
        ((500, 2000), (250, 1000)),
        ((1001, 333), (999, 333)),  # clamped to 333 already, and so unchanged but for what is cut off
        ((777, 600), (777, 600)),
        ((60, 60), (600, 600)),
    ],
)
def test_sizes(size: tuple[int, int], expected: tuple[int, int]) -> None:
    found = resized(*size)
    assert found == expected or (found == size and min(size) == min(expected))


def test_a_strip_that_vanishes_is_refused() -> None:
    with pytest.raises(ValueError, match="4000 x 1 pixels cannot be resized"):
        prepare(Image.new("RGB", (4000, 1)))


def test_what_is_prepared_is_pillows() -> None:
    picture = Image.effect_noise((90, 40), 60).convert("RGB")
    found = prepare(picture, 20, 100)
    np.testing.assert_array_equal(found.pixels, np.array(picture.resize((45, 20), Image.Resampling.BILINEAR)))
    assert (found.size, found.original) == ((20, 45), (90, 40))
