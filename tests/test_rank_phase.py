"""The recipe's phase `rank`: prompts hold the objects in CLIP's order, and the report says for how many candidates."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torchvision_shim
from ml_collections import ConfigDict
from tiny_recipe import write_world

from scanner_jax import ranking, stages
from scanner_jax.files import read_json, read_json_lines
from scanner_jax.inputs import InputError, Inputs, open_inputs
from scanner_jax.metrics import metrics_table
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.recipe import recipe_steps, run_recipe
from scanner_jax.report import write_report
from scanner_jax.retrieval import KnowledgeSources, Orders, ordered_by, retrieve
from scanner_jax.runs import Run
from scanner_jax.store import Store, box_digest, objects_value, write_kind
from scanner_jax.types import Example, ImageObject, Span

MAX_OBJECTS, OBJECTS, WITH_VECTORS = 3, 6, 34


def untrained_detector(detection: Any, *, encoder_params: Any, **rest: Any) -> Any:
    return init_detector(detection.encoder, encoder_params, jax.random.key(0))


def untrained_recognizer(recognition: Any, *, encoder_params: Any, **rest: Any) -> Any:
    return init_recognizer(recognition.encoder, encoder_params, jax.random.key(0), num_types=len(recognition.classes))


def write_vectors(store: Path, model: str, text_tower: str) -> None:
    """Vectors of the first images' boxes, drawn at random, as if this model had made them."""
    rng, opened = np.random.default_rng(5), Store.open(store)
    records = []
    for key in list(opened.keys("objects"))[:WITH_VECTORS]:
        vectors = rng.normal(size=(OBJECTS, 8))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        boxes = box_digest(item.box for item in opened.objects(key))
        records.append((key, {"vectors": vectors.astype("<f2").tobytes(), "width": 8, "boxes": boxes}))
    write_kind(store, "clip", records, {"model": model, "text_tower": text_tower})


def write_objects(store: Path, *, shift: float = 0.0) -> None:
    def objects(number: int) -> list[ImageObject]:
        return [ImageObject((shift, 0.0, number + 1.0, place + 1.0), "dog", 0.9) for place in range(OBJECTS)]

    write_kind(store, "objects", [(str(number), objects_value(objects(number))) for number in range(38)], {})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Any, tiny_clip: Callable[..., Path]) -> ConfigDict:
    from scanner_jax.knowledge.clip import load_clip

    config = write_world(tmp_path_factory.mktemp("world"), tiny_encoder).copy_and_resolve_references()
    config.unlock()
    config.knowledge.update(use_objects=True, use_clip_order=True)
    config.recognizer.update(max_objects=MAX_OBJECTS, max_tokens=96)
    config.tyt.update(detector=False)  # one phase less
    store, model = Path(config.knowledge.store), str(tiny_clip())
    write_objects(store)
    write_vectors(store, model, load_clip(model).text_tower)
    return config.lock()


@pytest.fixture(scope="module", autouse=True)
def own_processes() -> Iterator[None]:
    """The phase's own process also where torchvision does not fit torch; nothing is trained in this file."""
    run = subprocess.run

    def shimmed(command: Sequence[str], **options: Any) -> Any:
        here = {"PYTHONPATH": str(Path(ranking.__file__).parent.parent)}
        return run([command[0], torchvision_shim.__file__, *command[1:]], env=os.environ | here, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "subprocess", SimpleNamespace(run=shimmed, DEVNULL=subprocess.DEVNULL))
        patch.setattr(stages, "train_detector", untrained_detector)
        patch.setattr(stages, "train_recognizer", untrained_recognizer)
        yield


