"""The shim's two operators: torchvision's own where they load, otherwise its slow Python code and a plain loop."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
import torchvision_shim
from torch import Tensor

torchvision_shim.declare_operators()


def random_boxes(number: int, seed: int) -> Tensor:
    """Boxes on a picture of 160 x 208 and beyond it, some without area, some turned inside out."""
    rng = torch.Generator().manual_seed(seed)
    corners = torch.rand(number, 4, generator=rng) * torch.tensor([180.0, 230.0, 180.0, 230.0]) - 10
    boxes = torch.cat([torch.minimum(corners[:, :2], corners[:, 2:]), torch.maximum(corners[:, :2], corners[:, 2:])], 1)
    boxes[::7, 2] = boxes[::7, 0]
    boxes[::11] = boxes[::11].flip(1)
    return boxes


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    for place in sorted(range(len(boxes)), key=lambda place: -scores[place].item()):
        a = boxes[place]
        for other in kept:
            b = boxes[other]
            sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0)
            shared = sides[0] * sides[1]
            areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
            if shared / (areas[0] + areas[1] - shared) > threshold:
                break
        else:
            kept.append(place)
    return kept


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_nms(threshold: float) -> None:
    boxes = random_boxes(80, seed=1) / torch.tensor([3.0, 3.0, 1.0, 1.0])  # so that they overlap
    scores = torch.rand(80, generator=torch.Generator().manual_seed(2))
    expected = plain_nms(boxes, scores, threshold)
    assert 10 < len(expected) < 80
    assert torchvision_shim.nms(boxes, scores, threshold).tolist() == expected
    from torchvision.ops import nms

    assert nms(boxes, scores, threshold).tolist() == expected


def plain_roi_align(cells: Tensor, box: Tensor, bins: int, samples: int) -> Tensor:
    """One crop of one channel (h, w), sample by sample; nothing is seen more than a cell beyond the map."""
    height, width = cells.shape
    x1, y1, x2, y2 = (box / 16).tolist()
    steps = [max(y2 - y1, 1.0) / bins, max(x2 - x1, 1.0) / bins]
    counts = [samples or math.ceil(step) for step in steps]
    found = torch.zeros(bins, bins)
    for row, column, i, j in itertools.product(range(bins), range(bins), range(counts[0]), range(counts[1])):
        y = y1 + (row + (i + 0.5) / counts[0]) * steps[0]
        x = x1 + (column + (j + 0.5) / counts[1]) * steps[1]
        if -1 <= y <= height and -1 <= x <= width:
            y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
            for r, c in itertools.product({int(y), min(int(y) + 1, height - 1)}, {int(x), min(int(x) + 1, width - 1)}):
                found[row, column] += max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c)) * cells[r, c]
    return found / (counts[0] * counts[1])


@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align(samples: int) -> None:
    cells = torch.randn(13, 10, generator=torch.Generator().manual_seed(3))
    boxes = random_boxes(24, seed=4)
    rois = torch.cat([torch.zeros(24, 1), boxes], 1)
    expected = torch.stack([plain_roi_align(cells, box, 3, samples) for box in boxes])
    for function in (roi_align_of_torchvision, torchvision_shim.roi_align):
        found = function(cells[None, None], rois, 1 / 16, 3, 3, samples, False)
        torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=0)


def roi_align_of_torchvision(maps: Tensor, rois: Tensor, scale: float, h: int, w: int, samples: int, a: bool) -> Tensor:
    """The public function, which calls the operator."""
    from torchvision.ops import roi_align

    found: Tensor = roi_align(maps, rois, (h, w), scale, samples, a)
    return found


@pytest.mark.parametrize(("samples", "aligned"), [(0, False), (2, False), (0, True)])
def test_roi_align_is_torchvisions(samples: int, aligned: bool) -> None:
    """Against its own code in Python, which knows no edge: boxes and a cell more are within the map."""
    maps = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(3))
    boxes = random_boxes(150, seed=4)
    turned = (boxes[:, 2:] <= boxes[:, :2]).any(1)
    boxes = boxes[(boxes.amin(1) > 8) & (boxes[:, 0::2].amax(1) < 144) & (boxes[:, 1::2].amax(1) < 192) & ~turned]
    assert len(boxes) > 20
    rois = torch.cat([(torch.arange(len(boxes)) % 2)[:, None].float(), boxes], 1)
    slow = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__  # type: ignore[attr-defined]
    expected = slow(maps, rois, 1 / 16, 14, 14, samples, aligned)
    found = torchvision_shim.roi_align(maps, rois, 1 / 16, 14, 14, samples, aligned)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
