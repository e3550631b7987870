"""How much faster the extraction is than the loop that people write: one image, and one crop, at a time.

    python benchmarks/extract.py [--device cuda] [--width 64] [--layers 2]

BLIP-2 and D-FINE of the real classes with random weights, over images made up by code. The loop is the one in the
documentation of transformers: open an image, prepare it, run the model, decode; for regions, the same for each crop.
The extraction reads the same files and keeps its progress on disk as the commands do. Both are in one process, with the
same weights, and take turns; loading is not counted. Texts must be equal, and boxes to a tenth of a pixel.

The last line is JSON: `ratio`, the loop's seconds over the extraction's for all three together, the median of the
rounds; the same for each alone, and images a second. It depends on the model's size and on the device: where a single
image keeps all cores busy there is little to gain, while a GPU waits for most of what the loop does. torch computes in
one thread (`--threads`): with more, on a machine that does something else too, the threads wait for each other at every
operation, and the loop has many times as many.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import rich.console
import torch
from machine import describe
from PIL import Image, ImageDraw
from tiny_experts import write_blip2, write_dfine

from scanner_jax.images import find_images
from scanner_jax.knowledge.captions import Captioner, CaptionExpert
from scanner_jax.knowledge.extraction import Expert, Job, extract
from scanner_jax.knowledge.loading import choose_device, find_model, import_transformers
from scanner_jax.knowledge.objects import ObjectExpert, keep_best
from scanner_jax.knowledge.regions import RegionExpert
from scanner_jax.knowledge.shards import Shard, merge
from scanner_jax.store import Store, objects_value, write_kind
from scanner_jax.store.importers import cut_repetition
from scanner_jax.types import Box, ImageObject

KINDS = ("captions", "objects", "regions")
BEAMS = {"captions": 5, "regions": 1}
"""The commands' defaults."""

MAX_NEW_TOKENS = 20
SLACK = 0.1
"""Pixels that a box may differ by: sums over a batch are taken in another order."""

Values = dict[str, Any]


def draw_images(folder: Path, number: int) -> None:
    """Photographs' sizes, with something on them that differs."""
    rng = random.Random(1)
    for name in range(number):
        size = rng.choice([(600, 450), (450, 600), (600, 338), (600, 600)])
        image = Image.effect_noise(size, rng.randint(20, 90)).convert("RGB")
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y, radius = rng.randrange(size[0]), rng.randrange(size[1]), rng.randint(10, 150)
            pen.ellipse((x, y, x + radius, y + radius), fill=tuple(rng.randrange(256) for _ in range(3)))
        image.save(folder / f"{name:04}.jpg", quality=90)


def draw_boxes(images: Mapping[str, Path], number: int) -> dict[str, list[Box]]:
    rng = random.Random(2)
    boxes: dict[str, list[Box]] = {}
    for key in images:
        corners = [(rng.uniform(0, 300), rng.uniform(0, 200)) for _ in range(number)]
        boxes[key] = [(x, y, x + rng.uniform(20, 150), y + rng.uniform(20, 130)) for x, y in corners]
    return boxes


