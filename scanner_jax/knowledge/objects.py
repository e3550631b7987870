"""`python -m scanner_jax.knowledge objects IMAGES STORE`: the objects in every image, by one of two detectors.

The paper takes VinVL's, which finds objects with attributes: `--detector vinvl` runs its published weights, and
`python -m scanner_jax.store import vinvl` reads what somebody else's run found. Without the weights, any detector of
transformers will do.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scanner_jax.images import UnreadableImage, find_images
from scanner_jax.knowledge.command import expert_parser, in_words, run_job
from scanner_jax.knowledge.extraction import Job
from scanner_jax.knowledge.loading import (
    PRECISIONS,
    BatchRunner,
    ModelError,
    Pretrained,
    choose_device,
    choose_precision,
    find_model,
    import_transformers,
    load,
    reading,
)
from scanner_jax.store.layout import Value
from scanner_jax.store.vinvl_rows import LABELS
from scanner_jax.store.writer import objects_value
from scanner_jax.types import Box, ImageObject

MODEL = "ustc-community/dfine-xlarge-obj365"
"""Of the strong detectors in transformers the one with the broadest vocabulary: D-FINE-X knows the 365 classes of
Objects365, where most know COCO's 80. Apache-2.0."""

SCORE = 0.2
FEWEST, MOST = 10, 100
"""Which boxes VinVL keeps: all from a score on, but so many at least and at most."""

PRECISION = "fp32"
"""On a GPU as well: bf16 has 8 bits for a coordinate, which puts a box's edge off by whole pixels."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Input:
    """An image as the detector's input (its name -> tensor), and its width and height in pixels."""

    tensors: dict[str, torch.Tensor]
    size: tuple[int, int]


class ObjectExpert:
    """A detector, for `extraction.extract`."""

    def __init__(self, model: Pretrained, *, device: torch.device, precision: str, batch_size: int) -> None:
        transformers = import_transformers()
        with reading(model):
            self._processor = transformers.AutoImageProcessor.from_pretrained(model.folder, local_files_only=True)
        self._model = load(transformers.AutoModelForObjectDetection, model, device=device, precision=precision)
        self._labels: dict[int, str] = self._model.config.id2label
        if all(label.startswith("LABEL_") for label in self._labels.values()):
            raise ModelError(
                f"--model {model.name}: its config.json does not name its classes (id2label), and prompts need words; "
                "take one that does, such as ustc-community/dfine-xlarge-obj2coco"
            )
        self._device, self._dtype = device, PRECISIONS[precision]
        self.batch_size = self.ahead = batch_size
        self._runner = BatchRunner(self._detect, batch_size)

    def prepare(self, key: str, image: Image.Image) -> _Input:
        # One at a time: beside larger images a detector that pads would see another input.
        try:
            tensors = self._processor(images=image, return_tensors="pt")
        except ValueError as error:  # some can't scale a strip of a few pixels
            raise UnreadableImage("refused by the model's image processor") from error
        names = [name for name in ("pixel_values", "pixel_mask") if name in tensors]
        return _Input({name: tensors[name][0] for name in names}, image.size)

    def units(self, prepared: Any) -> int:
        return 1

    def describe(self, prepared: Sequence[_Input]) -> list[Value]:
        """The objects of each image; those whose inputs have one shape go through the model together."""
        shapes: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, item in enumerate(prepared):
            shapes[tuple(item.tensors["pixel_values"].shape)].append(place)
        values: dict[int, Value] = {}
        for places in shapes.values():
            values |= zip(places, self._runner([prepared[place] for place in places]), strict=True)
        return [values[place] for place in range(len(prepared))]

    def _detect(self, inputs: Sequence[_Input]) -> list[Value]:
        tensors = {
            name: torch.stack([item.tensors[name] for item in inputs]).to(self._device) for name in inputs[0].tensors
        }
        tensors["pixel_values"] = tensors["pixel_values"].to(self._dtype)
        outputs = self._model(**tensors)
        outputs.logits, outputs.pred_boxes = outputs.logits.float().cpu(), outputs.pred_boxes.float().cpu()
        sizes = [(height, width) for width, height in (item.size for item in inputs)]
        found = self._processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=sizes)
        return [objects_value(self._kept(one, item.size)) for one, item in zip(found, inputs, strict=True)]

    def _kept(self, found: dict[str, torch.Tensor], size: tuple[int, int]) -> list[ImageObject]:
        rows = zip(found["boxes"].tolist(), found["labels"].tolist(), found["scores"].tolist(), strict=True)
        return keep_best([ImageObject(tuple(box), self._labels[label], score) for box, label, score in rows], size)


