"""Import VinVL's objects from the community's npz files, one per image."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scanner_jax.store.sources import Imported, refuse, without_extension
from scanner_jax.store.writer import objects_value
from scanner_jax.types import ImageObject

LABELS = ("attr_obj", "objects")
"""The arrays that an object's label may come from: with its attribute (`red car`), or alone (`car`)."""

LONGEST_SIDE = 20_000
"""Pixels; a coordinate beyond it is none of an image's."""

ARRAY_LIMIT = 64 * 2**20
"""Bytes of the largest array that is read; a hundred boxes need thousands."""

_SLACK = 1.0  # pixels that a box may reach beyond its image

_OTHER, _DAMAGED, _BOXES = "skipped files, not VinVL's", "skipped files, damaged", "skipped boxes"

_DAMAGE = (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged archive makes zipfile and numpy raise."""


def read_vinvl(paths: Sequence[Path], *, label: str = "attr_obj") -> Imported:
    """Read the objects of every image; the features in the files are left alone.

    A file is `<image id>.npz` or `<image id>.jpg.npz` and holds `bounding_boxes` (n, 4: x1, y1, x2, y2 in pixels of
    the image), `scores` (n), `objects` and `attr_obj` (n texts); `image_w` and `image_h` are used if they are there.
    Objects are sorted by score, best first; equal ones stay in the file's order.

    Skipped, and listed: files that hold no boxes or are damaged, and boxes that are none: not finite, without area,
    outside their image or beyond any size, with a score outside 0 to 1, or with an empty label.

    Args:
        paths: npz files, and folders of them.
        label: one of `LABELS`. **Assumption:** with its attribute, as ITA writes it, whose form the paper follows.

    Raises:
        StoreError: lists missing sources, pickled arrays, files of another form, and images that come twice.
    """
    problems: list[str] = []
    skipped: dict[str, list[str]] = {remark: [] for remark in (_OTHER, _DAMAGED, _BOXES)}
    found: dict[str, tuple[ImageObject, ...]] = {}
    for path in _files(paths, problems):
        stem = path.name.removesuffix(".npz")
        image = without_extension(stem) or stem
        if image in found:
            problems.append(f"{path}: image {image} has another file already; keep one of the two")
            continue
        try:
            arrays = _arrays(path, label)
        except _DAMAGE as error:
            skipped[_DAMAGED].append(f"{path.name} ({error})")
            continue
        except ValueError as error:
            problems.append(f"{path}: {error}")
            continue
        if arrays is None:
            skipped[_OTHER].append(path.name)
            continue
        objects, dropped = _objects(arrays, label)
        skipped[_BOXES] += [f"{path.name} object {number} ({reason})" for number, reason in dropped]
        found[image] = objects
    if not found and not problems:
        listed = "; ".join(f"{remark}: {places[0]}, ..." for remark, places in skipped.items() if places)
        problems.append(f"no objects in {', '.join(map(str, paths))}" + (f" ({listed})" if listed else ""))
    refuse(problems)
    remarks = {remark: tuple(places) for remark, places in skipped.items()}
    records = tuple((image, objects_value(objects)) for image, objects in found.items())
    return Imported(records, remarks, tuple(paths))


def _files(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not path.exists():
            problems.append(f"{path} does not exist")
        elif not inside:
            problems.append(f"{path} holds no .npz file; give the folder with one <image id>.npz for each image")
        else:
            files += inside
    return files


def _arrays(path: Path, label: str) -> dict[str, np.ndarray] | None:
    """The arrays that are needed, None where the file has no boxes at all.

    Raises:
        ValueError: an array that is missing, pickled, too large, or of another shape; says which.
        Exception: one of `_DAMAGE`, for a damaged file.
    """
    with zipfile.ZipFile(path) as archive:
        held = {name.removesuffix(".npy") for name in archive.namelist()}
        if "bounding_boxes" not in held:
            return None
        needed = ("bounding_boxes", "scores", label)
        if missing := [name for name in needed if name not in held]:
            raise ValueError(f"it lacks {', '.join(missing)}; it holds {', '.join(sorted(held))}")
        names = [*needed, *(name for name in ("image_w", "image_h") if name in held)]
        arrays = {name: _array(archive, name) for name in names}
    count = len(arrays["bounding_boxes"]) if arrays["bounding_boxes"].ndim else -1
    shapes = {"bounding_boxes": (count, 4), "scores": (count,), label: (count,)}
    for name, shape in shapes.items():
        kinds = "US" if name == label else "fiu"
        if arrays[name].shape != shape or (count and arrays[name].dtype.kind not in kinds):
            what = "texts" if name == label else "numbers"
            raise ValueError(
                f"{name} is {arrays[name].dtype} of shape {arrays[name].shape}; expected {what} of shape {shape}"
            )
    return arrays


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > ARRAY_LIMIT:
        raise ValueError(f"{name} has {member.file_size:,} bytes; at most {ARRAY_LIMIT:,} are read")
    data = io.BytesIO(archive.read(member))
    try:
        array: np.ndarray = np.lib.format.read_array(data, allow_pickle=False)
    except ValueError as error:
        if "pickle" not in str(error):
            raise zipfile.BadZipFile(f"{name} is damaged") from error
        raise ValueError(
            f"{name} is stored as Python objects, which can carry code and are not read. Where you trust the file, "
            f'write it again with texts: a = dict(numpy.load(FILE, allow_pickle=True)); a["{name}"] = '
            f'a["{name}"].astype(str); numpy.savez(FILE, **a)'
        ) from error
    return array


def _objects(arrays: dict[str, np.ndarray], label: str) -> tuple[tuple[ImageObject, ...], list[tuple[int, str]]]:
    """The objects that are valid, best first, and the number and fault of each that is not."""
    width, height = (_side(arrays.get(name)) for name in ("image_w", "image_h"))
    objects: list[ImageObject] = []
    dropped: list[tuple[int, str]] = []
    rows = zip(arrays["bounding_boxes"].tolist(), arrays[label].tolist(), arrays["scores"].tolist(), strict=True)
    for number, ((x1, y1, x2, y2), name, score) in enumerate(rows):
        text = name.decode("utf-8", errors="replace") if isinstance(name, bytes) else name
        if not np.isfinite([x1, y1, x2, y2, score]).all():
            dropped.append((number, "not finite"))
        elif not (x1 < x2 and y1 < y2):
            dropped.append((number, "no area"))
        elif min(x1, y1) < -_SLACK or x2 > width + _SLACK or y2 > height + _SLACK:
            dropped.append((number, "outside the image"))
        elif not 0 <= score <= 1:
            dropped.append((number, "score outside 0 to 1"))
        elif not text.strip():
            dropped.append((number, "empty label"))
        else:
            objects.append(ImageObject((x1, y1, x2, y2), text.strip(), score))
    return tuple(sorted(objects, key=lambda item: -item.score)), dropped


def _side(array: np.ndarray | None) -> float:
    """An image's width or height in pixels, the largest there can be where the file does not tell."""
    if array is None or array.size != 1 or array.dtype.kind not in "fiu" or not 0 < array.item() <= LONGEST_SIDE:
        return LONGEST_SIDE
    return float(array.item())
