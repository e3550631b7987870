"""`objects --detector vinvl` and the files it writes, around a detector that is made up; and `vinvl check` and `tsv`.

The network itself is in test_vinvl.py; the slow test runs the real one through the command.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vinvl_case import ARRAYS

from scanner_jax.experts import VINVL
from scanner_jax.knowledge.__main__ import main
from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.serve import Loaded
from scanner_jax.knowledge.vinvl import checking, detector, expert
from scanner_jax.knowledge.vinvl.checking import agreement, iou
from scanner_jax.knowledge.vinvl.detector import Detections, Options
from scanner_jax.knowledge.vinvl.labels import Labels, read_labels
from scanner_jax.knowledge.vinvl.preprocessing import Prepared
from scanner_jax.store import Store, objects_value
from scanner_jax.store.vinvl import read_vinvl
from scanner_jax.types import ImageObject

SIZES = {"p1": (64, 48), "p2": (48, 64), "p3": (90, 30)}


class MadeUp:
    """Objects that follow from an image's pixels."""

    def __init__(self, network: Any, **_: Any) -> None:
        self.options = Options()

    def __call__(self, images: Sequence[Prepared]) -> list[Detections]:
        return [made_up(image) for image in images]


def made_up(image: Prepared) -> Detections:
    """Five objects, the last without area; attributes of all kinds."""
    rng = np.random.default_rng(int(image.pixels.astype(int).sum()))
    width, height = image.original
    low = rng.uniform(0, 0.4, (5, 2)) * (width, height)
    high = low + rng.uniform(0.1, 0.5, (5, 2)) * (width, height)
    high[4] = low[4]
    boxes = np.concatenate([low, high], 1).astype(np.float32)
    conf = np.zeros((5, 16), np.float32)
    conf[:, :3] = [[0.9, 0.3, 0.06], [0.09, 0.07, 0.0], [0.0, 0.0, 0.0], [0.5, 0.4, 0.0], [0.2, 0.0, 0.0]]
    return Detections(
        boxes=boxes,
        resized_boxes=boxes,
        scores=np.sort(rng.uniform(0.2, 1, 5).astype(np.float32))[::-1].copy(),
        labels=rng.integers(1, 1595, 5),
        features=rng.normal(size=(5, 2048)).astype(np.float32),
        attributes=rng.permuted(np.tile(np.arange(1, 525), (5, 1)), axis=1)[:, :16],
        attribute_scores=conf,
    )


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images, a label map of invented names, a file in place of the weights; the command's arguments for them."""
    monkeypatch.setattr(expert, "Detector", MadeUp)
    monkeypatch.setattr(expert, "load_network", lambda path: None)
    (tmp_path / "images").mkdir()
    for seed, (name, size) in enumerate(SIZES.items()):
        Image.effect_noise(size, 40 + seed).convert("RGB").save(tmp_path / "images" / f"{name}.png")
    Image.new("RGB", (4000, 1)).save(tmp_path / "images" / "strip.png")
    (tmp_path / "weights.pth").write_bytes(b"weights")
    write_labels(tmp_path / "labels.json")
    return [
        "objects", str(tmp_path / "images"), str(tmp_path / "store"), "--detector", "vinvl", "--device", "cpu",
        "--weights", str(tmp_path / "weights.pth"), "--labels", str(tmp_path / "labels.json"),
    ]  # fmt: skip


def write_labels(path: Path) -> None:
    held = {
        "label_to_idx": {f"thing {number}": number for number in range(1, 1595)},
        "attribute_to_idx": {("red" if number == 7 else f"kind {number}"): number for number in range(1, 525)},
    }
    path.write_text(json.dumps(held))


