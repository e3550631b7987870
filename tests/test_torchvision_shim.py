"""The shim's two operators: torchvision's own where they load, otherwise its slow Python code and a plain loop."""

from __future__ import annotations

import sys

import pytest
import torchvision_shim

torchvision_shim.declare_operators()

import torch
from torch import Tensor
from torchvision.ops import nms, roi_align


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
    assert 20 < len(expected) < 80
    assert torchvision_shim.nms(boxes, scores, threshold).tolist() == expected
    assert nms(boxes, scores, threshold).tolist() == expected


@pytest.mark.parametrize(("samples", "aligned"), [(0, False), (2, False), (0, True)])
def test_roi_align(samples: int, aligned: bool) -> None:
    maps = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(3))
    boxes = random_boxes(40, seed=4)
    rois = torch.cat([(torch.arange(40) % 2)[:, None].float(), boxes], 1)
    if aligned:  # a box turned inside out has no number of samples then
        rois = rois[(boxes[:, 2:] > boxes[:, :2]).all(1)]
    found = roi_align(maps, rois, (14, 14), 1 / 16, samples, aligned)
    ours = torchvision_shim.roi_align(maps, rois, 1 / 16, 14, 14, samples, aligned)
    slow = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__  # type: ignore[attr-defined]
    expected = slow(maps, rois, 1 / 16, 14, 14, samples, aligned)
    assert expected.abs().max() > 1
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
