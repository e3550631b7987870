"""Draw a prediction: the entities' boxes on their image, and below it all entities in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from scanner_jax.images import read_image
from scanner_jax.questions import Entity

COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#e377c2", "#17becf")
"""One for each type, by its place among the model's; those beyond begin anew."""

LARGEST = 1600
"""Pixels of the drawing's longer side; larger images are made smaller."""


def draw(image: Path, entities: Sequence[Entity], labels: Sequence[str], out: Path) -> None:
    """Draw entities over their image and save it; the ending of `out` gives its format.

    Args:
        image: the file.
        entities: what `Scanner.predict` found in its text.
        labels: the model's types, in whose order colours are given.
        out: the file to write.

    Raises:
        UnreadableImage: the image gives no pixels.
        ValueError: no image format has that ending.
        OSError: the file cannot be written.
    """
    picture = read_image(image)
    scale = min(1.0, LARGEST / max(picture.size))
    if scale < 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    size = max(12, min(28, max(picture.size) // 30))
    font = ImageFont.load_default(size)
    line = round(1.5 * size)
    width = max(picture.width, *(round(font.getlength(str(entity))) + 3 * size for entity in entities), 8 * size)
    canvas = Image.new("RGB", (width, picture.height + line * max(1, len(entities)) + size // 2), "white")
    canvas.paste(picture)
    pen = ImageDraw.Draw(canvas)
    for row, entity in enumerate(entities):
        colour = COLOURS[labels.index(entity.label) % len(COLOURS)]
        top = picture.height + size // 2 + row * line
        pen.rectangle((size // 2, top, size // 2 + size, top + size), fill=colour)
        pen.text((2 * size, top - 2), str(entity), fill="black", font=font)
        if entity.box is not None:
            box = tuple(scale * side for side in entity.box)
            pen.rectangle(box, outline=colour, width=max(2, size // 6))
            at = (box[0] + 3, max(0.0, box[1] - line))
            pen.rectangle(pen.textbbox(at, f" {entity.text} ", font=font), fill=colour)
            pen.text(at, f" {entity.text} ", fill="white", font=font)
    if not entities:
        pen.text((size // 2, picture.height), "no entity found", fill="black", font=font)
    canvas.save(out)