@pytest.mark.parametrize("label", ["attr_obj", "objects"])
def test_importers_read_back_what_is_written(tmp_path: Path, inputs: list[str], label: str) -> None:
    features = tmp_path / "features"
    assert main([*inputs, "--label", label, "--features", str(features)]) == 0
    store = Store.open(tmp_path / "store")
    expected = {key: objects_value(store.objects(key)) for key in SIZES}
    assert set(store.keys("objects")) == set(SIZES) and all(len(value["objects"]) == 4 for value in expected.values())
    assert dict(read_vinvl([features], label=label).records) == expected
    assert main(["vinvl", "tsv", str(features), str(tmp_path / "all.tsv")]) == 0
    assert dict(read_vinvl([tmp_path / "all.tsv"], label=label).records) == expected
    labels = [item["label"] for item in expected["p1"]["objects"]]
    assert all((name.count("kind") + name.count("red") > 0) == (label == "attr_obj") for name in labels[:2])


def test_the_tsv_holds_features_and_an_index(tmp_path: Path, inputs: list[str]) -> None:
    features = tmp_path / "features"
    assert main([*inputs, "--features", str(features)]) == 0
    assert main(["vinvl", "tsv", str(features), str(tmp_path / "all.tsv")]) == 0
    data = (tmp_path / "all.tsv").read_bytes()
    starts = [int(line) for line in (tmp_path / "all.lineidx").read_text().split()]
    for start, name in zip(starts, SIZES, strict=True):
        key, text = data[start:].partition(b"\n")[0].decode().split("\t")
        assert key == name
        row = json.loads(text)
        assert row["relations"] is None
        with np.load(features / f"{name}.jpg.npz", allow_pickle=False) as arrays:
            assert arrays["box_features"].shape == (5, 2048) and int(arrays["num_boxes"]) == 5
            assert (int(arrays["image_w"]), int(arrays["image_h"])) == SIZES[name]
            for number, item in enumerate(row["objects"]):
                vector = np.frombuffer(base64.b64decode(item["feature"]), np.float32)
                np.testing.assert_array_equal(vector, arrays["box_features"][number])
                assert (item["bbox_id"], item["class"]) == (number, arrays["objects"][number])
                assert item["rect"] == arrays["bounding_boxes"][number].tolist()
                assert len(item["attributes"]) == len(item["attr_scores"]) <= 16
    assert sorted(path.name for path in features.iterdir()) == [f"{name}.jpg.npz" for name in SIZES]


def test_provenance_and_resumption(tmp_path: Path, inputs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*inputs, "--shard", "1/2"]) == 0 and main([*inputs, "--shard", "2/2"]) == 0
    assert main(["merge", str(tmp_path / "store"), "objects"]) == 0
    provenance = json.loads((tmp_path / "store" / "objects" / "provenance.json").read_text())
    assert provenance["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (provenance["expert"], provenance["label"], provenance["regression"]) == ("VinVL X152-C4", "attr_obj", True)
    assert provenance["counts"] == {"too narrow to be resized": 1}
    whole = provenance["fingerprint"]
    assert main(inputs) == 0 and "is made of these images with these settings already" in capsys.readouterr().out
    assert main([*inputs, "--boxes", "proposals"]) == 0
    provenance = json.loads((tmp_path / "store" / "objects" / "provenance.json").read_text())
    assert provenance["regression"] is False and provenance["fingerprint"] == whole  # the made-up one knows no options


@pytest.mark.parametrize(
    ("left", "added", "status", "said"),
    [
        (5, [], 2, "--detector vinvl needs --weights"),
        (None, ["--model", "some/detector"], 2, "--model and --revision are of a detector of transformers"),
        (None, ["--weights", "gone.pth"], 1, "--weights gone.pth: no such file"),
        (None, ["--labels", "gone.json"], 1, "--labels gone.json: no such file"),
        (3, ["--label", "objects"], 2, "--label is for --detector vinvl"),
    ],
)
def test_mistakes(
    inputs: list[str], capsys: pytest.CaptureFixture[str], left: int | None, added: list[str], status: int, said: str
) -> None:
    try:
        found = main([*inputs[:left], *added])
    except SystemExit as error:
        found = int(str(error.code))
    assert found == status and said in capsys.readouterr().err


def test_label_maps_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    for text in ("", "[]", '{"label_to_idx": {}}', '{"label_to_idx": {"a": 1}, "attribute_to_idx": {"b": 1}}'):
        path.write_text(text)
        with pytest.raises(ModelError, match="expected VG-SGG-dicts-vgoi6-clipped.json"):
            read_labels(path)


def test_operators_that_do_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeError("Couldn't load custom C++ ops.")

    monkeypatch.setattr("torchvision.ops.nms", missing)
    with pytest.raises(ModelError, match=r"install torchvision .* pip install torch==.*Couldn't load custom"):
        detector.check_operators(torch.device("cpu"))


def test_overlaps() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 5, 10, 15], [3, 3, 3, 3]], float)
    np.testing.assert_allclose(iou(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]])


