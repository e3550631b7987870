"""VinVL's detector as an expert: `python -m scanner_jax.knowledge objects IMAGES STORE --detector vinvl ...`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from scanner_jax.images import UnreadableImage
from scanner_jax.knowledge.extraction import Job
from scanner_jax.knowledge.loading import PRECISIONS, BatchRunner, ModelError
from scanner_jax.knowledge.vinvl.detector import Detector, Options, check_operators
from scanner_jax.knowledge.vinvl.formats import names, write_npz
from scanner_jax.knowledge.vinvl.labels import Labels, read_labels
from scanner_jax.knowledge.vinvl.preprocessing import LONG, SHORT, Prepared, prepare
from scanner_jax.knowledge.vinvl.weights import load_network
from scanner_jax.store.layout import Value
from scanner_jax.store.sources import file_sha256
from scanner_jax.store.vinvl_rows import Row, valid_objects
from scanner_jax.store.writer import objects_value


@dataclasses.dataclass(frozen=True, slots=True)
class _Named:
    """An image's id with what the detector takes: features are written under it."""

    key: str
    image: Prepared


class VinvlExpert:
    """The detector, for `extraction.extract`.

    Args:
        detector: ready to run.
        labels: its classes' and attributes' names.
        label: `attr_obj` or `objects`; see `formats.names`.
        batch_size: images at once, of whatever sizes.
        features: a folder that an npz of each image goes to, before its objects are kept.
    """

    def __init__(
        self, detector: Detector, labels: Labels, *, label: str, batch_size: int, features: Path | None = None
    ) -> None:
        self._detector, self._labels, self._label, self._features = detector, labels, label, features
        self.batch_size = self.ahead = batch_size
        self._runner = BatchRunner(self._detect, batch_size)

    def prepare(self, key: str, image: Image.Image) -> _Named:
        try:
            return _Named(key, prepare(image))
        except ValueError as error:
            raise UnreadableImage("too narrow to be resized") from error

    def units(self, prepared: Any) -> int:
        return 1

    def describe(self, prepared: Sequence[_Named]) -> list[Value]:
        """The objects of each image, less those that our importers drop, such as boxes without area."""
        return self._runner(prepared)

    def _detect(self, batch: Sequence[_Named]) -> list[Value]:
        values = []
        for item, found in zip(batch, self._detector([one.image for one in batch]), strict=True):
            if self._features is not None:
                write_npz(self._features, item.key, found, self._labels, item.image.original)
            labels = names(found, self._labels, self._label)
            rows = zip(map(tuple, found.boxes.tolist()), labels, found.scores.tolist(), strict=True)
            width, height = map(float, item.image.original)
            objects, _ = valid_objects(Row(item.key, item.key, tuple(rows), width, height))
            values.append(objects_value(objects))
        return values


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the command's options say.

    Attributes:
        weights: the published checkpoint.
        labels: the published label map.
        label: as of `VinvlExpert`.
        options: how boxes are chosen.
        features: as of `VinvlExpert`.
        precision: a key of `PRECISIONS`.
        device: where it runs.
        batch_size: as of `VinvlExpert`.
    """

    weights: Path
    labels: Path
    label: str
    options: Options
    features: Path | None
    precision: str
    device: torch.device
    batch_size: int


def vinvl_job(images: Mapping[str, Path | None], recipe: Recipe) -> Job:
    """The extraction of images' objects; its provenance has the sha256 of weights and label map.

    Raises:
        ModelError: weights or labels are not there or not read; torchvision's operators do not run.
    """
    check_operators(recipe.device)
    labels = read_labels(recipe.labels)
    if not recipe.weights.is_file():
        raise ModelError(f"--weights {recipe.weights}: no such file; give VinVL's vinvl_vg_x152c4.pth")
    settings = {
        "expert": "VinVL X152-C4",
        "model": recipe.weights.name,
        "weights_sha256": file_sha256(recipe.weights),
        "labels_sha256": labels.sha256,
        "label": recipe.label,
        "precision": recipe.precision,
        "short": SHORT,
        "long": LONG,
        **dataclasses.asdict(recipe.options),
        "features": None if recipe.features is None else str(recipe.features),
    }
    if recipe.features is not None:
        recipe.features.mkdir(parents=True, exist_ok=True)
    return Job("objects", settings, images, lambda: load_expert(recipe, labels))


def load_expert(recipe: Recipe, labels: Labels) -> VinvlExpert:
    """Load the detector.

    Raises:
        ModelError: the weights are not there or not read.
    """
    dtype = PRECISIONS[recipe.precision]
    detector = Detector(load_network(recipe.weights), device=recipe.device, dtype=dtype, options=recipe.options)
    return VinvlExpert(detector, labels, label=recipe.label, batch_size=recipe.batch_size, features=recipe.features)
