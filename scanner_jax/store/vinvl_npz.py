"""One image's objects from an npz file, the community's form of VinVL's output."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from scanner_jax.images import without_extension
from scanner_jax.store.vinvl_rows import Row

ARRAY_LIMIT = 64 * 2**20
"""Bytes of the largest array that is read; a hundred boxes need thousands."""

DAMAGE = (OSError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What a damaged archive makes zipfile and numpy raise."""


def read_npz(path: Path, label: str) -> Row | None:
    """The objects of one image, in the file's order; None where the file has no boxes at all.

    Raises:
        ValueError: an array that is missing, pickled, too large, or of another shape; says which.
        Exception: one of `DAMAGE`, for a damaged file.
    """
    arrays = _arrays(path, label)
    if arrays is None:
        return None
    stem = path.name.removesuffix(".npz")
    rows = zip(arrays["bounding_boxes"].tolist(), arrays[label].tolist(), arrays["scores"].tolist(), strict=True)
    objects = tuple((tuple(box), _text(name), score) for box, name, score in rows)
    width, height = (_side(arrays.get(name)) for name in ("image_w", "image_h"))
    return Row(without_extension(stem) or stem, str(path), objects, width, height)


def _arrays(path: Path, label: str) -> dict[str, np.ndarray] | None:
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


def _text(name: str | bytes) -> str:
    return name.decode("utf-8", errors="replace") if isinstance(name, bytes) else name


def _side(array: np.ndarray | None) -> float | None:
    """An image's width or height in pixels, None where the file does not tell."""
    if array is None or array.size != 1 or array.dtype.kind not in "fiu":
        return None
    return float(array.item())
