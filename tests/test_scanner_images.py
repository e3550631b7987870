"""Pictures: the experts' process says what the commands write into a store, so prompts are those of training."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageDraw

from scanner_jax import export, predict
from scanner_jax.drawing import LARGEST, draw
from scanner_jax.experts import Experts, ExpertsError, Look
from scanner_jax.files import read_json, write_checksums, write_json
from scanner_jax.knowledge.__main__ import main as knowledge
from scanner_jax.knowledge.ranking import Query, open_ranker
from scanner_jax.prompts import Prompt
from scanner_jax.recognition import write_prompts
from scanner_jax.retrieval import CLIP_SIMILARITY, KnowledgeSources
from scanner_jax.scanner import Entity, Prediction, Request, Scanner
from scanner_jax.store import Store
from scanner_jax.types import Example

pytestmark = pytest.mark.usefixtures("experts_process")
TEXT = "Ada and Zen Bank are so cold, Oslo again"
NAMES = ("red", "blue", "dots")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(NAMES):
        image = Image.new("RGB", (60 + 20 * seed, 48), (90 * seed, 50, 200 - 60 * seed))
        ImageDraw.Draw(image).ellipse((5 * seed, 8, 30, 40), fill=(200, 80 * seed, 30))
        image.save(folder / f"{name}.png")
    (folder / "page.jpg").write_text("<html>gone</html>")
    return folder


@pytest.fixture(scope="module")
def experts(tiny_experts: Path) -> dict[str, str]:
    models = {"captions": "blip2", "objects": "dfine", "regions": "blip2", "clip": "clip"}
    return {kind: str(tiny_experts / model) for kind, model in models.items()}


@pytest.fixture(scope="module")
def store(photos: Path, experts: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What training would have of these pictures."""
    folder = tmp_path_factory.mktemp("store")
    for kind, model in experts.items():
        assert knowledge([kind, str(photos), str(folder), "--model", model]) == 0
    return Store.open(folder)


