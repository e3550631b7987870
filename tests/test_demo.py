"""The demo's world: what is generated is the same for the same seed, and keeps what the demo promises."""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defusedxml import ElementTree
from PIL import Image

from scanner_jax.convert import load_config
from scanner_jax.corpora import read_corpus
from scanner_jax.demo import __main__ as command
from scanner_jax.demo.build import DemoError, build
from scanner_jax.demo.corpus import PAGE_SHARE, Corpus, Sizes, invent_world, make_corpus
from scanner_jax.demo.pretraining import Text, collate_texts, masked_lm_loss, pretraining_texts
from scanner_jax.demo.scenes import CLUTTER, SHAPES, SIZE, detect, draw, make_scene
from scanner_jax.demo.tweets import add_noise
from scanner_jax.demo.world import KINDS, World, encyclopedia
from scanner_jax.encoder import init_encoder
from scanner_jax.inputs import open_inputs
from scanner_jax.metrics import surfaces
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import Entity, Example

SMALL = Sizes(
    train=60, dev=20, test=40, known=25, new_dev=8, new_test=20, background=20, slang=10, pretraining_texts=32
)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def config(*variant: str):
    path = Path(__file__).parent.parent / "configs" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "demo"
    build(folder, seed=3, sizes=SMALL)
    return folder


@pytest.fixture(scope="module")
def full() -> tuple[World, Corpus]:
    """The demo as it is, without its files."""
    world = invent_world(seed=1, sizes=Sizes())
    return world, make_corpus(world, seed=1, sizes=Sizes())


def examples(corpus: Corpus, split: str) -> list[Example]:
    return [tweet.example for tweet in corpus.splits[split]]


def test_the_same_seed_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    assert build(tmp_path / "again", seed=3, sizes=SMALL)[1]
    assert files(tmp_path / "again") == files(built)
    assert not list(built.parent.glob(".building-*"))


def test_another_seed_gives_another_world() -> None:
    names = [{thing.name for thing in invent_world(seed=seed, sizes=SMALL).things} for seed in (1, 2)]
    assert len(names[0] & names[1]) < 0.1 * len(names[0])


