"""Import VinVL's objects: from its own TSV files, or from the community's npz files, one per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from scanner_jax.spill import SpilledDict
from scanner_jax.store.layout import Value
from scanner_jax.store.sources import Imported, refuse
from scanner_jax.store.vinvl_npz import DAMAGE, read_npz
from scanner_jax.store.vinvl_rows import LABELS, Row, valid_objects
from scanner_jax.store.vinvl_tsv import read_tsv
from scanner_jax.store.writer import objects_value

__all__ = ["LABELS", "read_vinvl"]

SKIPPED_LIMIT = 100_000
"""Invalid boxes and skipped files; a source with more of them is another one."""

PROBLEM_LIMIT = 1000
"""Problems after which no more is read."""

_OTHER, _DAMAGED = "skipped files, not VinVL's", "skipped files, damaged"
_BOXES, _CLASS_ALONE = "skipped boxes", "files without attributes, labels are classes"


def read_vinvl(paths: Sequence[Path], *, label: str = "attr_obj") -> Imported:
    """Read the objects of every image, one image at a time; the features in the files are left alone.

    An npz file is `<image id>.npz` or `<image id>.jpg.npz` and holds `bounding_boxes` (n, 4: x1, y1, x2, y2 in pixels
    of the image), `scores` (n), `objects` and `attr_obj` (n texts); `image_w` and `image_h` are used if they are there.
    A file that is no zip archive is VinVL's TSV: lines of `key<TAB>{"objects": [...]}`, the key an image id or its
    file name. Objects are sorted by score, best first; equal ones stay in the file's order.

    Skipped, and listed: npz files that hold no boxes or are damaged, and boxes that are none: not finite, without
    area, outside their image or beyond any size, with a score outside 0 to 1, or with an empty label.

    Args:
        paths: npz and TSV files, and folders of them.
        label: one of `LABELS`. **Assumption:** with its attribute, as ITA writes it, whose form the paper follows.

    Returns:
        Records to be read once; what was noticed is complete after the last one. Reading them raises a StoreError
        that lists missing sources, pickled arrays, files or lines of another form or cut short, and images that come
        twice.
    """
    remarks: dict[str, list[str]] = {remark: [] for remark in (_OTHER, _DAMAGED, _BOXES, _CLASS_ALONE)}
    return Imported(_records(paths, label, remarks), remarks, tuple(paths))


def _records(paths: Sequence[Path], label: str, remarks: dict[str, list[str]]) -> Iterator[tuple[str, Value]]:
    problems: list[str] = []
    places = SpilledDict[str]()
    for found in _rows(_files(paths, problems), label, remarks):
        if isinstance(found, str):
            problems.append(found)
        elif found.image in places:
            problems.append(f"{found.place}: image {found.image} stands in {places[found.image]} already; keep one")
        else:
            places[found.image] = found.place
            objects, dropped = valid_objects(found)
            remarks[_BOXES] += dropped
            if not problems:
                yield found.image, objects_value(objects)
        skipped = sum(map(len, remarks.values()))
        if skipped > SKIPPED_LIMIT:
            problems.append(f"{skipped:,} files and boxes skipped, such as {remarks[_BOXES][:1]}; is this VinVL's?")
        if skipped > SKIPPED_LIMIT or len(problems) >= PROBLEM_LIMIT:
            problems.append("... and perhaps more; reading stopped here")
            break
    if not places and not problems:
        listed = "; ".join(f"{remark}: {where[0]}, ..." for remark, where in remarks.items() if where)
        problems.append(f"no objects in {', '.join(map(str, paths))}" + (f" ({listed})" if listed else ""))
    refuse(problems)


def _files(paths: Sequence[Path], problems: list[str]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted([*path.glob("*.npz"), *path.glob("*.tsv")]) if path.is_dir() else [path]
        if not path.exists():
            problems.append(f"{path} does not exist")
        elif not inside:
            problems.append(f"{path} holds no .npz or .tsv file; give VinVL's TSV, or a folder of <image id>.npz files")
        else:
            files += inside
    return files


def _rows(files: Sequence[Path], label: str, remarks: dict[str, list[str]]) -> Iterator[Row | str]:
    """Yield each image, or what is wrong with its file or line."""
    for path in files:
        if not _is_npz(path):
            for found in read_tsv(path, label):
                if isinstance(found, Row) and found.without_attributes and path.name not in remarks[_CLASS_ALONE]:
                    remarks[_CLASS_ALONE].append(path.name)
                yield found
            continue
        try:
            row = read_npz(path, label)
        except DAMAGE as error:
            remarks[_DAMAGED].append(f"{path.name} ({error})")
        except ValueError as error:
            yield f"{path}: {error}"
        else:
            if row is None:
                remarks[_OTHER].append(path.name)
            else:
                yield row


def _is_npz(path: Path) -> bool:
    """Whether a file's name or its first bytes say that it is a zip archive."""
    if path.suffix == ".npz":
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"
