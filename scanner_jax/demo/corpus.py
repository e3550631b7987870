"""The demo's files: the corpus in Twitter-GMNER's layout, its pictures, the knowledge store and the encyclopedia."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from scanner_jax import wikipedia
from scanner_jax.demo.scenes import COLOURS, SIZE, Scene, caption, detect, draw
from scanner_jax.demo.tweets import Noise, Tweet, add_noise, make_tweets, noise_counts, split_things
from scanner_jax.demo.world import TYPE_WEIGHTS, Thing, World, encyclopedia, make_world
from scanner_jax.files import write_json_lines, write_text
from scanner_jax.metrics import surfaces
from scanner_jax.store import objects_value, write_kind
from scanner_jax.types import Entity, Example

NOISE_SHARE = 0.1
PAGE_SHARE = 0.8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is generated: tweets by split, things by where they may be named, and pretraining."""

    train: int = 800
    dev: int = 200
    test: int = 300
    known: int = 300
    new_dev: int = 120
    new_test: int = 180
    background: int = 400
    slang: int = 60
    pretraining_texts: int = 10240


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """The splits as they are written; the labels of `train` hold the noise."""

    splits: dict[str, list[Tweet]]
    noise: list[Noise]


def invent_world(*, seed: int, sizes: Sizes) -> World:
    return make_world(
        seed=seed,
        known=sizes.known,
        new_dev=sizes.new_dev,
        new_test=sizes.new_test,
        background=sizes.background,
        slang=sizes.slang,
        colours=list(COLOURS),
    )


def make_corpus(world: World, *, seed: int, sizes: Sizes) -> Corpus:
    """Write the tweets of all splits; dev and test name known things only where training labels them rightly once."""
    counts = {"train": sizes.train, "dev": sizes.dev, "test": sizes.test}
    ids = iter(str(100001 + number) for number in range(sum(counts.values())))
    splits: dict[str, list[Tweet]] = {}
    noise: list[Noise] = []
    things: Sequence[Thing] = world.known
    labelled: Set[str] = frozenset()
    for split, count in counts.items():
        rng = random.Random(f"{seed}:{split}")
        if split != "train":
            things = split_things(rng, world, split, [thing for thing in world.known if thing.name in labelled])
        tweets = make_tweets(rng, things, slang=world.slang, ids=[next(ids) for _ in range(count)])
        if split == "train":
            examples, noise = add_noise(
                rng, [tweet.example for tweet in tweets], share=NOISE_SHARE, types=list(TYPE_WEIGHTS)
            )
            tweets = [dataclasses.replace(tweet, example=noisy) for tweet, noisy in zip(tweets, examples, strict=True)]
            labelled = surfaces(examples)
        splits[split] = tweets
    return Corpus(splits=splits, noise=noise)


def write_corpus(folder: Path, world: World, corpus: Corpus, *, seed: int) -> dict[str, Any]:
    """Write corpus, pictures, noise, knowledge store and encyclopedia into a folder.

    Args:
        folder: receives `tweets/{txt,xml,images}/`, `noise.jsonl`, `knowledge/` and `wikipedia.sqlite`.
        world: what the encyclopedia is about.
        corpus: what is written.
        seed: of captions and detected objects.

    Returns:
        Counts, as JSON values.
    """
    for part in ("txt", "xml", "images"):
        (folder / "tweets" / part).mkdir(parents=True)
    for split, tweets in corpus.splits.items():
        write_text(folder / "tweets" / "txt" / f"{split}.txt", (_conll(tweet.example) for tweet in tweets))
        for tweet in tweets:
            draw(tweet.scene).save(folder / "tweets" / "images" / f"{tweet.example.id}.png")
            if any(entity.boxes for entity in tweet.example.entities):
                write_text(folder / "tweets" / "xml" / f"{tweet.example.id}.xml", _voc(tweet.example))
    write_json_lines(folder / "noise.jsonl", (dataclasses.asdict(item) for item in corpus.noise))
    pictures = [(tweet.example.id, tweet.scene) for tweets in corpus.splits.values() for tweet in tweets]
    _write_knowledge(folder / "knowledge", pictures, seed=seed)
    source = {"importer": "demo", "seed": seed}
    pages = encyclopedia(world, seed=seed, coverage=PAGE_SHARE)
    wikipedia.build(pages, folder / "wikipedia.sqlite", provenance=source)
    labels = sum(len(tweet.example.entities) for tweet in corpus.splits["train"])
    return {
        "tweets": {split: len(tweets) for split, tweets in corpus.splits.items()},
        "training_labels": labels,
        "noisy_labels": noise_counts(corpus.noise),
        "pages": len(pages),
    }


def _write_knowledge(folder: Path, pictures: Sequence[tuple[str, Scene]], *, seed: int) -> None:
    rng = random.Random(f"{seed}:captions")
    texts = [(image_id, caption(rng, scene)) for image_id, scene in pictures]
    source = {"importer": "demo", "seed": seed}
    write_kind(folder, "captions", [(image_id, {"text": text}) for image_id, text in texts if text], source)
    rng = random.Random(f"{seed}:objects")
    found = [(image_id, objects_value(detect(rng, scene))) for image_id, scene in pictures]
    write_kind(folder, "objects", found, source)


def _conll(example: Example) -> str:
    tags = ["O"] * len(example.words)
    for entity in example.entities:
        tags[entity.start : entity.end] = [
            f"{'B' if word == entity.start else 'I'}-{entity.type}" for word in range(entity.start, entity.end)
        ]
    rows = "".join(f"{word}\t{tag}\n" for word, tag in zip(example.words, tags, strict=True))
    return f"IMGID:{example.image_id}\n{rows}\n"


def _voc(example: Example) -> Iterator[str]:
    """Pascal VOC as in Twitter-GMNER: one object for each box, named by the surface; corners in whole pixels."""
    yield f"<annotation>\n\t<filename>{example.image_id}.png</filename>\n"
    yield f"\t<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>\n"
    for name, box in dict.fromkeys(_named_boxes(example, example.entities)):
        corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        inner = "".join(f"<{corner}>{value:.0f}</{corner}>" for corner, value in corners)
        yield f"\t<object>\n\t\t<name>{escape(name)}</name>\n\t\t<bndbox>{inner}</bndbox>\n\t</object>\n"
    yield "</annotation>\n"


def _named_boxes(example: Example, entities: Sequence[Entity]) -> Iterator[tuple[str, tuple[float, ...]]]:
    for entity in entities:
        for box in entity.boxes:
            yield example.surface(entity), box
