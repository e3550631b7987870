"""Anchors, deltas, and which boxes stay: VinVL's arithmetic, in float32.

Boxes are (x1, y1, x2, y2) in pixels of the resized image. Widths count both edges' pixels (x2 - x1 + 1) where deltas
are decoded, and boxes are cut at W - 1 and H - 1; non-maximum suppression and ROIAlign know no such pixel. Both are
torchvision's operators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

CELL = 16
RATIOS = (0.5, 1.0, 2.0)
SIZES = (32, 64, 128, 256, 512)

BEFORE_NMS = 6000
PROPOSAL_IOU, CLASS_IOU = 0.7, 0.3

PROPOSAL_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
CLASS_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""What deltas are divided by."""

_LARGEST_STEP = math.log(1000 / CELL)
_FLOORS = (1.0, 1e-1, 1e-3)
"""Shares of the score threshold below which nothing is looked at first; see `best_per_proposal`."""


def cell_anchors() -> Tensor:
    """The anchors of the cell at the origin, (15, 4): for each ratio, height to width, all sizes."""
    rows: list[tuple[float, ...]] = []
    for ratio in RATIOS:
        width = round(math.sqrt(CELL * CELL / ratio))
        height = round(width * ratio)
        for size in SIZES:
            x, y = (width * size / CELL - 1) / 2, (height * size / CELL - 1) / 2
            rows.append(((CELL - 1) / 2 - x, (CELL - 1) / 2 - y, (CELL - 1) / 2 + x, (CELL - 1) / 2 + y))
    return torch.tensor(rows)


def grid_anchors(cell: Tensor, height: int, width: int) -> Tensor:
    """The anchors of a feature map, (height * width * 15, 4), by row, column and anchor."""
    y, x = (torch.arange(count, device=cell.device, dtype=cell.dtype) * CELL for count in (height, width))
    y, x = torch.meshgrid(y, x, indexing="ij")
    shifts = torch.stack([x, y, x, y], -1)
    return (shifts[:, :, None] + cell).reshape(-1, 4)


def decode(boxes: Tensor, deltas: Tensor, weights: Sequence[float]) -> Tensor:
    """Move and stretch boxes (n, 4) by deltas (n, 4)."""
    width, height = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = boxes[:, 0] + 0.5 * width, boxes[:, 1] + 0.5 * height
    dx, dy, dw, dh = (deltas[:, side] / weight for side, weight in enumerate(weights))
    x, y = dx * width + x, dy * height + y
    width, height = (
        step.clamp(max=_LARGEST_STEP).exp() * side for step, side in ((dw, width), (dh, height))
    )  # fmt: skip
    return torch.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width - 1, y + 0.5 * height - 1], 1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut boxes to an image of so much height and width; those left without area stay."""
    height, width = size
    x, y = boxes[:, 0::2].clamp(0, width - 1), boxes[:, 1::2].clamp(0, height - 1)
    return torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], 1)


def propose(logits: Tensor, deltas: Tensor, cell: Tensor, size: tuple[int, int], most: int) -> tuple[Tensor, Tensor]:
    """An image's proposals, best first.

    Args:
        logits: (15, h, w) of its anchors.
        deltas: (60, h, w) likewise.
        cell: the anchors at the origin.
        size: height and width of the resized image.
        most: so many at most.

    Returns:
        Boxes (n, 4), and their objectness (n) from 0 to 1.
    """
    from torchvision.ops import nms

    count, height, width = logits.shape
    scores, order = logits.permute(1, 2, 0).flatten().sigmoid().topk(min(BEFORE_NMS, logits.numel()))
    steps = deltas.reshape(count, 4, height, width).permute(2, 3, 0, 1).reshape(-1, 4)[order]
    boxes = clip(decode(grid_anchors(cell, height, width)[order], steps, PROPOSAL_WEIGHTS), size)
    kept = nms(boxes, scores, PROPOSAL_IOU)[:most]
    return boxes[kept], scores[kept]


def best_per_proposal(
    probabilities: Tensor, class_boxes: Tensor | None, proposals: Tensor, *, threshold: float, fewest: int, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One label at most for each proposal, and the best of them: VinVL's NMS_FILTER 1.

    In each class alone boxes suppress those with a lower score and an IoU above 0.3. A proposal's label is the class of
    the best score that it survived in, the lowest one of equals. Of the proposals, best first, those with a score from
    the threshold on stay, but so many at least and at most.

    Low scores suppress no higher one, so that entries below a floor change nothing above it. Hence only those from the
    threshold on are looked at, and lower ones as long as fewer than `fewest` proposals have a label: the result is that
    of all entries.

    Args:
        probabilities: (n, c) of proposals and classes, class 0 the background; on the CPU.
        class_boxes: (n, c, 4), None where every class's box is the proposal.
        proposals: (n, 4).
        threshold: a score.
        fewest: so many stay whatever their score, if there are so many.
        most: no more stay.

    Returns:
        Which proposals (k), their labels (k) and scores (k), best first.
    """
    scores = probabilities.clone()
    scores[:, 0] = 0
    for share in (*_FLOORS, 0.0):
        floor = threshold * share
        survived = _survivors(scores, floor, class_boxes, proposals)
        best, labels = survived.max(1)
        if not floor or int((best >= floor).sum()) >= min(fewest, len(scores)):
            break
    best, order = best.sort(descending=True, stable=True)
    count = min(max(int((best >= threshold).sum()), fewest), most, int((best > 0).sum()))
    kept = order[:count]
    return kept, labels[kept], best[:count]


def _survivors(scores: Tensor, floor: float, class_boxes: Tensor | None, proposals: Tensor) -> Tensor:
    """The scores from the floor on that no other suppresses in its class; 0 for the others. As torchvision's NMS."""
    from torchvision.ops import nms

    survived = torch.zeros_like(scores)
    above = (scores > 0) & (scores >= floor)
    for label in above.any(0).nonzero()[:, 0].tolist():
        rows = above[:, label].nonzero()[:, 0]
        boxes = proposals if class_boxes is None else class_boxes[:, label]
        kept = rows[nms(boxes[rows], scores[rows, label], CLASS_IOU)]
        survived[kept, label] = scores[kept, label]
    return survived