@pytest.fixture(scope="module")
def model(finished_run: Path, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose training had objects with captions of their regions, in CLIP's order."""
    folder = export.export(finished_run, tmp_path_factory.mktemp("exported") / "model")
    described = read_json(folder / "scanner.json")
    described["knowledge"]["clip_order"] = True
    sources = KnowledgeSources(store=store, use_captions=True, use_objects=True, use_clip_order=True)
    described["experts"] = {
        kind: {name: found[name] for name in export._EXPERT_FIELDS if name in found}
        for kind, found in sources.provenance().items()
    }
    assert set(described["experts"]) == {"captions", "objects", "regions", "clip"}
    write_json(folder / "scanner.json", described)
    write_checksums(folder)
    return folder


@pytest.fixture(scope="module")
def scanner(model: Path, experts: dict[str, str], transformers: ModuleType) -> Iterator[Scanner]:
    with Scanner.from_pretrained(model, experts=experts, device="cpu") as scanner:
        yield scanner


def told(scanner: Scanner, prediction: Prediction) -> list[Prompt]:
    """The prompts of a prediction's spans."""
    candidates = [(Example("", prediction.words.words), span) for span in prediction.knowledge]
    return write_prompts(scanner._model.recognition, candidates, list(prediction.knowledge.values())).prompts


def test_a_picture_gives_what_the_store_has(scanner: Scanner, photos: Path, store: Store) -> None:
    """Prompts are equal: captions, objects, regions, order. Boxes differ by what batches do to sums."""
    requests = [Request(text=TEXT, image=photos / f"{name}.png") for name in NAMES]
    seen = scanner.explain(requests)
    stored = scanner.explain([Request(text=TEXT, image_id=name) for name in NAMES], knowledge=store)
    for first, second in zip(seen, stored, strict=True):
        assert told(scanner, first) == told(scanner, second)
        for one, other in zip(first.knowledge.values(), second.knowledge.values(), strict=True):
            boxes = [[box for item in known.objects for box in item.box] for known in (one, other)]
            assert boxes[0] == pytest.approx(boxes[1], abs=1e-3)
    known = [item for prediction in seen for item in prediction.knowledge.values()]
    assert len(known) >= 3 and all(item.object_order == CLIP_SIMILARITY for item in known)
    assert all(item.objects and any(part.caption for part in item.objects) for item in known)
    assert len({item.caption for item in known}) > 1
    ranker = open_ranker(store)
    for name, prediction in zip(NAMES, seen, strict=True):
        for span, item in prediction.knowledge.items():
            words = prediction.words.words[span.start : span.end]
            (order,) = ranker.orders([Query(name, " ".join(words))])
            assert order is not None
            told_of = order[: scanner._model.recognition.max_objects]  # a prompt has no more
            assert len(order) > len(told_of)  # so that the best of all boxes stand in it
            ordered = [store.objects(name)[place] for place in told_of]
            assert [part.caption for part in item.objects] == [part.caption for part in ordered]


def test_pictures_share_one_process(scanner: Scanner, photos: Path) -> None:
    experts: Any = scanner._gatherer._experts
    scanner.predict(TEXT, photos / "red.png")
    process = experts._process.pid
    with Image.open(photos / "red.png") as image:
        assert scanner.predict(TEXT, image) == scanner.predict(TEXT, photos / "red.png")
    assert experts._process.pid == process
    experts._process.kill()
    experts._process.wait()
    assert scanner.predict(TEXT, photos / "red.png")  # another one is started


def test_what_is_no_picture_is_said_and_the_text_predicted(
    scanner: Scanner, photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = scanner.predict(TEXT, photos / "page.jpg")
    assert f"{photos / 'page.jpg'}: not an image; it is not looked at" in caplog.messages
    assert [dataclasses.replace(entity, score=0.0) for entity in found] == [
        dataclasses.replace(entity, score=0.0, box=None, box_score=None) for entity in scanner.predict(TEXT)
    ]


def test_the_process_ends_with_the_scanner(scanner: Scanner) -> None:
    process = scanner._gatherer._experts._process
    assert process is not None and process.poll() is None
    scanner.close()
    assert process.poll() == 0


def test_a_model_that_cannot_be_loaded_is_said_once(
    model: Path, experts: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    described = read_json(model / "scanner.json")
    asked = Experts(described, models={**experts, "captions": str(tmp_path / "none")}, device="cpu")
    for _ in range(2):
        with pytest.raises(ExpertsError, match="no such folder"):
            asked.look([Look(photos / "red.png", ["Ada"])])
    asked.close()


def test_local_experts_must_be_passed(model: Path) -> None:
    with pytest.raises(ExpertsError, match=r"came from a local model, blip2 \(sha256:.*--expert captions=MODEL"):
        Experts(read_json(model / "scanner.json"), models={}).look([])


@pytest.mark.slow
def test_the_command_draws(
    model: Path, photos: Path, experts: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [part for kind, path in experts.items() for part in ("--expert", f"{kind}={path}")]
    drawn = tmp_path / "drawn.png"
    arguments = ["--model", str(model), "--text", TEXT, "--experts-device", "cpu", *chosen]
    assert predict.main([*arguments, "--image", str(photos / "dots.png"), "--draw", str(drawn)]) == 0
    assert capsys.readouterr().out
    with Image.open(drawn) as image:
        assert image.height > 48
    assert predict.main([*arguments, "--image", str(photos / "page.jpg"), "--draw", str(drawn)]) == 1
    assert f"{photos / 'page.jpg'}: not an image" in capsys.readouterr().err


def test_drawn_boxes_are_in_their_place(tmp_path: Path) -> None:
    Image.new("RGB", (2 * LARGEST, 400), "black").save(tmp_path / "wide.png")
    entity = Entity("Ada", "PER", 0.9, 0, 3, box=(400, 200, 800, 360), box_score=0.8)
    draw(tmp_path / "wide.png", [entity], ("LOC", "PER"), tmp_path / "drawn.png")
    with Image.open(tmp_path / "drawn.png") as image:
        assert image.width == LARGEST
        assert image.getpixel((300, 100)) == image.getpixel((200, 150)) == (31, 119, 180)
        assert image.getpixel((300, 140)) == image.getpixel((420, 150)) == (0, 0, 0)
