"""What an encyclopedia consists of, as the builder takes it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """An article: its title and the text that prompts are told."""

    title: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Redirect:
    """Another name of a page, of a disambiguation page, or of another redirect."""

    title: str
    target: str


@dataclasses.dataclass(frozen=True, slots=True)
class Disambiguation:
    """A page that lists what its title may mean, in its order."""

    title: str
    links: tuple[str, ...]


Entry = Page | Redirect | Disambiguation
