"""Invented tweets with predictions that are right, and wrong in every way, as the gallery's tests show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from scanner_jax.analysis import prompt_record
from scanner_jax.files import write_json_lines
from scanner_jax.gallery import Reported, Summary, read_report, write_gallery
from scanner_jax.predictions import Predicted, prediction_record
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.types import Box, Entity, Example, ImageObject, Knowledge

LEFT, RIGHT, NEAR_LEFT = (10.0, 20.0, 60.0, 90.0), (70.0, 20.0, 95.0, 90.0), (12.0, 20.0, 60.0, 90.0)
WORDS = ("Mira", "Okafor", "visits", "Lake", "Tamsin")


def example(name: str, *entities: Entity) -> Example:
    return Example(name, WORDS, entities, image_id=f"image-{name}")


def person(*boxes: Box) -> Entity:
    return Entity(0, 2, "PER", boxes)


EXAMPLES = [
    example("right", person(LEFT), Entity(3, 5, "LOC")),
    example("box-missing", person(LEFT)),
    example("box-wrong", person(LEFT, (0.0, 0.0, 5.0, 5.0))),
    example("box-spurious", person()),
    example("type", person(LEFT)),
    example("several", person(LEFT), Entity(3, 5, "LOC")),
]
PREDICTED = {
    "right": [person(NEAR_LEFT), Entity(3, 5, "LOC")],
    "box-missing": [person()],
    "box-wrong": [person(RIGHT)],
    "box-spurious": [person(LEFT)],
    "type": [Entity(0, 2, "LOC", (LEFT,))],
    "several": [Entity(1, 2, "PER", (LEFT,)), Entity(2, 3, "ORG")],
}
ALL_KINDS = {
    "right": (),
    "box-missing": ("box missing",),
    "box-wrong": ("box wrong",),
    "box-spurious": ("box spurious",),
    "type": ("type",),
    "several": ("boundary", "spurious", "missed"),
}
OBJECTS = (ImageObject(NEAR_LEFT, "woman", 0.9, "a woman in red"), ImageObject(RIGHT, "lake", 0.8))


def report(
    folder: Path,
    predicted: Mapping[str, Sequence[Entity]] = PREDICTED,
    examples: Sequence[Example] = tuple(EXAMPLES),
    *,
    knowledge: Knowledge | None = None,
    threshold: float | None = 0.4,
) -> Reported:
    """Write what a report has of these predictions, and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    known = knowledge or Knowledge("her page", "a note", "a photo", OBJECTS, "exact", "detector score")
    found = [prediction_record(e, [Predicted(entity, 0.9, 0.625) for entity in predicted[e.id]]) for e in examples]
    prompts = [
        prompt_record(
            example,
            entity.span,
            knowledge=known,
            prompt=Prompt((), 0, (), Cut(objects=3)),
            max_objects=9,
            classes=("non-entity", entity.type),
            probabilities=(0.1, 0.9),
        )
        for example in examples
        for entity in predicted[example.id]
    ]
    write_json_lines(folder / "predictions.jsonl", found)
    write_json_lines(folder / "prompts.jsonl", prompts)
    return read_report(folder, examples, box_threshold=threshold)


def images(folder: Path, names: Sequence[str], size: tuple[int, int] = (100, 100)) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("RGB", size, "white").save(folder / f"image-{name}.png")
    return {f"image-{name}": folder / f"image-{name}.png" for name in names}


def make(
    folder: Path, run: Reported | None = None, examples: Sequence[Example] = tuple(EXAMPLES), **options: object
) -> tuple[str, Summary]:
    """Write a page and return it."""
    options = {"corpus": "tweets", "scored": True, "images": None, **options}
    run = run or report(folder / "report", examples=examples)
    summary = write_gallery(folder / "gallery.html", examples, run, **options)  # type: ignore[arg-type]
    return (folder / "gallery.html").read_text(encoding="utf-8"), summary
