"""`python -m scanner_jax.knowledge clip IMAGES STORE`: CLIP's vector of every box (paper, section 3.2.1)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from scanner_jax.images import crop, find_images
from scanner_jax.knowledge.clip import MODEL, Clip, load_clip
from scanner_jax.knowledge.command import expert_parser, in_words, run_job
from scanner_jax.knowledge.extraction import Job
from scanner_jax.knowledge.loading import BatchRunner, choose_device, choose_precision
from scanner_jax.store import Store, box_digest
from scanner_jax.store.layout import Value
from scanner_jax.types import Box

AHEAD = 8
"""Images prepared ahead: 100 boxes of 224 x 224 pixels take 60 MB each."""


class Regions(NamedTuple):
    """An image's boxes as CLIP's input, None for one of less than a pixel; `digest` is of all of them."""

    pixels: Sequence[torch.Tensor | None]
    digest: str


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
        regions = (crop(image, box) for box in boxes)
        pixels = [None if region is None else self._clip.preprocess(region) for region in regions]
        return Regions(pixels, box_digest(boxes))

    def vectors(self, prepared: Sequence[Regions]) -> list[Float[np.ndarray, "o d"]]:
        """Of each image the unit vectors of its boxes, in their order; 0 for a box of less than a pixel."""
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
        self._store = store
        self._lock = threading.Lock()  # nothing says that the store's files may be read by several threads

    def prepare(self, key: str, image: Image.Image) -> Regions:
        with self._lock:
            boxes = self._store.boxes(key)
        return self._encoder.prepare(image, boxes)

    def units(self, prepared: Regions) -> int:
        return len(prepared.pixels)

    def describe(self, prepared: Sequence[Regions]) -> list[Value]:
        """Each image's vectors in float16, and the boxes that they belong to; those of several images go together."""
        return [
            {"vectors": vectors.astype("<f2").tobytes(), "width": vectors.shape[1], "boxes": item.digest}
            for item, vectors in zip(prepared, self._encoder.vectors(prepared), strict=True)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Encode; returns the exit status."""
    parser = expert_parser(
        "clip",
        what="Write CLIP's vector of every box of the store's objects into it; recipes order objects by them.",
        example="images/twitter2015 prepared/knowledge/twitter2015",
        model=MODEL,
        batch_size=64,
        models="an open_clip name with its weights, a name on the Hugging Face hub, or a folder",
    )
    options = parser.parse_args(arguments)

    def command() -> int:
        found, store = find_images(options.images), Store.open(options.store)
        images = {key: found.get(key) for key in sorted(store.keys("objects"))}
        device = choose_device(options.device)
        clip = load_clip(options.model, device=device, precision=choose_precision(options.precision, device))
        settings = {"expert": "CLIP", **clip.provenance(), "objects": store.fingerprint(("objects",))}
        return run_job(Job("clip", settings, images, lambda: ClipExpert(clip, store, options.batch_size)), options)

    return in_words(command)
