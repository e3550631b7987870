"""The commands `clip` and `rank`: vectors of boxes, and the objects' order by them against numpy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scanner_jax.files import read_json_lines, write_json_lines
from scanner_jax.knowledge.__main__ import main
from scanner_jax.store import Store, box_digest, objects_value, write_kind
from scanner_jax.types import Box, ImageObject

BOXES: dict[str, list[Box]] = {
    "kerr": [(0, 0, 20, 20), (5.5, 3.2, 40, 30), (0, 0, 20, 20), (10, 10, 60, 40), (70, 70, 90, 90)],  # one is outside
    "lake": [(0, 0, 30, 30), (12, 0, 30, 14)],
    "bare": [],
    "gone": [(0, 0, 5, 5)],  # has no file
}


@pytest.fixture(scope="module")
def model(tiny_clip: Callable[..., Path]) -> str:
    return str(tiny_clip())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for name, (high, wide) in {"kerr": (40, 60), "lake": (30, 30), "bare": (9, 9), "other": (5, 5)}.items():
        smooth = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8)).resize((wide, high))
        smooth.save(folder / f"{name}.png")
    return folder


def write_objects(store: Path) -> Path:
    objects = {key: [ImageObject(box, "dog", 0.5) for box in boxes] for key, boxes in BOXES.items()}
    write_kind(store, "objects", [(key, objects_value(found)) for key, found in objects.items()], {})
    return store


@pytest.fixture(scope="module")
def store(model: str, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_objects(tmp_path_factory.mktemp("store"))
    assert main(["clip", str(images), str(folder), "--model", model, "--batch-size=3"]) == 0
    return folder


def ask(folder: Path, pairs: Sequence[tuple[str, str]]) -> list[str]:
    write_json_lines(folder / "queries.jsonl", ({"image": image, "text": text} for image, text in pairs))
    return [str(folder / "queries.jsonl"), str(folder / "orders.jsonl")]


def test_every_box_gets_its_vector_in_float16(model: str, images: Path, store: Path) -> None:
    from scanner_jax.knowledge.clip import load_clip

    clip, opened = load_clip(model), Store.open(store)
    assert set(opened.keys("clip")) == {"kerr", "lake", "bare"}
    kerr = Image.open(images / "kerr.png")
    crops = [kerr.crop(box) for box in ((0, 0, 20, 20), (5, 3, 40, 30), (0, 0, 20, 20), (10, 10, 60, 40))]
    expected = [*clip.encode_images(crops), np.zeros(8, np.float32)]
    found = opened.vectors("kerr")
    assert found is not None and found.dtype == np.float16
    np.testing.assert_allclose(found, np.array(expected).astype(np.float16), atol=1e-3)
    value = opened.get("clip", "kerr")
    assert value == {"vectors": found.tobytes(), "width": 8, "boxes": box_digest(BOXES["kerr"])}
    bare = opened.vectors("bare")
    assert bare is not None and bare.shape == (0, 8)


def test_the_store_says_what_made_the_vectors(model: str, store: Path) -> None:
    from scanner_jax.knowledge.clip import load_clip

    provenance = Store.open(store).provenance("clip")
    assert provenance["model"] == Path(model).name and provenance["precision"] == "fp32"
    assert provenance["revision"].startswith("sha256:") and provenance["loaded_from"] == model
    assert provenance["text_tower"] == load_clip(model).text_tower
    assert provenance["places"] == {"no such image in the folder": ["gone"]}


def test_shards_may_have_the_model_in_different_places(
    model: str,
    store: Path,
    images: Path,
    tmp_path: Path,
    tiny_clip: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_objects(tmp_path / "store")
    elsewhere = tmp_path / "mounted" / Path(model).name
    elsewhere.parent.mkdir()
    elsewhere.symlink_to(model)
    assert main(["clip", str(images), str(folder), "--model", model, "--shard", "1/2"]) == 0
    assert main(["clip", str(images), str(folder), "--model", str(elsewhere), "--shard", "2/2"]) == 0
    assert main(["merge", str(folder), "clip"]) == 0
    assert Store.open(folder).fingerprint(("clip",)) == Store.open(store).fingerprint(("clip",))
    capsys.readouterr()
    assert main(["clip", str(images), str(folder), "--model", str(elsewhere)]) == 0
    assert "is made of these images with these settings already" in capsys.readouterr().out

    other = tmp_path / "other" / Path(model).name
    other.parent.mkdir()
    other.symlink_to(tiny_clip(seed=1))
    assert main(["clip", str(images), str(tmp_path / "store"), "--restart", "--model", model, "--shard", "1/2"]) == 0
    assert main(["clip", str(images), str(tmp_path / "store"), "--model", str(other), "--shard", "2/2"]) == 0
    assert main(["merge", str(folder), "clip"]) == 1
    assert "text_tower was" in capsys.readouterr().err


def test_orders_are_those_of_numpy(
    model: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from scanner_jax.knowledge.clip import Clip, load_clip

    clip, opened = load_clip(model), Store.open(store)
    texts = ["Steve Kerr", "Lake Tamsin", "the dog", "東京", "#reds", "2015", "a", "Mira"]
    pairs = [(image, text) for text in texts for image in ("kerr", "lake", "bare", "gone", "unknown")]
    encoded: list[str] = []
    encode = Clip.encode_texts

    def counted(self: Clip, given: Sequence[str]) -> np.ndarray:
        encoded.extend(given)
        return encode(self, given)

    monkeypatch.setattr(Clip, "encode_texts", counted)
    files = ask(tmp_path, [*pairs, *pairs[:3], ("gone", "no vectors")])
    assert main(["rank", str(store), *files, "--template=such is {}.", "--batch-size=3"]) == 0
    assert sorted(encoded) == sorted(f"such is {text}." for text in texts)
    answers = read_json_lines(tmp_path / "orders.jsonl")
    assert [(answer["image"], answer["text"]) for answer in answers] == [*pairs, *pairs[:3], ("gone", "no vectors")]
    differing = set()
    for answer in answers:
        vectors = opened.vectors(answer["image"])
        if vectors is None:
            assert answer["image"] in ("gone", "unknown") and answer["order"] is None
            continue
        similar = vectors.astype(np.float64) @ clip.encode_texts([f"such is {answer['text']}."])[0]
        keys = [(not vector.any(), -round(float(value), 6)) for vector, value in zip(vectors, similar, strict=True)]
        assert answer["order"] == sorted(range(len(vectors)), key=lambda place: keys[place])
        if answer["image"] == "kerr":
            assert answer["order"].index(0) < answer["order"].index(2)  # equal boxes, as the detector has them
            assert answer["order"][-1] == 4  # outside of the image
            differing.add(tuple(answer["order"]))
    assert len(differing) > 1
    assert "44 orders -> " in (said := capsys.readouterr().out)
    assert "null, as the image has no vectors: 17" in said
    assert not (tmp_path / "orders.jsonl.part").exists()


def test_a_stopped_run_goes_on(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scanner_jax.knowledge import ranking

    pairs = [("kerr", f"text {number}") for number in range(7)]
    files = ask(tmp_path, pairs)
    assert main(["rank", str(store), *files]) == 0
    whole = (tmp_path / "orders.jsonl").read_bytes()
    (tmp_path / "orders.jsonl").unlink()

    monkeypatch.setattr(ranking, "QUERIES_AT_ONCE", 2)
    orders = ranking.Ranker.orders
    asked: list[ranking.Query] = []

    def stopping(self: ranking.Ranker, queries: Sequence[ranking.Query]) -> list[list[int] | None]:
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.extend(queries)
        return orders(self, queries)

    monkeypatch.setattr(ranking.Ranker, "orders", stopping)
    with pytest.raises(KeyboardInterrupt):
        main(["rank", str(store), *files])
    (part,) = (tmp_path / "orders.jsonl.part").glob("*.jsonl")
    assert part.read_bytes() == b"".join(whole.splitlines(keepends=True)[:4])
    assert not (tmp_path / "orders.jsonl").exists()
    part.write_bytes(part.read_bytes()[:-9])  # as a power cut may leave it

    asked.clear()
    asked_again = asked
    monkeypatch.setattr(
        ranking.Ranker, "orders", lambda self, queries: asked_again.extend(queries) or orders(self, queries)
    )
    assert main(["rank", str(store), *files]) == 0
    assert (tmp_path / "orders.jsonl").read_bytes() == whole
    assert [query.text for query in asked_again] == ["text 3", "text 4", "text 5", "text 6"]
    # What was begun for other queries or with another template is not taken for these.
    assert main(["rank", str(store), *files, "--template=other {}"]) == 0
    assert len(asked_again) == 4 + 7


def test_show_has_the_order_for_a_span(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(store), *ask(tmp_path, [("kerr", "Mira")])]) == 0
    (answer,) = read_json_lines(tmp_path / "orders.jsonl")
    capsys.readouterr()
    assert main(["show", str(store), "kerr", "--span", "Mira", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [tuple(item["box"]) for item in found["objects"]] == [BOXES["kerr"][place] for place in answer["order"]]
    assert found["order"] == "CLIP's similarity to 'a photo of Mira'"
    assert main(["show", str(store), "gone", "--span", "Mira"]) == 0
    assert "in the order of the detector's score, as the image has no vectors" in capsys.readouterr().out
    write_objects(tmp_path / "store")
    assert main(["show", str(tmp_path / "store"), "kerr", "--span", "Mira"]) == 0
    assert f"no vectors of CLIP (python -m scanner_jax.knowledge clip IMAGES {tmp_path}" in capsys.readouterr().out


def test_another_text_tower_is_refused(
    model: str, store: Path, tmp_path: Path, tiny_clip: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from scanner_jax.knowledge.clip import load_clip

    other = str(tiny_clip(seed=1))
    assert main(["rank", str(store), *ask(tmp_path, [("kerr", "x")]), "--model", other]) == 1
    said = capsys.readouterr().err
    towers = (load_clip(model).text_tower, load_clip(other).text_tower)
    for word in (*towers, Path(model).name, "Pass --model", "clip_model"):
        assert word in said
    assert f"knowledge clip IMAGES {store} --model {other}" in said
    assert not (tmp_path / "orders.jsonl").exists()


def test_vectors_of_other_boxes_are_refused(
    model: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_objects(tmp_path / "store")
    assert main(["clip", str(images), str(store), "--model", model]) == 0
    write_kind(store, "objects", [("kerr", objects_value([ImageObject((0, 0, 9, 9), "dog", 0.5)]))], {})
    assert main(["rank", str(store), *ask(tmp_path, [("kerr", "x")])]) == 1
    assert f"kerr has other boxes since; make it again: python -m scanner_jax.knowledge clip IMAGES {store}" in (
        capsys.readouterr().err
    )


def test_what_queries_lack_is_said_by_line(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"image": "kerr", "text": "x"}\nnonsense\n{"image": 17, "text": "x"}\n[]\n{"image": "kerr"}\n')
    assert main(["rank", str(store), str(queries), str(tmp_path / "orders.jsonl")]) == 1
    said = capsys.readouterr().err
    for place, field in ((2, ""), (3, "'image'"), (4, "'image'"), (5, "'text'")):
        assert any(f"{queries}:{place}: " in line and field in line for line in said.splitlines())
    assert f"{queries}:1:" not in said and json.dumps({"image": "an id", "text": "a text"}) in said
    with pytest.raises(SystemExit):
        main(["rank", str(store), str(queries), "o", "--template=no braces"])
    assert "expected {} once" in capsys.readouterr().err


def test_a_gpu_that_jax_has_filled_is_left_alone(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    from scanner_jax.knowledge import ranking

    taken: list[torch.device] = []

    def load(name: str, *, device: torch.device, precision: str) -> Any:
        taken.append(device)
        raise ranking.ModelError("seen enough")

    monkeypatch.setattr(ranking, "load_clip", load)
    monkeypatch.setattr(ranking, "choose_device", lambda name: torch.device(name or "cuda"))
    for free, device in ((8 * 2**30, None), (2**30, None), (2**30, "cuda")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda chosen, free=free: (free, 80 * 2**30))
        with pytest.raises(ranking.ModelError):
            ranking.open_ranker(Store.open(store), device=device)
    assert [device.type for device in taken] == ["cuda", "cpu", "cuda"]
    assert "ranking on the CPU" in caplog.text


def test_a_store_without_vectors_names_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_objects(tmp_path / "store")
    assert main(["rank", str(store), *ask(tmp_path, [("kerr", "x")])]) == 1
    assert f"python -m scanner_jax.knowledge clip IMAGES {store}" in capsys.readouterr().err
