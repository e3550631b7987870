"""Write what others read: an npz for each image, as the community has them, and VinVL's own TSV made of those."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scanner_jax.files import write_bytes
from scanner_jax.images import without_extension
from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.detector import Detections
from scanner_jax.knowledge.vinvl.labels import Labels
from scanner_jax.store.vinvl_rows import with_attributes

ENDING = ".jpg.npz"
"""Behind an image's id, as the community names them; whatever format the image has."""


def names(found: Detections, labels: Labels, label: str) -> list[str]:
    """Each object's label: its class (`objects`), or that behind its attributes (`attr_obj`)."""
    classes = [labels.classes[number] for number in found.labels]
    if label == "objects":
        return classes
    attributes = [[labels.attributes[number] for number in row] for row in found.attributes]
    rows = zip(classes, attributes, found.attribute_scores.tolist(), strict=True)
    return [with_attributes(name, words, scores) for name, words, scores in rows]


def write_npz(folder: Path, image: str, found: Detections, labels: Labels, size: tuple[int, int]) -> None:
    """Write an image's objects with their features as `IMAGE.jpg.npz`, whole or not at all.

    Arrays: `num_boxes`, `image_w`, `image_h`, `bounding_boxes` (n, 4), `box_features` (n, 2048), `scores` (n),
    `objects` (n), `attr_obj` (n), `attr_scores` (n, 1: of the likeliest attribute); and, for the TSV,
    `attributes` (n, 16), empty where there is no further one, and `attributes_conf` (n, 16).

    Args:
        folder: which is there.
        image: its id.
        found: its objects.
        labels: their names.
        size: the image's width and height in pixels.
    """
    words = np.array(labels.attributes)[np.where(found.attribute_scores > 0, found.attributes, 0)]
    data = io.BytesIO()
    np.savez(
        data,
        num_boxes=np.int64(len(found.scores)),
        image_w=np.int64(size[0]),
        image_h=np.int64(size[1]),
        bounding_boxes=found.boxes,
        box_features=found.features,
        scores=found.scores,
        objects=np.array(names(found, labels, "objects"), np.str_),
        attr_obj=np.array(names(found, labels, "attr_obj"), np.str_),
        attr_scores=found.attribute_scores[:, :1],
        attributes=words,
        attributes_conf=found.attribute_scores,
    )
    write_bytes(folder / f"{image}{ENDING}", data.getvalue())


def write_tsv(folder: Path, target: Path) -> int:
    """Write all npz files of a folder as one TSV, with `TARGET.lineidx` (each line's first byte) beside it.

    A line is `key<TAB>{"objects": [...], "relations": null}`; an object has `rect`, `bbox_id`, `class`, `conf`, its
    `feature` (base64 of float32) and, where the npz has them, `attributes` and `attr_scores`. Images are in the order
    of their ids; one is held in memory.

    Returns:
        How many images.

    Raises:
        ModelError: no such folder, or no npz in it, or one that is damaged or of another form.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise ModelError(f"{folder} holds no .npz file; give the folder that `objects --features` wrote")
    index = target.with_suffix(".lineidx")
    asides = [path.with_name(f"{path.name}.{os.getpid()}.tmp") for path in (target, index)]
    try:
        with asides[0].open("wb") as lines, asides[1].open("w") as offsets:
            for path in paths:
                offsets.write(f"{lines.tell()}\n")
                lines.write(_line(path))
            for file in (lines, offsets):
                file.flush()
                os.fsync(file.fileno())
        for aside, path in zip(asides, (target, index), strict=True):
            os.replace(aside, path)
    finally:
        for aside in asides:
            aside.unlink(missing_ok=True)
    return len(paths)


def read_features(path: Path) -> dict[str, np.ndarray]:
    """An npz file's arrays.

    Raises:
        ModelError: damaged, pickled, or without what every such file has.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    needed = ("bounding_boxes", "box_features", "scores", "objects")
    if missing := [name for name in needed if name not in held]:
        raise ModelError(f"{path} lacks {', '.join(missing)}")
    count = len(held["scores"])
    if held["bounding_boxes"].shape != (count, 4) or held["objects"].shape != (count,):
        raise ModelError(f"{path}: bounding_boxes, objects and scores are not of as many objects")
    return held


def _line(path: Path) -> bytes:
    held = read_features(path)
    stem = path.name.removesuffix(".npz")
    text = json.dumps({"objects": list(_objects(held)), "relations": None}, ensure_ascii=False)
    return f"{without_extension(stem) or stem}\t{text}\n".encode()


def _objects(held: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for number, score in enumerate(held["scores"].tolist()):
        item = {
            "rect": held["bounding_boxes"][number].tolist(),
            "bbox_id": number,
            "class": str(held["objects"][number]),
            "conf": score,
            "feature": base64.b64encode(held["box_features"][number].astype("<f4").tobytes()).decode(),
        }
        if "attributes" in held and "attributes_conf" in held:
            likely = held["attributes_conf"][number] > 0
            item["attributes"] = held["attributes"][number][likely].tolist()
            item["attr_scores"] = held["attributes_conf"][number][likely].tolist()
        yield item
