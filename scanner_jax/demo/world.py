"""The demo's invented world: names whose form tells nothing of their type, and the encyclopedia about them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

SYLLABLES = (
    "ba bri cu da dre fa fen go gri hu je ka klo la lin mi mor na nu pel qua ri ro sha su ta tri ul va ve wen xo yi zor"
).split()

TYPE_WEIGHTS = {"PER": 35, "LOC": 31, "ORG": 18, "OTHER": 16}  # about as in Twitter-2015

# For each type: what a thing can be -> the shapes that it has in a picture.
KINDS: dict[str, dict[str, tuple[str, ...]]] = {
    "PER": dict.fromkeys(("singer", "painter", "footballer", "actor", "judge", "chef"), ("man", "woman")),
    "LOC": {
        "town": ("house",),
        "village": ("house",),
        "mountain": ("mountain",),
        "island": ("palm",),
        "river": ("bridge",),
        "harbour": ("lighthouse",),
    },
    "ORG": {
        "company": ("logo",),
        "newspaper": ("logo",),
        "union": ("flag",),
        "party": ("flag",),
        "club": ("player",),
        "band": ("player",),
    },
    "OTHER": {
        "film": ("poster",),
        "festival": ("poster",),
        "novel": ("book",),
        "phone": ("phone",),
        "scooter": ("scooter",),
        "prize": ("cup",),
    },
}

# What an encyclopedia goes on to say: it mentions kinds of other types, so that no single word gives the type.
DETAILS = {
    "PER": (
        "born in a harbour town",
        "who once led a union",
        "known for a novel",
        "with a house on an island",
        "who left a band for a company",
        "honoured by a film festival",
    ),
    "LOC": (
        "named after a judge",
        "where a phone company began",
        "the home of a famous singer",
        "seen in every film of the time",
        "known for its book festival",
        "with a club of painters",
    ),
    "ORG": (
        "founded by a former footballer",
        "from a mountain village",
        "that makes a scooter",
        "named after a river",
        "led by an actor since 1987",
        "which gives a prize every year",
    ),
    "OTHER": (
        "about a chef on an island",
        "made by a small company",
        "first seen in a river town",
        "named after a painter",
        "loved by every newspaper",
        "that a young band began",
    ),
}
OPENINGS = ("{name} is a {adjective} {kind} {detail} .", "{name} ( since {year} ) is a {adjective} {kind} {detail} .")
ADJECTIVES = ("small", "famous", "northern", "young", "old", "popular", "quiet", "southern")


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
    """Something with a name: its type, what it is, and its shape and colour in a picture."""

    name: str
    type: str
    kind: str
    shape: str
    colour: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Things by where they may be named; no two names share a word.

    Attributes:
        known: of the training split; dev and test name them too.
        new: by split, of dev or of test alone.
        background: of the encoder's pretraining texts alone.
        slang: words made like names that name nothing.
    """

    known: tuple[Thing, ...]
    new: dict[str, tuple[Thing, ...]]
    background: tuple[Thing, ...]
    slang: tuple[str, ...]

    @property
    def things(self) -> tuple[Thing, ...]:
        return (*self.known, *self.new["dev"], *self.new["test"], *self.background)


def make_world(
    *, seed: int, known: int, new_dev: int, new_test: int, background: int, slang: int, colours: Sequence[str]
) -> World:
    """Invent a world with so many things of each role, drawn from the seed."""
    rng = random.Random(f"{seed}:world")
    words = _words(rng)
    things = [_thing(rng, words, colours) for _ in range(known + new_dev + new_test + background)]
    ends = [known, known + new_dev, known + new_dev + new_test]
    return World(
        known=tuple(things[: ends[0]]),
        new={"dev": tuple(things[ends[0] : ends[1]]), "test": tuple(things[ends[1] : ends[2]])},
        background=tuple(things[ends[2] :]),
        slang=tuple(next(words) for _ in range(slang)),
    )


def encyclopedia(world: World, *, seed: int, coverage: float) -> list[tuple[str, str]]:
    """Titles and texts of the pages about a share of the world's things."""
    rng = random.Random(f"{seed}:encyclopedia")
    pages = [(thing.name, page(rng, thing)) for thing in world.things]
    return [found for found in pages if rng.random() < coverage]


def page(rng: random.Random, thing: Thing) -> str:
    """One text about a thing; its type is in what it is called, not in the other things that are mentioned."""
    return rng.choice(OPENINGS).format(
        name=thing.name,
        adjective=rng.choice(ADJECTIVES),
        kind=thing.kind,
        detail=rng.choice(DETAILS[thing.type]),
        year=rng.randint(1900, 2020),
    )


def _words(rng: random.Random) -> Iterator[str]:
    """Capitalised words of two or three syllables, each once."""
    used: set[str] = set()
    while True:
        word = "".join(rng.sample(SYLLABLES, k=rng.choice((2, 3, 3)))).capitalize()
        if word not in used:
            used.add(word)
            yield word


def _thing(rng: random.Random, words: Iterator[str], colours: Sequence[str]) -> Thing:
    (type_,) = rng.choices(list(TYPE_WEIGHTS), list(TYPE_WEIGHTS.values()))
    kind = rng.choice(list(KINDS[type_]))
    length = rng.choice((1, 1, 2))  # of every type alike: length tells nothing
    return Thing(
        name=" ".join(next(words) for _ in range(length)),
        type=type_,
        kind=kind,
        shape=rng.choice(KINDS[type_][kind]),
        colour=rng.choice(colours),
    )