def test_what_stands_is_not_built_again(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {name: (built / name).stat().st_mtime_ns for name in files(built)}
    description, anew = build(built, seed=3, sizes=SMALL)
    assert not anew and description == json.loads((built / "demo.json").read_text())
    assert {name: (built / name).stat().st_mtime_ns for name in files(built)} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(DemoError, match="holds something else"):
        build(tmp_path, seed=1, sizes=SMALL)
    assert command.main(["build", str(tmp_path)]) == 1
    assert "name another folder, such as prepared/demo" in capsys.readouterr().err
    assert files(tmp_path) == {"letter.txt": b"dear"}


def test_the_recipe_opens_it(built: Path, tmp_path: Path) -> None:
    for variant, kinds in (("", ("captions", "objects", "wikipedia")), ("without-knowledge", ())):
        settings = config(variant).copy_and_resolve_references()
        settings.update(corpus=str(built / "tweets"), encoder=str(built / "encoder"))
        settings.knowledge.update(store=str(built / "knowledge"), wikipedia_index=str(built / "wikipedia.sqlite"))
        inputs = open_inputs(settings, prepared=tmp_path)
        assert inputs.sources.used == kinds
        assert inputs.corpus.types == ("LOC", "ORG", "OTHER", "PER")
        assert [len(inputs.by_use[split]) for split in ("train", "dev", "test")] == [60, 20, 40]
    tokenizer = inputs.encoder.tokenizer
    ids = tokenizer.text("Zorquaxo is \u2603 <mask>")
    assert tokenizer.unknown not in ids and tokenizer.mask not in ids
    assert tokenizer.backend.decode(ids).strip() == "Zorquaxo is \u2603 <mask>"


def test_it_is_read_back_as_it_was_made(built: Path) -> None:
    world = invent_world(seed=3, sizes=SMALL)
    made = make_corpus(world, seed=3, sizes=SMALL)
    read = read_corpus(built / "tweets")
    for split, found in read.splits.items():
        assert list(found) == examples(made, split)  # boxes included
    assert not [warning for warning in read.warnings if "xml/" in warning]


def test_boxes_are_named_by_entities_and_lie_in_their_pictures(built: Path) -> None:
    made = make_corpus(invent_world(seed=3, sizes=SMALL), seed=3, sizes=SMALL)
    expected = {
        example.id: {(example.surface(entity), box) for entity in example.entities for box in entity.boxes}
        for split in made.splits
        for example in examples(made, split)
    }
    found = {path.stem: named_boxes(path) for path in (built / "tweets" / "xml").glob("*.xml")}
    assert found == {name: boxes for name, boxes in expected.items() if boxes}
    for name, boxes in found.items():
        with Image.open(built / "tweets" / "images" / f"{name}.png") as picture:
            width, height = picture.size
        assert all(0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height for _, (x1, y1, x2, y2) in boxes)


def named_boxes(path: Path) -> set[tuple[str, tuple[int, ...]]]:
    """The names and boxes of a Pascal VOC file."""
    return {
        (
            item.findtext("name"),
            tuple(int(item.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")),
        )
        for item in ElementTree.parse(path).getroot().iter("object")
    }


def test_a_club_is_several_people_in_a_picture(full: tuple[World, Corpus]) -> None:
    boxes = [len(entity.boxes) for example in examples(full[1], "test") for entity in example.entities]
    assert max(boxes) == 3 and boxes.count(0) > 0.25 * len(boxes)


def test_one_label_in_ten_is_wrong_and_only_in_training(full: tuple[World, Corpus]) -> None:
    world, corpus = full
    types = {thing.name: thing.type for thing in world.things}
    wrong = {split: wrong_labels(examples(corpus, split), types) for split in corpus.splits}
    assert wrong["dev"] == wrong["test"] == 0
    by_kind = {kind: sum(item.kind == kind for item in corpus.noise) for kind in ("type", "missed", "boundary")}
    assert wrong["train"] == by_kind["type"] + by_kind["boundary"]
    labels = sum(len(example.entities) for example in examples(corpus, "train")) + by_kind["missed"]
    assert len(corpus.noise) == round(0.1 * labels)
    assert by_kind["type"] > by_kind["missed"] > 0 and by_kind["boundary"] > 0


def wrong_labels(found: Sequence[Example], types: dict[str, str]) -> int:
    """Labels that no name of the world, or one of another type, stands behind."""
    return sum(types.get(example.surface(entity)) != entity.type for example in found for entity in example.entities)


def test_noise_never_makes_labels_overlap() -> None:
    example = Example(
        "1", ("Sul", "and", "Vo", "Rit", ",", "Ka"), (Entity(0, 1, "PER"), Entity(2, 4, "LOC"), Entity(5, 6, "ORG"))
    )
    for seed in range(30):
        noisy, done = add_noise(random.Random(seed), [example] * 8, share=1.0, types=["PER", "LOC", "ORG"])
        assert len(done) == 24
        for found in noisy:
            taken = [word for entity in found.entities for word in range(entity.start, entity.end)]
            assert len(taken) == len(set(taken)) and all(word < 6 for word in taken)
            assert [entity.start for entity in found.entities] == sorted(entity.start for entity in found.entities)


def test_unseen_names_never_stand_in_training_or_pretraining(full: tuple[World, Corpus]) -> None:
    world, corpus = full
    known = surfaces(examples(corpus, "train"))
    read = {word for example in examples(corpus, "train") for word in example.words}
    read |= {word for text in pretraining_texts(world, seed=1, count=300) for word in text.split()}
    for split in ("dev", "test"):
        unseen = {example.surface(entity) for example in examples(corpus, split) for entity in example.entities} - known
        assert unseen <= {thing.name for thing in world.new[split]}
        assert not read & {word for name in unseen for word in name.split()}
        mentions = [entity for example in examples(corpus, split) for entity in example.entities]
        share = sum(
            example.surface(entity) in unseen for example in examples(corpus, split) for entity in example.entities
        ) / len(mentions)
        assert 0.5 < share < 0.7


def test_most_unseen_names_have_a_page_that_tells_their_type(full: tuple[World, Corpus]) -> None:
    world, _ = full
    pages = dict(encyclopedia(world, seed=1, coverage=PAGE_SHARE))
    covered = [thing for thing in world.new["test"] if thing.name in pages]
    assert 0.7 < len(covered) / len(world.new["test"]) < 0.9
    assert all(f" {thing.kind} " in pages[thing.name] and thing.kind in KINDS[thing.type] for thing in covered)


def test_a_model_that_knows_nothing_has_the_vocabularys_entropy(built: Path) -> None:
    config, tokenizer = load_config(built / "encoder"), load_tokenizer(built / "encoder")
    zeros = jax.tree.map(jnp.zeros_like, {"encoder": init_encoder(config, jax.random.key(0))})
    ids = np.array([tokenizer.start, *tokenizer.text("nothing but Zorqua on the news"), tokenizer.end], np.int32)
    batch = jax.tree.map(jnp.asarray, collate_texts([Text(ids)], batch_size=2))
    bias = jnp.zeros(config.vocab_size).at[tokenizer.pad].set(5.0)  # padding is never to be predicted
    loss = masked_lm_loss(config, tokenizer)(zeros | {"output": {"bias": bias}}, batch, jax.random.key(1))
    np.testing.assert_allclose(loss, np.log(config.vocab_size - 1 + np.exp(5.0)), rtol=1e-5)


def test_every_shape_can_be_drawn_and_found() -> None:
    assert {shape for kinds in KINDS.values() for shapes in kinds.values() for shape in shapes} <= set(SHAPES)
    things = invent_world(seed=1, sizes=SMALL).known
    rng = random.Random(0)
    for _ in range(50):
        named = rng.sample(things, 2)
        scene = make_scene(rng, named)
        assert draw(scene).size == SIZE
        for thing in named:
            assert all(0 <= x1 < x2 <= SIZE[0] and 0 <= y1 < y2 <= SIZE[1] for x1, y1, x2, y2 in scene.boxes(thing))
        shown = {item.shape for item in scene.items}
        assert {item.label for item in detect(rng, scene)} <= shown | set(CLUTTER)


def test_unknown_variants_name_the_known_one() -> None:
    with pytest.raises(ValueError, match="has no variant 'big': it has without-knowledge"):
        config("big")
