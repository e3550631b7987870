"""The commands that run experts over images, on tiny random models of the real classes.

Oracles are the loops that people write: one image and one crop at a time.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from scanner_jax.images import crop, read_image
from scanner_jax.knowledge.__main__ import main
from scanner_jax.knowledge.captions import Captioner
from scanner_jax.knowledge.objects import FEWEST, MOST, keep_best
from scanner_jax.store import Store, objects_value, write_kind
from scanner_jax.store.importers import cut_repetition
from scanner_jax.types import Box, ImageObject

SIZES = {"p1": (60, 40), "p2": (40, 60), "p3": (60, 40), "p4": (90, 31), "p5": (40, 60), "p6": (200, 9), "p7": (1, 1)}
BROKEN = {"broken": "cut short or damaged", "empty": "empty file", "page": "not an image"}


def draw(seed: int, size: tuple[int, int]) -> Image.Image:
    """Something that differs from image to image."""
    image = Image.new("RGB", size, (37 * seed % 256, 91 * seed % 256, 150))
    pen = ImageDraw.Draw(image)
    for number in range(4):
        x, y = (seed * 13 + number * 17) % size[0], (seed * 7 + number * 11) % size[1]
        pen.ellipse((x, y, x + size[0] // 3, y + size[1] // 3), fill=(60 * number, 255 - 50 * number, 29 * seed % 256))
    return image


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, one in RGBA under another name, and three that are none."""
    folder = tmp_path_factory.mktemp("photos")
    for seed, (name, size) in enumerate(SIZES.items()):
        draw(seed, size).save(folder / f"{name}.png")
    draw(9, SIZES["p3"]).convert("RGBA").save(folder / "p3.jpg", "PNG")
    (folder / "p3.png").unlink()
    (folder / "broken.png").write_bytes((folder / "p4.png").read_bytes()[:-50])
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html>gone</html>")
    return folder


@pytest.fixture(scope="module")
def blip2(transformers: ModuleType, tiny_experts: Path) -> Any:
    """Captions an image as the documentation of transformers does."""
    folder = tiny_experts / "blip2"
    processor = transformers.Blip2Processor.from_pretrained(folder)
    model = transformers.Blip2ForConditionalGeneration.from_pretrained(folder)

    def caption(image: Image.Image, beams: int) -> str:
        inputs = processor(images=image, return_tensors="pt")
        written = model.generate(**inputs, num_beams=beams, max_new_tokens=30, do_sample=False)
        return cut_repetition(processor.batch_decode(written, skip_special_tokens=True)[0].strip())

    return caption


def command(name: str, images: Path, store: Path, model: Path, *more: str) -> int:
    return main([name, str(images), str(store), "--model", str(model), *more])


def captions(store: Path) -> dict[str, str]:
    opened = Store.open(store)
    return {key: opened.caption(key) or "" for key in opened.keys("captions")}


