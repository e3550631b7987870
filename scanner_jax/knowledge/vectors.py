"""`python -m scanner_jax.knowledge clip IMAGES STORE`: CLIP's vector of every box (paper, section 3.2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from scanner_jax.knowledge.clip import MODEL, Clip, load_clip
from scanner_jax.knowledge.command import expert_parser, in_words, run_job
from scanner_jax.knowledge.extraction import Job
from scanner_jax.knowledge.images import crop, find_images
from scanner_jax.knowledge.loading import BatchRunner, ModelError, choose_device, choose_precision
from scanner_jax.store import Store, box_digest
from scanner_jax.store.layout import Value
from scanner_jax.types import Box

AHEAD = 8
"""Images prepared ahead: 100 boxes of 224 x 224 pixels take 60 MB each."""


class Regions(NamedTuple):
    """An image's boxes as CLIP's input; `pixels` has those that hold a pixel of the image."""

    boxes: Sequence[Box]
    pixels: Sequence[torch.Tensor | None]


class BoxEncoder:
    """CLIP's vectors of images' boxes.

    Args:
        clip: the model.
        batch_size: boxes encoded at once, fewer from when memory first ran out.
    """

    def __init__(self, clip: Clip, batch_size: int) -> None:
        self._clip = clip
        self._runner = BatchRunner(lambda pixels: list(clip.encode_pixels(torch.stack(list(pixels)))), batch_size)

    def prepare(self, image: Image.Image, boxes: Sequence[Box]) -> Regions:
        """Cut the boxes out, and preprocess them as the model wants; threads may call it."""
        regions = [crop(image, box) for box in boxes]
        return Regions(boxes, [None if region is None else self._clip.preprocess(region) for region in regions])

    def vectors(self, prepared: Sequence[Regions]) -> list[Float[np.ndarray, "o d"]]:
        """Of each image the unit vectors of its boxes, in their order; 0 for a box without a pixel of the image."""
        found = iter(self._runner([pixels for item in prepared for pixels in item.pixels if pixels is not None]))
        nothing = np.zeros(self._clip.width, np.float32)
        rows = [[nothing if pixels is None else next(found) for pixels in item.pixels] for item in prepared]
        return [np.array(image_rows, np.float32).reshape(-1, self._clip.width) for image_rows in rows]


class ClipExpert:
    """The vectors of the store's boxes, for `extraction.extract`."""

    ahead = AHEAD

    def __init__(self, clip: Clip, store: Store, batch_size: int) -> None:
        self.batch_size = batch_size
        self._encoder = BoxEncoder(clip, batch_size)
        self._boxes = {key: [item.box for item in store.objects(key)] for key in store.keys("objects")}

    def prepare(self, key: str, image: Image.Image) -> Regions:
        return self._encoder.prepare(image, self._boxes[key])

    def units(self, prepared: Regions) -> int:
        return len(prepared.boxes)

    def describe(self, prepared: Sequence[Regions]) -> list[Value]:
        found = zip(prepared, self._encoder.vectors(prepared), strict=True)
        return [vectors_value(vectors, item.boxes) for item, vectors in found]


def vectors_value(vectors: Float[np.ndarray, "o d"], boxes: Sequence[Box]) -> Value:
    """The value of a `clip` record: the vectors in float16, and the boxes that they belong to."""
    return {"vectors": vectors.astype("<f2").tobytes(), "width": vectors.shape[1], "boxes": box_digest(boxes)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode; returns the exit status."""
    parser = expert_parser(
        "clip",
        what="Write CLIP's vector of every box of the store's objects into it; recipes order objects by them.",
        example="images/twitter2015 prepared/knowledge/twitter2015",
        model=MODEL,
        batch_size=64,
    )
    options = parser.parse_args(arguments)

    def command() -> int:
        if options.revision:
            raise ModelError(f"--revision {options.revision}: open_clip takes none; download it, and give its folder")
        found, store = find_images(options.images), Store.open(options.store)
        images = {key: found.get(key) for key in store.keys("objects")}
        device = choose_device(options.device)
        clip = load_clip(options.model, device=device, precision=choose_precision(options.precision, device))
        settings = {"expert": "CLIP", **clip.provenance(), "objects": store.fingerprint(("objects",))}
        return run_job(Job("clip", settings, images, lambda: ClipExpert(clip, store, options.batch_size)), options)

    return in_words(command)