class Loop:
    """One image and one crop at a time."""

    def __init__(
        self, models: Path, images: Mapping[str, Path], boxes: Mapping[str, Sequence[Box]], device: Any
    ) -> None:
        transformers = import_transformers()
        self._images, self._boxes, self._device = images, boxes, device
        self._blip2 = transformers.Blip2ForConditionalGeneration.from_pretrained(models / "blip2").to(device).eval()
        self._writer = transformers.Blip2Processor.from_pretrained(models / "blip2")
        self._dfine = transformers.AutoModelForObjectDetection.from_pretrained(models / "dfine").to(device).eval()
        self._seer = transformers.AutoImageProcessor.from_pretrained(models / "dfine")

    @torch.inference_mode()
    def captions(self) -> Values:
        return {key: self._text(Image.open(path).convert("RGB"), "captions") for key, path in self._images.items()}

    @torch.inference_mode()
    def objects(self) -> Values:
        return {key: self._objects(Image.open(path).convert("RGB")) for key, path in self._images.items()}

    @torch.inference_mode()
    def regions(self) -> Values:
        found = {}
        for key, path in self._images.items():
            image = Image.open(path).convert("RGB")
            # As the extraction rounds them.
            cut = [(int(x1), int(y1), -int(-x2 // 1), -int(-y2 // 1)) for x1, y1, x2, y2 in self._boxes[key]]
            found[key] = [self._text(image.crop(box), "regions") for box in cut]
        return found

    def _text(self, image: Image.Image, kind: str) -> str:
        inputs = self._writer(images=image, return_tensors="pt").to(self._device)
        written = self._blip2.generate(**inputs, num_beams=BEAMS[kind], max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        return cut_repetition(self._writer.batch_decode(written, skip_special_tokens=True)[0].strip())

    def _objects(self, image: Image.Image) -> list[ImageObject]:
        outputs = self._dfine(**self._seer(images=image, return_tensors="pt").to(self._device))
        sizes = [(image.height, image.width)]
        (found,) = self._seer.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
        labels = self._dfine.config.id2label
        return keep_best([ImageObject(tuple(box), labels[label], score) for box, label, score in rows], image.size)


def extraction(store: Path, kind: str, images: Mapping[str, Path], expert: Expert) -> None:
    job = Job(kind, {}, images, lambda: expert)
    extract(store, job, Shard(), restart=True, console=rich.console.Console(quiet=True))
    merge(store, kind)


def check(kind: str, looped: Values, store: Store) -> None:
    """End where the extraction found something else than the loop."""
    for key, expected in looped.items():
        if kind == "captions":
            same = store.caption(key) == expected
        elif kind == "regions":
            same = [item.caption for item in store.objects(key)] == expected
        else:
            found = store.objects(key)
            same = [item.label for item in found] == [item.label for item in expected] and all(
                abs(a - b) < SLACK
                for one, other in zip(found, expected, strict=True)
                for a, b in zip(one.box, other.box, strict=True)
            )
        if not same:
            raise SystemExit(f"{kind} of image {key} differ from the loop's")


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def main() -> int:
    options = _parser().parse_args()
    device = choose_device(options.device)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "images").mkdir()
        draw_images(root / "images", options.images)
        images = find_images(root / "images")
        boxes = draw_boxes(images, options.boxes)
        write_blip2(root / "blip2", width=options.width, layers=options.layers, image_size=options.size)
        write_dfine(root / "dfine", image_size=-(-options.size // 32) * 32)
        write_kind(
            root / "regions", "objects",
            ((key, objects_value(ImageObject(box, "thing", 0.5) for box in found)) for key, found in boxes.items()), {},
        )  # fmt: skip
        loop = Loop(root, images, boxes, device)
        experts = load_experts(root, device, options.batch_size)
        seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
        for number in range(options.rounds + 1):  # the first warms up
            for kind in KINDS:
                looped, values = timed(getattr(loop, kind))
                store = root / kind
                ours, _ = timed(lambda kind=kind, store=store: extraction(store, kind, images, experts[kind]))
                check(kind, values, Store.open(store))
                if number:
                    seconds[kind].append((looped, ours))
                    print(f"{kind}: {looped:.2f} s in a loop, {ours:.2f} s extracted", flush=True)
    print(json.dumps(summary(seconds, options.images) | {"settings": vars(options), "machine": describe("torch")}))
    return 0


def load_experts(root: Path, device: Any, batch_size: int) -> dict[str, Expert]:
    place: dict[str, Any] = {"device": device, "precision": "fp32"}
    writers = {
        kind: Captioner(
            find_model(str(root / "blip2")), **place, prompt="", max_new_tokens=MAX_NEW_TOKENS, beams=beams,
            batch_size=batch_size,
        )
        for kind, beams in BEAMS.items()
    }  # fmt: skip
    return {
        "captions": CaptionExpert(writers["captions"], batch_size),
        "objects": ObjectExpert(find_model(str(root / "dfine")), **place, batch_size=batch_size),
        "regions": RegionExpert(writers["regions"], Store.open(root / "regions"), batch_size),
    }


def summary(seconds: Mapping[str, Sequence[tuple[float, float]]], images: int) -> dict[str, Any]:
    """What the last line says, from each kind's seconds in each round: the loop's and the extraction's."""
    rounds = list(zip(*seconds.values(), strict=True))
    totals = [tuple(map(sum, zip(*pairs, strict=True))) for pairs in rounds]
    found: dict[str, Any] = {"benchmark": "extract", "ratio": _ratio(totals)}
    for kind, pairs in seconds.items():
        rate = images / statistics.median(ours for _, ours in pairs)
        found[kind] = {"ratio": _ratio(pairs), "images_per_second": round(rate, 2)}
    return found


def _ratio(pairs: Sequence[Any]) -> float:
    return round(statistics.median(looped / ours for looped, ours in pairs), 2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--boxes", type=int, default=8, help="regions of an image")
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--width", type=int, default=64, help="of BLIP-2's parts, a multiple of 4")
    parser.add_argument("--layers", type=int, default=2, help="of each of them")
    parser.add_argument("--size", type=int, default=56, help="pixels of the input; for BLIP-2 a multiple of 14")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="that torch computes in")
    parser.add_argument("--device", help="by default a GPU where there is one")
    return parser


if __name__ == "__main__":
    sys.exit(main())
