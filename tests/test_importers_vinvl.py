"""Importing VinVL's npz files: real ones, and invented ones that hold one fault each."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanner_jax.store import Store, StoreError
from scanner_jax.store.__main__ import main
from scanner_jax.store.sources import Imported
from scanner_jax.store.vinvl import read_vinvl
from scanner_jax.types import ImageObject

DATA = Path("data") / "vinvl"


def arrays(**changed: Any) -> dict[str, Any]:
    """Two valid objects of an image of 100 by 50 pixels, the second with the better score."""
    found = {
        "bounding_boxes": np.array([[0, 0, 10, 20], [1.5, 2, 100, 50]], np.float32),
        "scores": np.array([0.25, 0.5], np.float32),
        "objects": np.array(["car", "dog"]),
        "attr_obj": np.array(["red car", "big dog"]),
        "image_w": np.array(100),
        "image_h": np.array(50),
        "box_features": np.zeros((2, 8), np.float32),
    } | changed
    return {name: value for name, value in found.items() if value is not None}


def write(folder: Path, name: str = "17_06_1.jpg.npz", **changed: Any) -> Path:
    np.savez(folder / name, **arrays(**changed))
    return folder / name


def boxes(**rows: Any) -> np.ndarray:
    """The two boxes with the coordinates of the first replaced."""
    box = dict(zip(("x1", "y1", "x2", "y2"), (0, 0, 10, 20), strict=True)) | rows
    return np.array([list(box.values()), [1, 2, 100, 50]], np.float32)


def read(paths: Sequence[Path], **options: Any) -> Imported:
    """Read all records: until then neither faults nor what is skipped are known."""
    imported = read_vinvl(paths, **options)
    return dataclasses.replace(imported, records=tuple(imported.records))


def objects_of(imported: Imported) -> dict[str, list[str]]:
    return {key: [item["label"] for item in value["objects"]] for key, value in imported.records}


def test_objects_are_sorted_by_score_and_keyed_by_image(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "O_7.npz", image_w=None, image_h=None)
    imported = read([tmp_path])
    assert objects_of(imported) == {"17_06_1": ["big dog", "red car"], "O_7": ["big dog", "red car"]}
    assert objects_of(read([tmp_path / "O_7.npz"], label="objects")) == {"O_7": ["dog", "car"]}
    assert not any(imported.remarks.values())


def test_the_command_writes_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = tmp_path / "features"
    features.mkdir()
    write(features, bounding_boxes=boxes(x2=0))
    write(features, "8.npz", scores=np.array([0.5, 0.5]))
    np.savez(features / "model.npz", weights=np.zeros(3))
    (features / "9.npz").write_bytes((features / "8.npz").read_bytes()[:300])
    assert main(["import", "vinvl", str(features), str(tmp_path / "store"), "--label", "objects"]) == 0
    printed = capsys.readouterr().out
    assert "2 images -> " in printed and "objects in all: 3" in printed
    assert "skipped files, not VinVL's: 1 (model.npz)" in printed
    assert "skipped files, damaged: 1 (9.npz (" in printed
    assert "skipped boxes: 1 (17_06_1.jpg.npz object 0 (no area))" in printed
    store = Store.open(tmp_path / "store")
    assert store.objects("17_06_1") == (ImageObject((1.0, 2.0, 100.0, 50.0), "dog", 0.5),)
    assert [item.label for item in store.objects("8")] == ["car", "dog"]  # equal scores stay in order
    provenance = store.provenance("objects")
    assert (provenance["importer"], provenance["label"]) == ("vinvl", "objects")
    assert provenance["places"]["skipped boxes"] == ["17_06_1.jpg.npz object 0 (no area)"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bounding_boxes": boxes(x1=np.nan)}, "not finite"),
        ({"bounding_boxes": boxes(y2=np.inf)}, "not finite"),
        ({"scores": np.array([np.nan, 0.5])}, "not finite"),
        ({"bounding_boxes": boxes(x1=10)}, "no area"),
        ({"bounding_boxes": boxes(y1=30)}, "no area"),
        ({"bounding_boxes": boxes(x1=-1.5)}, "outside the image"),
        ({"bounding_boxes": boxes(x2=101.5)}, "outside the image"),
        ({"bounding_boxes": boxes(x2=30_000), "image_w": None}, "outside the image"),
        ({"scores": np.array([1.5, 0.5])}, "score outside 0 to 1"),
        ({"attr_obj": np.array([" ", "big dog"])}, "empty label"),
    ],
)
def test_boxes_that_are_none_are_left_out_and_listed(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    imported = read([write(tmp_path, **changed)])
    assert objects_of(imported) == {"17_06_1": ["big dog"]}
    assert imported.remarks["skipped boxes"] == [f"17_06_1.jpg.npz object 0 ({reason})"]


def test_a_pixel_beyond_the_image_is_rounding(tmp_path: Path) -> None:
    imported = read([write(tmp_path, bounding_boxes=boxes(x1=-0.5, x2=100.5))])
    assert len(objects_of(imported)["17_06_1"]) == 2


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    empty = {"bounding_boxes": np.zeros((0, 4)), "scores": np.zeros(0), "attr_obj": np.zeros(0), "objects": np.zeros(0)}
    assert objects_of(read([write(tmp_path, **empty)])) == {"17_06_1": []}


class Trap:
    """Unpickled, it would raise; read rightly, it is never looked at."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was loaded",))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"attr_obj": np.array(["red car", Trap()], dtype=object)},
            r"attr_obj is stored as Python objects.*astype\(str\)",
        ),
        ({"scores": None}, r"it lacks scores; it holds .*bounding_boxes"),
        ({"attr_obj": None}, r"it lacks attr_obj"),
        ({"scores": np.zeros(3)}, r"scores is float64 of shape \(3,\); expected numbers of shape \(2,\)"),
        ({"bounding_boxes": np.zeros((2, 5))}, r"bounding_boxes is .* expected numbers of shape \(2, 4\)"),
        ({"bounding_boxes": np.array(3.0)}, r"bounding_boxes is float64 of shape \(\)"),
        ({"attr_obj": np.zeros(2)}, r"attr_obj is float64 of shape \(2,\); expected texts"),
        ({"scores": np.array(["a", "b"])}, r"scores is <U1 of shape \(2,\); expected numbers"),
    ],
)
def test_files_of_another_form_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(StoreError, match=message) as raised:
        read([path])
    assert str(path) in str(raised.value)