def keep_best(objects: Sequence[ImageObject], size: tuple[int, int]) -> list[ImageObject]:
    """The objects to keep, best first: all with a score of `SCORE`, but `FEWEST` at least and `MOST` at most.

    Boxes are cut to the image, and those without area dropped; where a detector gives one box several labels, the best
    one stays.

    Args:
        objects: in any order.
        size: the image's width and height in pixels.
    """
    width, height = size
    kept: dict[Box, ImageObject] = {}
    for item in sorted(objects, key=lambda item: -item.score):
        x1, y1, x2, y2 = item.box
        box = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        enough = len(kept) >= (FEWEST if item.score < SCORE else MOST)
        if enough:
            break
        if box[0] < box[2] and box[1] < box[3] and math.isfinite(item.score):
            kept.setdefault(box, dataclasses.replace(item, box=box))
    return list(kept.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """Detect; returns the exit status."""
    parser = expert_parser(
        "objects",
        what="Detect the objects in every image, with a detector of transformers or VinVL's, and write them into the "
        "store.",
        example="images/twitter2015 prepared/knowledge/twitter2015",
        model=MODEL,
        batch_size=8,
        precision=PRECISION,
    )
    _add_vinvl(parser)
    options = parser.parse_args(arguments)
    vinvl = options.detector == "vinvl"
    given = [name for name in _VINVL_ONLY if getattr(options, name) is not None]
    if vinvl and (options.model != MODEL or options.revision is not None):
        parser.error("--model and --revision are of a detector of transformers; VinVL's has --weights and --labels")
    if vinvl and None in (options.weights, options.labels):
        parser.error(
            "--detector vinvl needs --weights vinvl_vg_x152c4.pth and --labels VG-SGG-dicts-vgoi6-clipped.json"
        )
    if given and not vinvl:
        parser.error(f"--{given[0]} is for --detector vinvl")
    return in_words(lambda: run_job(_vinvl_job(options) if vinvl else _transformers_job(options), options))


_VINVL_ONLY = ("weights", "labels", "label", "boxes", "features")


def _add_vinvl(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("VinVL's detector, X152-C4 (docs/knowledge.md)")
    group.add_argument(
        "--detector", choices=("transformers", "vinvl"), default="transformers", help="which (%(default)s)"
    )
    group.add_argument("--weights", type=Path, metavar="FILE", help="its checkpoint, vinvl_vg_x152c4.pth")
    group.add_argument("--labels", type=Path, metavar="FILE", help="its label map, VG-SGG-dicts-vgoi6-clipped.json")
    group.add_argument(
        "--label", choices=LABELS, help="attr_obj: attributes and class, as its demo writes (default); objects: class"
    )
    group.add_argument(
        "--boxes",
        choices=("classes", "proposals"),
        help="classes: moved for their class, as its demo shows (default); proposals: as in its released features",
    )
    group.add_argument(
        "--features", type=Path, metavar="FOLDER", help="write each image's boxes and 2,048-wide features as an npz too"
    )


def _vinvl_job(options: argparse.Namespace) -> Job:
    from scanner_jax.knowledge.vinvl.detector import Options
    from scanner_jax.knowledge.vinvl.expert import Recipe, vinvl_job

    device = choose_device(options.device)
    recipe = Recipe(
        weights=options.weights,
        labels=options.labels,
        label=options.label or LABELS[0],
        options=Options(regression=options.boxes != "proposals"),
        features=options.features,
        precision=choose_precision(options.precision, device),
        device=device,
        batch_size=options.batch_size,
    )
    return vinvl_job(find_images(options.images), recipe)


def _transformers_job(options: argparse.Namespace) -> Job:
    images = find_images(options.images)
    model = find_model(options.model, options.revision)
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    settings = {
        "expert": "object detector",
        "model": model.name,
        "revision": model.revision,
        "precision": precision,
        "score": SCORE,
        "fewest": FEWEST,
        "most": MOST,
    }
    return Job(
        "objects",
        settings,
        images,
        lambda: ObjectExpert(model, device=device, precision=precision, batch_size=options.batch_size),
    )