def test_captions(
    photos: Path, tiny_experts: Path, blip2: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("captions", photos, tmp_path, tiny_experts / "blip2", "--batch-size", "4") == 0
    said = capsys.readouterr().out
    assert f"captions of 7 images -> {tmp_path / 'captions'}" in said and "images a second" in said
    assert "failed: 3" in said and "not an image: 1 (page)" in said
    found = captions(tmp_path)
    assert found == {name: blip2(read_image(next(photos.glob(f"{name}.*"))), 5) for name in SIZES}
    assert len(set(found.values())) > 3  # they depend on the image
    provenance = Store.open(tmp_path).provenance("captions")
    expected = {"expert": "BLIP-2", "model": "blip2", "precision": "fp32", "prompt": "", "beams": 5, "images": 10}
    assert expected.items() <= provenance.items()
    assert provenance["revision"].startswith("sha256:")
    assert {place: reason for reason, places in provenance["places"].items() for place in places} == BROKEN
    assert provenance["counts"] == dict.fromkeys(BROKEN.values(), 1)
    assert command("captions", photos, tmp_path, tiny_experts / "blip2") == 0
    assert "made of these images with these settings already" in capsys.readouterr().out


def test_what_a_text_goes_on_from_is_no_part_of_it(photos: Path, tiny_experts: Path, tmp_path: Path) -> None:
    for prompt in ("", "a photo of"):
        more = ["--prompt", prompt, "--beams", "1", "--max-new-tokens", "5"]
        assert command("captions", photos, tmp_path / (prompt or "none"), tiny_experts / "blip2", *more) == 0
    plain, prompted = captions(tmp_path / "none"), captions(tmp_path / "a photo of")
    assert plain != prompted and plain.keys() == prompted.keys()
    assert not any(text.startswith("a photo of") for text in prompted.values())
    assert max(len(text.split()) for text in prompted.values()) == 5


def test_memory_that_runs_out_halves_the_batch(
    photos: Path,
    tiny_experts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sizes, generate = [], Captioner._generate

    def limited(self: Captioner, pixels: Sequence[torch.Tensor]) -> list[str]:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(self, pixels)

    more = ("--beams", "1", "--max-new-tokens", "5")
    assert command("captions", photos, tmp_path / "plenty", tiny_experts / "blip2", *more) == 0
    monkeypatch.setattr(Captioner, "_generate", limited)
    assert command("captions", photos, tmp_path / "little", tiny_experts / "blip2", *more, "--batch-size", "5") == 0
    assert sizes == [5, 2, 2, 1, 2]  # of 5 and 2 images: it is not tried with 5 again
    assert captions(tmp_path / "little") == captions(tmp_path / "plenty")
    assert "memory ran out with a batch of 5; going on with 2" in caplog.text


def test_memory_for_not_even_one(
    photos: Path,
    tiny_experts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def never(self: Captioner, pixels: Sequence[torch.Tensor]) -> list[str]:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: ...")

    monkeypatch.setattr(Captioner, "_generate", never)
    assert command("captions", photos, tmp_path, tiny_experts / "blip2") == 1
    assert "memory ran out with a batch of one; take a smaller model" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dfine", "detr"])
def test_objects(
    name: str, transformers: ModuleType, photos: Path, tiny_experts: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = tiny_experts / name
    for size in ("1", "4"):
        assert command("objects", photos, tmp_path / size, folder, "--batch-size", size) == 0
        assert "failed: 3" in capsys.readouterr().out
    one, four = Store.open(tmp_path / "1"), Store.open(tmp_path / "4")
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    model = transformers.AutoModelForObjectDetection.from_pretrained(folder)
    for key, size in SIZES.items():
        found, again = four.objects(key), one.objects(key)
        assert [item.label for item in found] == [item.label for item in again]
        np.testing.assert_allclose([item.box for item in found], [item.box for item in again], atol=1e-3)
        width, height = size
        for x1, y1, x2, y2 in (item.box for item in found):
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        scores = [item.score for item in found]
        assert scores == sorted(scores, reverse=True) and len(found) <= MOST

        image = read_image(next(photos.glob(f"{key}.*")))
        with torch.inference_mode():
            outputs = model(**processor(images=image, return_tensors="pt"))
        best = processor.post_process_object_detection(outputs, threshold=0.0, target_sizes=[(height, width)])[0]
        top = int(best["scores"].argmax())
        assert found[0].score == pytest.approx(float(best["scores"][top]), abs=1e-5)
        assert found[0].label == model.config.id2label[int(best["labels"][top])]
    assert four.provenance("objects")["score"] == 0.2 and four.provenance("objects")["precision"] == "fp32"


def test_which_boxes_are_kept() -> None:
    def objects(*scores: float) -> list[ImageObject]:
        return [ImageObject((number, 0.0, number + 1.0, 5.0), "car", score) for number, score in enumerate(scores)]

    size = (1000, 1000)
    assert keep_best(objects(0.3, 0.9, 0.1), size) == [objects(0.3, 0.9, 0.1)[place] for place in (1, 0, 2)]
    assert len(keep_best(objects(*[0.19] * 50), size)) == FEWEST
    assert len(keep_best(objects(*[0.2] * 15, *[0.1] * 50), size)) == 15
    assert len(keep_best(objects(*[0.2] * 5, *[0.1] * 50), size)) == FEWEST
    assert len(keep_best(objects(*[0.9] * 150), size)) == MOST
    odd = [
        ImageObject((-5.0, -5.0, 30.0, 30.0), "sky", 0.9),
        ImageObject((-5.0, -5.0, 30.0, 30.0), "lake", 0.8),
        ImageObject((25.0, 3.0, 30.0, 9.0), "outside", 0.7),
        ImageObject((3.0, 3.0, 3.0, 9.0), "line", 0.7),
        ImageObject((3.0, 3.0, 9.0, 9.0), "nothing", float("nan")),
    ]
    assert keep_best(odd, (20, 10)) == [ImageObject((0.0, 0.0, 20.0, 10.0), "sky", 0.9)]


BOXES: dict[str, list[Box]] = {
    "p1": [(0.0, 0.0, 60.0, 40.0), (3.2, 5.5, 30.1, 39.9), (10.0, 10.0, 10.4, 30.0)],
    "p2": [(5.0, 5.0, 35.0, 50.0)],
    "p4": [],
    "page": [(0.0, 0.0, 5.0, 5.0)],
    "gone": [(0.0, 0.0, 5.0, 5.0)],
    "p5": [(float(x), 0.0, x + 20.0, 30.0) for x in range(12)],
}


def write_boxes(store: Path, boxes: dict[str, list[Box]]) -> None:
    records = ((key, objects_value(ImageObject(box, "thing", 0.5) for box in found)) for key, found in boxes.items())
    write_kind(store, "objects", records, {})


def test_regions(
    photos: Path, tiny_experts: Path, blip2: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_boxes(tmp_path, BOXES)
    assert command("regions", photos, tmp_path, tiny_experts / "blip2", "--batch-size", "5") == 0
    said = capsys.readouterr().out
    assert "regions of 4 images" in said
    assert "no such image in the folder: 1 (gone)" in said and "not an image: 1 (page)" in said
    store = Store.open(tmp_path)
    for key in ("p1", "p2", "p4", "p5"):
        image = read_image(photos / f"{key}.png")
        cut = [crop(image, box) for box in BOXES[key]]
        expected = ["" if region is None else blip2(region, 1) for region in cut]
        assert [item.caption for item in store.objects(key)] == expected
    assert store.objects("p1")[2].caption == ""
    assert store.provenance("regions")["objects"] == store.fingerprint(("objects",))

    write_boxes(tmp_path, {**BOXES, "p2": [(6.0, 5.0, 35.0, 50.0)]})
    with pytest.raises(ValueError, match="image p2 has other boxes since; make it again"):
        Store.open(tmp_path).objects("p2")
    assert command("regions", photos, tmp_path, tiny_experts / "blip2") == 0
    assert Store.open(tmp_path).objects("p2")[0].caption


def test_regions_need_objects(
    photos: Path, tiny_experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kind(tmp_path, "captions", [("p1", {"text": "a lake"})], {})
    assert command("regions", photos, tmp_path, tiny_experts / "blip2") == 1
    assert "holds no objects (it holds: captions)" in capsys.readouterr().err


def test_no_image_at_all(tiny_experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").touch()
    for _ in range(2):
        assert command("captions", tmp_path / "images", tmp_path / "store", tiny_experts / "blip2") == 1
        captured = capsys.readouterr()
        assert "has a value; " in captured.err and "empty file: 1 (1)" in captured.out
    assert command("captions", tmp_path / "nowhere", tmp_path / "store", tiny_experts / "blip2") == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_half_precision_runs(photos: Path, tiny_experts: Path, tmp_path: Path) -> None:
    more = ("--precision", "bf16", "--beams", "1", "--max-new-tokens", "3")
    assert command("captions", photos, tmp_path, tiny_experts / "blip2", *more) == 0
    assert command("objects", photos, tmp_path, tiny_experts / "dfine", "--precision", "bf16") == 0
    assert Store.open(tmp_path).provenance("captions")["precision"] == "bf16"


def test_a_model_of_the_hub(
    photos: Path, tiny_experts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    cache, commit = tmp_path / "cache" / "models--someone--tiny-detr", "c0ffee" + 34 * "0"
    shutil.copytree(tiny_experts / "detr", cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    store = tmp_path / "store"
    for more in ([], ["--revision", "main"], ["--revision", commit]):
        assert main(["objects", str(photos), str(store), "--model", "someone/tiny-detr", *more]) == 0
        provenance = Store.open(store).provenance("objects")
        assert (provenance["model"], provenance["revision"]) == ("someone/tiny-detr", commit)
    assert capsys.readouterr().out.count("made of these images with these settings already") == 2
    assert main(["objects", str(photos), str(store), "--model", "someone/tiny-detr", "--revision", "v2"]) == 1
    assert "the Hugging Face hub did not give it" in capsys.readouterr().err


def damaged(model: Path, folder: Path, **config: Any) -> Path:
    """A copy of a model with other settings."""
    shutil.copytree(model, folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


def test_models_that_cannot_be_had(
    photos: Path, tiny_experts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blip = tiny_experts / "blip2"
    pickled = damaged(blip, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    numbers = {str(number): f"LABEL_{number}" for number in range(10)}
    nameless = damaged(tiny_experts / "dfine", tmp_path / "nameless", id2label=numbers)
    larger = json.loads((blip / "config.json").read_text())["text_config"] | {"num_hidden_layers": 3}
    lacking = damaged(blip, tmp_path / "lacking", text_config=larger)
    cases = [
        ("captions", ["--model", str(tmp_path / "nowhere")], "no such folder; give a folder with config.json"),
        ("captions", ["--model", "Salesforce/blip2-opt-2.7b"], "the Hugging Face hub did not give it"),
        ("captions", ["--model", str(blip), "--revision", "v1"], "is a folder; revisions are the hub's"),
        ("captions", ["--model", str(blip), "--device", "toaster"], "--device toaster: "),
        ("captions", ["--model", str(blip), "--device", "cuda:77"], "--device cuda:77: "),
        ("captions", ["--model", str(pickled)], "cannot be loaded: "),
        ("captions", ["--model", str(tiny_experts / "detr")], "cannot be loaded: "),
        ("captions", ["--model", str(damaged(blip, tmp_path / "old", image_token_index=None))], "no image_token_index"),
        (
            "captions",
            ["--model", str(lacking)],
            "its files lack 16 weights, such as language_model.model.d",
        ),
        ("objects", ["--model", str(blip)], "cannot be loaded: "),
        ("objects", ["--model", str(nameless)], "does not name its classes"),
    ]
    for name, more, said in cases:
        assert main([name, str(photos), str(tmp_path / "store"), *more]) == 1, more
        answer = capsys.readouterr().err
        assert answer.startswith("error: ") and said in answer, (more, answer)
        assert "Traceback" not in answer
        shutil.rmtree(tmp_path / "store", ignore_errors=True)


def test_a_torchvision_that_does_not_fit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # its import fails
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    (tmp_path / "model").mkdir()
    assert command("objects", photos, tmp_path / "store", tmp_path / "model") == 1
    said = capsys.readouterr().err
    assert "torchvision does not fit torch 2.13.0+cpu: install torchvision 0.28, the cpu build; both in" in said
    assert "pip install torch==2.13.0 torchvision" in said


def test_wrong_command_lines(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (["--shard", "3/2"], ["--batch-size", "0"], ["--precision", "int1"]):
        with pytest.raises(SystemExit) as caught:
            main(["captions", str(photos), str(tmp_path), *more])
        assert caught.value.code == 2 and more[0] in capsys.readouterr().err
    for name in ("captions", "objects", "regions", "merge"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"python -m scanner_jax.knowledge {name} " in capsys.readouterr().out