def test_features_that_are_pickled_do_no_harm_where_they_are_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, box_features=np.array([Trap()], dtype=object))
    assert len(objects_of(read([path]))) == 1


def test_a_header_that_promises_too_much_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path)
    good = write(tmp_path, "good.npz")
    with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(good) as source:
        for name in source.namelist():
            data = source.read(name)
            if name == "scores.npy":
                data = data.replace(b"(2,), ", b"(9999999999999,), ").replace(b" " * 12 + b"\n", b"\n")
            archive.writestr(name, data)
    imported = read([tmp_path])
    assert list(objects_of(imported)) == ["good"]
    assert "17_06_1.jpg.npz (" in imported.remarks["skipped files, damaged"][0]


def test_an_array_too_large_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner_jax.store.vinvl_npz.ARRAY_LIMIT", 200)
    with pytest.raises(StoreError, match=r"bytes; at most 200 are read"):
        read([write(tmp_path, attr_obj=np.array(["x" * 90, "y"]))])


def test_wrong_sources_are_all_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, "7.npz")
    write(two, "7.jpg.npz")
    (tmp_path / "empty").mkdir()
    sources = [str(folder) for folder in (one, two, tmp_path / "empty", tmp_path / "nowhere")]
    assert main(["import", "vinvl", *sources, str(tmp_path / "store")]) == 1
    printed = capsys.readouterr().err
    assert f"7.jpg.npz: image 7 stands in {one / '7.npz'} already" in printed
    assert "empty holds no .npz or .tsv file" in printed and "nowhere does not exist" in printed
    np.savez(tmp_path / "empty" / "model.npz", weights=np.zeros(3))
    assert main(["import", "vinvl", str(tmp_path / "empty"), str(tmp_path / "store")]) == 1
    assert "no objects in" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs data/vinvl")
@pytest.mark.parametrize("label", ["attr_obj", "objects"])
def test_the_real_files(label: str) -> None:
    imported = read([DATA], label=label)
    found = dict(imported.records)
    assert {key: len(value["objects"]) for key, value in found.items()} == {
        "111254": 10,
        "153305": 36,
        "1953977": 35,
        "70560": 36,
        "O_2371": 36,
        "O_4154": 31,
    }
    assert imported.remarks["skipped files, not VinVL's"] == ["vinvl_golden.npz"]
    for key, value in found.items():
        with np.load(DATA / f"{key}.jpg.npz") as source:
            order = np.argsort(-source["scores"], kind="stable")
            assert [item["label"] for item in value["objects"]] == source[label][order].tolist()
            np.testing.assert_array_equal([item["box"] for item in value["objects"]], source["bounding_boxes"][order])
