"""How fast VinVL's detector is, one image at a time and in batches, and what it takes.

    python benchmarks/vinvl.py [--device cuda] [--precision bf16] [--batch-size 8]

The whole network with weights by the formula, over noise of photographs' sizes, as the command `objects --detector
vinvl --features` runs it: resizing, network, boxes, features and attributes; no files. Both ways take turns. In fp32
batches must find what single images do: the same classes, scores to a thousandth and boxes to a twentieth of a pixel.

The last line is JSON: `ratio`, the median over the rounds of single seconds over batched ones; images a second; GFLOPs
of an image (a multiply-add is two, the mean over the images) and TFLOPs a second; peak memory in MB, of the GPU where
there is one, otherwise of the process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from vinvl_formula import formula_state

from scanner_jax.knowledge.loading import PRECISIONS, choose_device, choose_precision
from scanner_jax.knowledge.vinvl.detector import Detections, Detector, Options
from scanner_jax.knowledge.vinvl.network import Network
from scanner_jax.knowledge.vinvl.preprocessing import prepare

SHAPES = ((600, 450), (450, 600), (600, 338), (600, 600))


def draw_images(number: int) -> list[Image.Image]:
    rng = random.Random(1)
    return [Image.effect_noise(rng.choice(SHAPES), rng.randint(20, 90)).convert("RGB") for _ in range(number)]


def timed(
    detector: Detector, images: Sequence[Image.Image], options: argparse.Namespace, size: int
) -> tuple[float, list[Detections]]:
    """Seconds for all images, so many at once, and what was found."""
    started = time.perf_counter()
    found: list[Detections] = []
    for start in range(0, len(images), size):
        found += detector([prepare(image, options.short, options.long) for image in images[start : start + size]])
    return time.perf_counter() - started, found


def check(singles: Sequence[Detections], together: Sequence[Detections]) -> None:
    """End where a batch found something else than single images."""
    for number, (one, other) in enumerate(zip(singles, together, strict=True)):
        same = np.array_equal(one.labels, other.labels)
        if not (
            same and np.allclose(one.boxes, other.boxes, atol=0.05) and np.allclose(one.scores, other.scores, atol=1e-3)
        ):
            raise SystemExit(f"image {number}: the batch found other objects")


def flops(detector: Detector, images: Sequence[Image.Image], options: argparse.Namespace) -> float:
    """Of all images, in convolutions and products of matrices."""
    with FlopCounterMode(display=False) as counter:
        timed(detector, images, options, 1)
    return float(counter.get_total_flops())


def peak_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summary(seconds: Sequence[tuple[float, float]], images: int, total_flops: float) -> dict[str, Any]:
    """What the last line says, from each round's seconds: single and batched."""
    batched = statistics.median(pair[1] for pair in seconds)
    return {
        "benchmark": "vinvl",
        "ratio": round(statistics.median(single / together for single, together in seconds), 3),
        "images_per_second": round(images / batched, 3),
        "single_images_per_second": round(images / statistics.median(pair[0] for pair in seconds), 3),
        "gflops_per_image": round(total_flops / images / 1e9, 1),
        "tflops_per_second": round(total_flops / batched / 1e12, 3),
    }


def main() -> int:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    state = formula_state(options.biases)
    with torch.device("meta"):
        network = Network()
    network.load_state_dict({key: state[key] for key in network.state_dict()}, assign=True)
    chosen = Options(regression=options.boxes == "classes", proposals=options.proposals)
    detector = Detector(network, device=device, dtype=PRECISIONS[precision], options=chosen)
    images = draw_images(options.images)
    total = flops(detector, images, options)  # it warms up, too
    seconds = []
    for _ in range(options.rounds):
        single, expected = timed(detector, images, options, 1)
        batched, found = timed(detector, images, options, options.batch_size)
        if precision == "fp32":
            check(expected, found)
        seconds.append((single, batched))
        print(f"{single:.2f} s one by one, {batched:.2f} s in batches of {options.batch_size}", flush=True)
    result = summary(seconds, len(images), total)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    result |= {"peak_mb": round(peak_mb(device)), "precision": precision, "settings": settings}
    print(json.dumps(result | {"machine": describe("torch")}))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--short", type=int, default=600, help="pixels of an image's shorter side")
    parser.add_argument("--long", type=int, default=1000, help="of its longer one, at most")
    parser.add_argument("--proposals", type=int, default=300)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that torch computes in")
    parser.add_argument("--boxes", choices=("classes", "proposals"), default="classes", help="as of the command")
    parser.add_argument("--biases", type=Path, help="as of vinvl_formula.py")
    parser.add_argument("--precision", choices=tuple(PRECISIONS), default="fp32")
    parser.add_argument("--device", help="by default a GPU where there is one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
