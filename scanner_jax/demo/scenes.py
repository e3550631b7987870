"""Drawn scenes: what is in them, the picture, and what a captioner and an object detector would say."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

from PIL import Image, ImageDraw

from scanner_jax.demo.world import Thing
from scanner_jax.types import Box, ImageObject

SIZE = (320, 200)
"""Width and height of every picture, in pixels."""

COLOURS = {
    "red": "#c0392b",
    "blue": "#2a5db0",
    "green": "#2e8b57",
    "yellow": "#e1b12c",
    "purple": "#7d3c98",
    "orange": "#d35400",
}
_SKIN, _DARK, _PALE = "#e0ac85", "#3b3b3b", "#f4f1e8"

_Stroke = tuple[str, tuple[float, ...], str | None]
"""A form of Pillow's, its corners as parts of the box, and its colour (None: the thing's own)."""

_FIGURE: tuple[_Stroke, ...] = (
    ("ellipse", (0.25, 0.0, 0.75, 0.26), _SKIN),
    ("rectangle", (0.0, 0.24, 1.0, 0.62), None),
    ("rectangle", (0.1, 0.62, 0.45, 1.0), _DARK),
    ("rectangle", (0.55, 0.62, 0.9, 1.0), _DARK),
)
SHAPES: dict[str, tuple[_Stroke, ...]] = {
    "man": _FIGURE,
    "woman": (*_FIGURE, ("polygon", (0.5, 0.3, 0.0, 0.85, 1.0, 0.85), None)),
    "player": (*_FIGURE, ("rectangle", (0.35, 0.3, 0.65, 0.5), _PALE)),
    "house": (("rectangle", (0.0, 0.4, 1.0, 1.0), _PALE), ("polygon", (0.5, 0.0, 0.0, 0.4, 1.0, 0.4), None)),
    "mountain": (("polygon", (0.5, 0.0, 0.0, 1.0, 1.0, 1.0), None), ("polygon", (0.5, 0, 0.4, 0.2, 0.6, 0.2), _PALE)),
    "palm": (("rectangle", (0.45, 0.3, 0.55, 1.0), "#8a5a2b"), ("ellipse", (0.0, 0.0, 1.0, 0.4), None)),
    "bridge": (("rectangle", (0.0, 0.3, 1.0, 1.0), None), ("ellipse", (0.15, 0.5, 0.85, 1.5), "#7fb3d5")),
    "lighthouse": (("polygon", (0.5, 0.0, 0.0, 1.0, 1.0, 1.0), _PALE), ("rectangle", (0.3, 0.4, 0.7, 0.6), None)),
    "logo": (("ellipse", (0.0, 0.0, 1.0, 1.0), None), ("polygon", (0.5, 0.2, 0.2, 0.75, 0.8, 0.75), _PALE)),
    "flag": (("rectangle", (0.0, 0.0, 0.08, 1.0), _DARK), ("rectangle", (0.08, 0.0, 1.0, 0.5), None)),
    "poster": (("rectangle", (0.0, 0.0, 1.0, 1.0), None), ("rectangle", (0.1, 0.6, 0.9, 0.8), _PALE)),
    "book": (("rectangle", (0.0, 0.0, 1.0, 1.0), None), ("rectangle", (0.0, 0.0, 0.15, 1.0), _DARK)),
    "phone": (("rectangle", (0.0, 0.0, 1.0, 1.0), _DARK), ("rectangle", (0.1, 0.1, 0.9, 0.8), None)),
    "scooter": (
        ("rectangle", (0.1, 0.4, 0.9, 0.75), None),
        ("ellipse", (0.0, 0.6, 0.35, 1.0), _DARK),
        ("ellipse", (0.65, 0.6, 1.0, 1.0), _DARK),
    ),
    "cup": (("polygon", (0.0, 0.0, 1.0, 0.0, 0.5, 0.7), None), ("rectangle", (0.25, 0.7, 0.75, 1.0), _DARK)),
    "tree": (("rectangle", (0.4, 0.5, 0.6, 1.0), "#8a5a2b"), ("ellipse", (0.0, 0.0, 1.0, 0.65), "#3d7a3d")),
    "lamp": (("rectangle", (0.44, 0.2, 0.56, 1.0), _DARK), ("ellipse", (0.1, 0.0, 0.9, 0.3), "#f5d76e")),
    "bench": (("rectangle", (0.0, 0.3, 1.0, 0.6), "#8a5a2b"), ("rectangle", (0.1, 0.6, 0.9, 1.0), _DARK)),
}
CLUTTER = ("tree", "lamp", "bench")
"""What no name of the world stands for."""

_PLACES = ("in the street", "on the left", "near the edge", "in front", "at the back")


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One drawn object; `thing` is what it shows if that has a name in the tweet."""

    shape: str
    colour: str
    box: Box
    thing: Thing | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows, from left to right."""

    items: tuple[Item, ...]

    def boxes(self, thing: Thing) -> tuple[Box, ...]:
        """Where a thing is to be seen; empty where it is not in the picture."""
        return tuple(item.box for item in self.items if item.thing == thing)


def make_scene(rng: random.Random, things: Sequence[Thing]) -> Scene:
    """Set up a picture for a tweet: of the things it names about two thirds are in it, and others besides."""
    wanted: list[tuple[str, str, Thing | None]] = []
    for thing in dict.fromkeys(things):
        if rng.random() < 0.65:
            count = rng.choice((2, 3)) if thing.shape == "player" else 1  # a club or band is several people
            wanted += [(thing.shape, thing.colour, thing)] * count
    strangers = [shape for shape in SHAPES if shape not in CLUTTER]
    for _ in range(rng.choice((0, 0, 0, 1))):
        wanted.append((rng.choice(strangers), rng.choice(list(COLOURS)), None))
    for _ in range(rng.choice((0, 1, 1)) + (not wanted)):
        wanted.append((rng.choice(CLUTTER), rng.choice(list(COLOURS)), None))
    rng.shuffle(wanted)
    slot = SIZE[0] / len(wanted)
    width = min(slot, 80)
    return Scene(
        tuple(
            Item(shape, colour, _place(rng, left=(index + 0.5) * slot - width / 2, width=width), thing)
            for index, (shape, colour, thing) in enumerate(wanted)
        )
    )


def draw(scene: Scene) -> Image.Image:
    """Paint the picture: sky, ground, and the items."""
    picture = Image.new("RGB", SIZE, "#cfe6f5")
    canvas = ImageDraw.Draw(picture)
    canvas.rectangle((0, SIZE[1] * 0.75, *SIZE), fill="#c9c2a5")
    for item in scene.items:
        x1, y1, x2, y2 = item.box
        for form, corners, colour in SHAPES[item.shape]:
            steps = zip(corners[::2], corners[1::2], strict=True)
            points = [(x1 + x * (x2 - x1), y1 + min(y, 1.0) * (y2 - y1)) for x, y in steps]
            getattr(canvas, form)(points, fill=colour or COLOURS[item.colour])
    return picture


def caption(rng: random.Random, scene: Scene) -> str:
    """One sentence about up to three of the items; now and then a captioner has nothing to say."""
    if rng.random() < 0.05:
        return ""
    named = [item for item in scene.items if item.thing is not None] or list(scene.items)
    shown = list(dict.fromkeys(_phrase(item) for item in named))[:3]
    return rng.choice(("a picture of ", "a photo of ", "")) + " and ".join(shown)


def detect(rng: random.Random, scene: Scene) -> tuple[ImageObject, ...]:
    """What an object detector finds, best first: boxes a little off, some items missed, some things that are not."""
    found = [
        ImageObject(
            box=_jitter(rng, item.box),
            label=item.shape,
            score=round(rng.uniform(0.4, 0.98), 3),
            caption=f"{_phrase(item)} {rng.choice(_PLACES)}",
        )
        for item in scene.items
        if rng.random() > 0.1
    ]
    if rng.random() < 0.3:
        shape = rng.choice(CLUTTER)
        box = _place(rng, left=rng.uniform(0, SIZE[0] - 60), width=60)
        found.append(ImageObject(box, shape, round(rng.uniform(0.2, 0.5), 3), f"a {shape} {rng.choice(_PLACES)}"))
    return tuple(sorted(found, key=lambda item: -item.score))


def _phrase(item: Item) -> str:
    article = "an" if item.colour[0] in "aeiou" else "a"
    return f"a {item.shape}" if item.shape in CLUTTER else f"{article} {item.colour} {item.shape}"


def _place(rng: random.Random, *, left: float, width: float) -> Box:
    """A box of whole pixels in its slot, standing on the ground."""
    margin = width * rng.uniform(0.04, 0.15)
    bottom = rng.randint(SIZE[1] - 30, SIZE[1] - 4)
    height = rng.randint(70, 140)
    return (round(left + margin), bottom - height, round(left + width - margin), bottom)


def _jitter(rng: random.Random, box: Box) -> Box:
    """Move each side by up to 8 % of the box's size, within the picture."""
    x1, y1, x2, y2 = box
    width, height = (x2 - x1) * 0.08, (y2 - y1) * 0.08
    return (
        round(max(0.0, x1 + rng.uniform(-width, width)), 1),
        round(max(0.0, y1 + rng.uniform(-height, height)), 1),
        round(min(float(SIZE[0]), x2 + rng.uniform(-width, width)), 1),
        round(min(float(SIZE[1]), y2 + rng.uniform(-height, height)), 1),
    )