@pytest.fixture(scope="module")
def finished(world: ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("run")
    inputs = open_inputs(world, prepared=folder / "prepared")
    run = Run(config=world, inputs=inputs, root=folder / "phases")
    return run, run_recipe(run)


def changed(world: ConfigDict, **values: Any) -> ConfigDict:
    copy = world.copy_and_resolve_references()
    copy.unlock()
    copy.update_from_flattened_dict({name.replace("__", "."): value for name, value in values.items()})
    return copy.lock()


def hashes(config: ConfigDict, inputs: Inputs) -> dict[str, str]:
    steps = recipe_steps(Run(config=config, inputs=inputs, root=Path()))
    return {name: step.phase.hash for name, step in steps.items()}


def numpy_order(store: Store, model: str, image: str, text: str) -> list[int] | None:
    from scanner_jax.knowledge.clip import load_clip

    vectors = store.vectors(image)
    if vectors is None:
        return None
    similar = vectors.astype(np.float64) @ load_clip(model).encode_texts([text])[0]
    return sorted(range(len(vectors)), key=lambda place: -round(float(similar[place]), 6))


def test_the_phase_stands_between_candidates_and_recognizers(finished: tuple[Run, dict[str, Any]]) -> None:
    steps = recipe_steps(finished[0])
    names = list(steps)
    assert names.index("candidates") + 1 == names.index("rank") == names.index("recognizer-teacher") - 1
    for name in ("recognizer-teacher", "recognizer-student"):
        assert "rank" in [parent.name for parent in steps[name].phase.parents]


def test_prompts_hold_the_best_of_all_boxes(finished: tuple[Run, dict[str, Any]], tmp_path: Path) -> None:
    run, metrics = finished
    write_report(tmp_path, run, metrics)
    store, knowledge = run.inputs.sources.store, run.config.knowledge
    assert store is not None
    model = store.provenance("clip")["model"]
    images = {example.id: example.image_id for example in run.inputs.test}
    orders: Counter[str] = Counter()
    moved = 0
    prompts = read_json_lines(tmp_path / "prompts.jsonl")
    for record in prompts:
        image = images[record["id"]]
        assert image is not None
        order = numpy_order(store, model, image, knowledge.clip_template.replace("{}", record["text"]))
        objects = store.objects(image)
        best = [objects[place] for place in order or range(len(objects))][:MAX_OBJECTS]
        assert [tuple(item["box"]) for item in record["objects"]] == [item.box for item in best]
        moved += best != list(objects[:MAX_OBJECTS])
        orders[record["object_order"]] += 1
        wanted = "detector score" if order is None else "CLIP similarity"
        assert record["object_order"] == (wanted if objects else "")
    assert moved and orders["CLIP similarity"] and orders["detector score"]
    told = metrics["recognizer"]["test"]["candidates"]["object_order"]
    assert told == {"CLIP similarity": orders["CLIP similarity"], "detector score": orders["detector score"]}
    line = f"CLIP similarity {orders['CLIP similarity']}, detector score {orders['detector score']}"
    assert line in metrics_table(metrics)


def test_every_split_is_ordered(finished: tuple[Run, dict[str, Any]]) -> None:
    run, _ = finished
    folder = recipe_steps(run)["rank"].phase.folder(run.root)
    result = read_json(folder / "result.json")
    assert set(result) == {"train", "dev", "test"}
    assert result["train"]["CLIP similarity"] >= sum(len(example.entities) for example in run.inputs.training)
    queries = read_json_lines(folder / "queries.jsonl")
    asked = [(query["image"], query["text"]) for query in queries]
    assert len(asked) == len(set(asked))
    assert [(line["image"], line["text"]) for line in read_json_lines(folder / "orders.jsonl")] == asked


def test_a_finished_phase_is_left_and_an_interrupted_one_goes_on(
    finished: tuple[Run, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, metrics = finished
    monkeypatch.setattr(ranking.subprocess, "run", lambda *_, **__: pytest.fail("the phase was run again"))
    assert run_recipe(run) == metrics

    phase = recipe_steps(run)["rank"].phase
    folder = phase.folder(run.root)
    result, orders = read_json(folder / "result.json"), (folder / "orders.jsonl").read_bytes()
    for name in ("result.json", "checksums.json", "orders.jsonl"):
        (folder / name).unlink()
    begun = folder / "orders.jsonl.part"  # the command's own, which goes on from there
    begun.mkdir()

    def command(arguments: Sequence[str], **options: Any) -> Any:
        assert begun.is_dir() and arguments[3:] == [
            "rank",
            run.config.knowledge.store,
            str(folder / "queries.jsonl"),
            str(folder / "orders.jsonl"),
            "--template=a photo of {}",
        ]
        (folder / "orders.jsonl").write_bytes(orders)
        begun.rmdir()
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(ranking.subprocess, "run", command)
    assert run_recipe(run) == metrics
    assert read_json(folder / "result.json") == result


def test_what_the_order_depends_on_reruns_the_phase(
    finished: tuple[Run, dict[str, Any]], world: ConfigDict, tmp_path: Path, tiny_clip: Callable[..., Path]
) -> None:
    inputs = finished[0].inputs
    before = hashes(world, inputs)
    ranked = {"rank", "recognizer-teacher", "recognizer-student"}

    def rerun(config: ConfigDict, inputs: Inputs) -> set[str]:
        after = hashes(config, inputs)
        return {name for name in before if before[name] != after.get(name)}

    assert rerun(changed(world, knowledge__clip_template="{}"), inputs) == ranked
    assert rerun(changed(world, knowledge__clip_model="elsewhere"), inputs) == set()  # the vectors' own in any place
    store = tmp_path / "store"
    write_kind(store, "captions", [("0", {"text": "a photo of a place"})], {})
    write_objects(store)
    for text_tower in ("one", "two"):
        write_vectors(store, "m", text_tower)
        config = changed(world, knowledge__store=str(store), knowledge__use_captions=False)
        after = hashes(config, open_inputs(config, prepared=tmp_path))
        assert after["candidates"] == before["candidates"] and after["rank"] != before["rank"]
        before = after

    without = changed(world, knowledge__use_clip_order=False)
    assert "rank" not in hashes(without, open_inputs(without, prepared=tmp_path))
    without = changed(world, knowledge__use_objects=False)
    assert "rank" not in hashes(without, open_inputs(without, prepared=tmp_path))


def test_a_failing_command_is_shown(
    finished: tuple[Run, dict[str, Any]], world: ConfigDict, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = finished
    config = changed(world, knowledge__clip_model="elsewhere", knowledge__clip_template="see {}")
    monkeypatch.setattr(ranking.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(ranking.RankError, match="knowledge rank .*--template=see .*--model=elsewhere") as caught:
        run_recipe(Run(config=config, inputs=run.inputs, root=run.root), until="rank")
    assert "status 1" in str(caught.value) and "knowledge.clip_model=NAME" in str(caught.value)


def test_what_would_stop_the_phase_is_said_before_the_recipe_starts(world: ConfigDict, tmp_path: Path) -> None:
    store = tmp_path / "store"
    write_objects(store)
    config = changed(world, knowledge__store=str(store), knowledge__use_captions=False)

    def said() -> str:
        with pytest.raises(InputError) as caught:
            open_inputs(config, prepared=tmp_path)
        return str(caught.value)

    command = f"python -m scanner_jax.knowledge clip IMAGES {store}"
    assert "lacks clip" in said() and command in said() and "use_clip_order=False takes the detector's" in said()
    write_vectors(store, "m", "t")
    open_inputs(config, prepared=tmp_path)
    write_objects(store, shift=0.5)
    assert "has other boxes since" in said() and command in said()
    write_objects(store)
    write_kind(store, "clip", [], {"model": "m"})
    assert "does not say which text tower" in said() and command in said()
    config = changed(config, knowledge__clip_template="a photo")
    assert "knowledge.clip_template='a photo': expected {} once" in said()


def test_orders_apply_per_image_and_surface(tmp_path: Path) -> None:
    objects = [ImageObject((0.0, 0.0, 1.0, place + 1.0), "dog", 0.9) for place in range(3)]
    write_kind(tmp_path, "objects", [("7", objects_value(objects)), ("8", objects_value([]))], {})
    sources = KnowledgeSources(store=Store.open(tmp_path), use_objects=True, use_clip_order=True)
    first, second = Example("a", ("Ada", "and", "Bo"), image_id="7"), Example("b", ("Ada",), image_id="8")
    candidates = [(first, Span(0, 1)), (first, Span(2, 3)), (second, Span(0, 1))]
    orders: Orders = {("7", "Ada"): [2, 0, 1], ("7", "Bo"): None}
    known = retrieve(sources, candidates, orders)
    assert [one.objects for one in known] == [(objects[2], objects[0], objects[1]), tuple(objects), ()]
    assert ordered_by(known) == {"CLIP similarity": 1, "detector score": 1}
    assert ordered_by(retrieve(sources, candidates)) == {"detector score": 2}
