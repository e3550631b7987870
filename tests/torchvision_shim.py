"""Let torch's models for images run beside a torchvision of another build, whose operators are missing.

    python tests/torchvision_shim.py -m scanner_jax.knowledge captions ...
    python tests/torchvision_shim.py benchmarks/extract.py

runs a module or script so. A CPU torch with the registry's CUDA torchvision can't import it, nor with it any class of
transformers for images. VinVL's detector calls two operators, which are written here in plain torch; the rest is
declared only. Where torchvision fits torch, its own are used. tests/test_torchvision_shim.py compares.
"""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any

OPERATORS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": "(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
}


def declare_operators() -> None:
    """Declare and define operators where torchvision's import fails without them."""
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator, schema in OPERATORS.items():
            torch.library.define(f"torchvision::{operator}", schema)
        torch.library.impl("torchvision::nms", "CPU", nms)
        torch.library.impl("torchvision::roi_align", "CPU", roi_align)
        importlib.import_module("torchvision")
        for module in ("torchvision.extension", "torchvision.ops.roi_align"):
            sys.modules[module]._has_ops = lambda: True  # type: ignore[attr-defined]


def nms(dets: Any, scores: Any, iou_threshold: float) -> Any:
    """Boxes that no better one overlaps by more than a threshold, best first; areas without +1."""
    import numpy as np
    import torch

    order = scores.sort(descending=True, stable=True).indices
    boxes = dets[order].numpy()
    x1, y1, x2, y2 = boxes.T
    areas = (x2 - x1) * (y2 - y1)
    alive = np.ones(len(boxes), bool)
    for place in range(len(boxes)):
        if alive[place]:
            rest = slice(place + 1, None)
            width = np.minimum(x2[place], x2[rest]) - np.maximum(x1[place], x1[rest])
            height = np.minimum(y2[place], y2[rest]) - np.maximum(y1[place], y1[rest])
            shared = np.maximum(width, 0) * np.maximum(height, 0)
            with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area
                alive[rest] &= ~(shared / (areas[place] + areas[rest] - shared) > iou_threshold)
    return order[torch.from_numpy(alive)]


def roi_align(
    input: Any,
    rois: Any,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Crops of a map. Rows and columns are averaged apart: bilinear weights are products of theirs."""
    import torch

    found = input.new_zeros(len(rois), input.shape[1], pooled_height, pooled_width)
    for place, image in enumerate(rois[:, 0].int().tolist()):
        x1, y1, x2, y2 = (rois[place, 1:] * spatial_scale - 0.5 * aligned).tolist()
        sides = (y1, y2, pooled_height, input.shape[2]), (x1, x2, pooled_width, input.shape[3])
        rows, columns = (torch.from_numpy(bin_weights(*side, sampling_ratio, aligned)) for side in sides)
        held = input[image]
        top, bottom, left, right = *_support(rows), *_support(columns)
        part = held[:, top:bottom, left:right] @ columns[:, left:right].T
        found[place] = torch.einsum("ph,chq->cpq", rows[:, top:bottom], part)
    return found


def bin_weights(start: float, end: float, bins: int, size: int, samples: int, aligned: bool) -> Any:
    """What each cell of a side counts for each bin, (bins, size), in numpy."""
    import numpy as np

    length = np.float32(end) - np.float32(start)
    step = (length if aligned else max(length, np.float32(1))) / np.float32(bins)
    count = samples or max(int(np.ceil(step)), 1)
    places = np.float32(start) + step * ((np.arange(bins * count, dtype=np.float32) + np.float32(0.5)) / count)
    share = ((places >= -1) & (places <= size)) / np.float32(count)
    places = places.clip(0, size - 1)
    low = places.astype(int)
    weights = np.zeros((bins, size), np.float32)
    rows = np.arange(bins).repeat(count)
    np.add.at(weights, (rows, low), share * (1 - (places - low)))
    np.add.at(weights, (rows, (low + 1).clip(max=size - 1)), share * (places - low))
    return weights


def _support(weights: Any) -> tuple[int, int]:
    used = weights.any(0).nonzero()[:, 0].tolist() or [0]
    return used[0], used[-1] + 1


if __name__ == "__main__":
    declare_operators()
    del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
