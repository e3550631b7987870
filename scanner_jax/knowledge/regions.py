"""`python -m scanner_jax.knowledge regions IMAGES STORE`: BLIP-2's caption of every object's region."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence

from PIL import Image

from scanner_jax.images import crop, find_images
from scanner_jax.knowledge.captions import MODEL, Captioner, Pixels, add_generation, captioning
from scanner_jax.knowledge.command import expert_parser, in_words, run_job
from scanner_jax.knowledge.extraction import Job
from scanner_jax.store.layout import Value, box_digest
from scanner_jax.store.reader import Store
from scanner_jax.types import Box

BEAMS = 1
"""An image has tens of regions: beam search would take several times as long, for texts of a few words."""

AHEAD = 16
"""Images prepared ahead; each holds its regions as the model's input, 0.6 MB a region of 224 x 224 pixels."""


@dataclasses.dataclass(frozen=True, slots=True)
class Regions:
    """An image's regions as the model's inputs, None for one of less than a pixel; `digest` is of all its boxes."""

    inputs: tuple[Pixels | None, ...]
    digest: str


def prepare_regions(captioner: Captioner, image: Image.Image, boxes: Sequence[Box]) -> tuple[Pixels | None, ...]:
    """An image's regions as the model's inputs, None for one of less than a pixel."""
    cut = (crop(image, box) for box in boxes)
    return tuple(None if region is None else captioner.pixels(region) for region in cut)


def describe_regions(captioner: Captioner, prepared: Sequence[Sequence[Pixels | None]]) -> list[list[str]]:
    """A caption for each region of each image, empty where it is less than a pixel; all of them go together."""
    texts = iter(captioner.describe([pixels for inputs in prepared for pixels in inputs if pixels is not None]))
    return [["" if pixels is None else next(texts) for pixels in inputs] for inputs in prepared]


class RegionExpert:
    """Captions of regions, for `extraction.extract`."""

    def __init__(self, captioner: Captioner, store: Store, batch_size: int) -> None:
        self.batch_size, self.ahead = batch_size, AHEAD
        self._captioner = captioner
        self._store = store
        self._lock = threading.Lock()  # nothing says that the store's files may be read by several threads

    def prepare(self, key: str, image: Image.Image) -> Regions:
        with self._lock:
            boxes = self._store.boxes(key)
        return Regions(prepare_regions(self._captioner, image, boxes), box_digest(boxes))

    def units(self, prepared: Regions) -> int:
        return len(prepared.inputs)

    def describe(self, prepared: Sequence[Regions]) -> list[Value]:
        """The captions of each image's regions; those of several images go together."""
        texts = describe_regions(self._captioner, [item.inputs for item in prepared])
        return [{"captions": own, "boxes": item.digest} for own, item in zip(texts, prepared, strict=True)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption regions; returns the exit status."""
    parser = expert_parser(
        "regions",
        what="Write BLIP-2's caption of the region of every object of the store, wherever the objects came from.",
        example="images/twitter2015 prepared/knowledge/twitter2015",
        model=MODEL,
        batch_size=32,
    )
    add_generation(parser, beams=BEAMS)
    options = parser.parse_args(arguments)

    def command() -> int:
        found, store = find_images(options.images), Store.open(options.store)
        images = {key: found.get(key) for key in sorted(store.keys("objects"))}
        settings, loaded = captioning(options)
        settings |= {"objects": store.fingerprint(("objects",))}
        job = Job("regions", settings, images, lambda: RegionExpert(loaded(), store, options.batch_size))
        return run_job(job, options)

    return in_words(command)
