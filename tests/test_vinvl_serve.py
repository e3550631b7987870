"""VinVL's detector at prediction: what it says of a picture is what its command wrote into training's store.

The detector is made up, as in test_vinvl_command.py, whose slow test runs the real network both ways.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from test_vinvl_command import MadeUp, write_labels

from scanner_jax import export
from scanner_jax.experts import VINVL, Experts, ExpertsError, Look
from scanner_jax.files import read_json, write_checksums, write_json
from scanner_jax.knowledge.__main__ import main
from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.serve import Loaded, answer
from scanner_jax.knowledge.vinvl import expert, serving
from scanner_jax.knowledge.vinvl.detector import Options
from scanner_jax.recognition import write_prompts
from scanner_jax.retrieval import KnowledgeSources
from scanner_jax.scanner import Request, Scanner
from scanner_jax.store import Store
from scanner_jax.types import Example

TEXT = "Ada and Zen Bank are so cold, Oslo again"
COMMAND = ("--detector", "vinvl", "--device", "cpu", "--label", "objects", "--boxes", "proposals")


def files(folder: Path) -> list[str]:
    return ["--weights", str(folder / VINVL[0]), "--labels", str(folder / VINVL[1])]


@pytest.fixture
def vinvl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the detector's two files; that of the weights has none, and the detector is made up."""
    monkeypatch.setattr(expert, "Detector", MadeUp)
    monkeypatch.setattr(expert, "load_network", lambda path: None)
    folder = tmp_path / "vinvl"
    folder.mkdir()
    (folder / VINVL[0]).write_bytes(b"weights")
    write_labels(folder / VINVL[1])
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, name in enumerate(("one", "two")):
        Image.effect_noise((64 + 9 * seed, 48), 40 + seed).convert("RGB").save(folder / f"{name}.png")
    Image.new("RGB", (4000, 1)).save(folder / "strip.png")
    return folder


@pytest.fixture
def store(tmp_path: Path, vinvl: Path, photos: Path) -> Store:
    """What training would have of the pictures."""
    assert main(["objects", str(photos), str(tmp_path / "store"), *COMMAND, *files(vinvl)]) == 0
    return Store.open(tmp_path / "store")


@pytest.fixture
def model(finished_run: Path, store: Store, tmp_path: Path) -> Path:
    """A model whose training had these objects, and no captions."""
    folder = export.export(finished_run, tmp_path / "model")
    described = read_json(folder / "scanner.json")
    described["knowledge"]["captions"] = False
    found = KnowledgeSources(store=store, use_objects=True).provenance()["objects"]
    described["experts"] = {"objects": {name: found[name] for name in export._EXPERT_FIELDS if name in found}}
    write_json(folder / "scanner.json", described)
    write_checksums(folder)
    return folder


class Here:
    """Answers in this process, where the detector is made up; settings and questions pass through JSON."""

    def __init__(self, experts: Experts) -> None:
        self._loaded = Loaded(json.loads(json.dumps(experts._settings)))

    def __call__(self, what: str, question: Any) -> Any:
        return answer(self._loaded, json.dumps({what: question}))[what]


@pytest.fixture
def scanner(model: Path, vinvl: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scanner]:
    with Scanner.from_pretrained(model, experts={"objects": str(vinvl)}, device="cpu") as scanner:
        experts = scanner._gatherer._experts
        monkeypatch.setattr(experts, "_ask", Here(experts))
        yield scanner


def test_a_picture_gives_the_prompts_of_training(scanner: Scanner, photos: Path, store: Store) -> None:
    names = ["one", "two", "strip"]
    seen = scanner.explain([Request(text=TEXT, image=photos / f"{name}.png") for name in names])
    stored = scanner.explain([Request(text=TEXT, image_id=name) for name in names], knowledge=store)
    for one, other in zip(seen, stored, strict=True):
        prompts = []
        for prediction in (one, other):
            asked = [(Example("", prediction.words.words), span) for span in prediction.knowledge]
            told = list(prediction.knowledge.values())
            prompts.append(write_prompts(scanner._model.recognition, asked, told).prompts)
        assert prompts[0] == prompts[1] and prompts[0]
        assert list(one.knowledge.values()) == list(other.knowledge.values())
    labels = {item.label for known in seen[0].knowledge.values() for item in known.objects}
    assert labels and all(label.startswith("thing") for label in labels)  # --label objects: no attributes


def test_it_is_set_as_training_had_it(model: Path, vinvl: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []

    def detector(network: Any, **settings: Any) -> MadeUp:
        chosen.append(settings["options"])
        return MadeUp(network)

    monkeypatch.setattr(expert, "Detector", detector)
    described = read_json(model / "scanner.json")
    described["experts"]["objects"]["proposals"] = 7
    experts = Experts(described, models={"objects": str(vinvl)}, device="cpu")
    assert Loaded(experts._settings).look(photos / "one.png", [])["objects"]
    assert chosen == [Options(regression=False, proposals=7)]


def test_objects_that_were_imported_keep_their_labels(vinvl: Path, photos: Path) -> None:
    """VinVL's features from elsewhere: its detector writes labels as the import took them."""
    for label in ("attr_obj", "objects"):
        imported = {"importer": "vinvl", "label": label, "model": str(vinvl), "given": True}
        found = Loaded({"device": "cpu", "objects": imported}).look(photos / "one.png", [])["objects"]
        assert any(not item["label"].startswith("thing") for item in found) == (label == "attr_obj")


def test_other_files_are_used_and_said(
    model: Path, vinvl: Path, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Experts(read_json(model / "scanner.json"), models={"objects": str(vinvl)}, device="cpu")._settings
    with caplog.at_level(logging.WARNING):
        assert Loaded(settings).look(photos / "one.png", [])["objects"] and not caplog.messages
        (vinvl / VINVL[0]).write_bytes(b"other weights")
        assert Loaded(settings).look(photos / "one.png", [])["objects"]
        assert caplog.messages == [f"objects: {vinvl} is not the version of VinVL's detector that training saw"]
        caplog.clear()
        of_a_hub = {"model": str(vinvl), "revision": "c0ffee", "given": True}
        assert Loaded({**settings, "objects": of_a_hub}).look(photos / "one.png", [])["objects"]
        assert caplog.messages == [f"objects: {vinvl} is VinVL's, not the detector that training saw"]


def test_its_files_must_be_passed(model: Path, photos: Path) -> None:
    said = r"VinVL's detector, vinvl_vg_x152c4.pth \(sha256:.*for instance a folder with vinvl_vg_x152c4.pth and VG-SGG"
    with pytest.raises(ExpertsError, match=said):
        Experts(read_json(model / "scanner.json"), models={}).look([Look(photos / "one.png", ["Ada"])])


def test_which_file_has_the_weights(vinvl: Path) -> None:
    (vinvl / "other.pth").touch()
    assert serving._weights(vinvl) == vinvl / VINVL[0]
    (vinvl / VINVL[0]).unlink()
    assert serving._weights(vinvl) == vinvl / "other.pth"
    (vinvl / "more.safetensors").touch()
    with pytest.raises(ModelError, match=r"more\.safetensors, other\.pth; put vinvl_vg_x152c4\.pth there"):
        serving._weights(vinvl)