@pytest.fixture
def published(tmp_path: Path, inputs: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder of npz files that the made-up detector wrote, with their images; the arguments of `vinvl check`."""
    assert main([*inputs, "--features", str(tmp_path / "images")]) == 0
    monkeypatch.setattr("scanner_jax.knowledge.vinvl.detector.Detector", MadeUp)
    monkeypatch.setattr("scanner_jax.knowledge.vinvl.weights.load_network", lambda path: None)
    folder = str(tmp_path / "images")
    return ["vinvl", "check", str(tmp_path / "weights.pth"), str(tmp_path / "labels.json"), folder, "--device", "cpu"]


def test_the_check(published: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(published) == 1  # a box without area overlaps with nothing
    said = capsys.readouterr().out
    assert "all, boxes of classes: of 15 objects 12 boxes are there, 12 with their class" in said
    assert "the checkpoint does not agree" in said
    monkeypatch.setattr(checking, "ENOUGH", 0.8)
    assert main(published) == 0
    assert "the checkpoint agrees" in capsys.readouterr().out


def test_agreement_counts_boxes_and_classes() -> None:
    image = Prepared(np.full((40, 60, 3), 9, np.uint8), (60, 40))
    found = made_up(image)
    labels = Labels(tuple(f"thing {number}" for number in range(1595)), ("",) * 525, "")
    classes = np.array([f"thing {number}" for number in found.labels])
    classes[1] = "another"
    held = {
        "bounding_boxes": found.boxes[:4] + np.array([[0.0], [0.0], [30.0], [0.0]], np.float32),
        "objects": classes[:4],
        "scores": found.scores[:4] - np.float32(0.01),
        "box_features": 2 * found.features[:4],
    }
    counted = agreement("p", True, held, found, labels)
    assert (counted.published, counted.boxes, counted.objects) == (4, 3, 2)
    assert counted.score == pytest.approx(0.01, abs=1e-6) and counted.feature == pytest.approx(1, abs=1e-6)


def test_the_check_says_what_is_missing(
    tmp_path: Path, published: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "p2.png").unlink()
    assert main(published) == 1
    assert "holds no image for p2" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_network_through_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Formula weights from a file, an image of an odd size, what prediction says of it, and the check of it all."""
    from vinvl_formula import formula_state

    for module in (detector, checking):  # 300 proposals would take a minute
        monkeypatch.setattr(module, "Options", functools.partial(Options, proposals=20))
    torch.save({"model": formula_state(ARRAYS if ARRAYS.is_file() else None)}, tmp_path / VINVL[0])
    (tmp_path / "images").mkdir()
    Image.effect_noise((150, 70), 60).convert("RGB").save(tmp_path / "images" / "p1.png")
    write_labels(tmp_path / VINVL[1])
    files = [str(tmp_path / name) for name in VINVL]
    assert main([
        "objects", str(tmp_path / "images"), str(tmp_path / "store"), "--detector", "vinvl", "--device", "cpu",
        "--weights", files[0], "--labels", files[1], "--features", str(tmp_path / "images"),
    ]) == 0  # fmt: skip
    store = Store.open(tmp_path / "store")
    assert len(store.objects("p1")) >= 10
    served = Loaded({"device": "cpu", "objects": {**store.provenance("objects"), "model": str(tmp_path)}})
    seen = served.look(tmp_path / "images" / "p1.png", [])["objects"]
    assert objects_value(ImageObject(**item) for item in seen) == objects_value(store.objects("p1"))
    assert main(["vinvl", "check", *files, str(tmp_path / "images"), "--device", "cpu"]) == 0
