"""Fill `page.html.jinja`: Jinja escapes whatever is put into it, and the page may load and run nothing else.

Its Content-Security-Policy names style and script by their hashes and allows images as data URIs alone, so that a
browser would not run what a corpus or a model might smuggle in, even if it were not escaped.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scanner_jax.analysis import BOX_KINDS, KINDS
from scanner_jax.gallery.cards import Card, Row, pieces
from scanner_jax.gallery.pictures import Picture
from scanner_jax.gallery.reported import Reported
from scanner_jax.types import Box, Entity

FOLDER = Path(__file__).parent

TEXT_LIMIT = 2000
"""Characters of each knowledge text that are shown."""

COLOURS = 8
"""Types that have a colour of their own in gallery.css; further ones share them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What a gallery was chosen from, and what is on it.

    Attributes:
        corpus: its name.
        scored: whether its test split has gold.
        tweets: how many there are, or were asked for.
        wrong: those of them with an error.
        shown: cards on the page.
        pictures: cards with their image.
        groundable: entities shown that have a gold box, were candidates, and had objects in their prompt.
        in_reach: those with an object that is theirs.
    """

    corpus: str
    scored: bool
    tweets: int
    wrong: int
    shown: int
    pictures: int
    groundable: int
    in_reach: int


class Filter(NamedTuple):
    """A button: the word that fitting cards carry, what it says, and how many cards fit."""

    word: str
    label: str
    cards: int


class Shape(NamedTuple):
    """A box over the image: `gold`, `predicted` or `object`, its corner and size in pixels, and what it is."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    tag: str
    title: str


def render(
    cards: Sequence[Card],
    run: Reported,
    summary: Summary,
    *,
    with_images: bool,
    pictures: Mapping[str, Picture | str],
) -> str:
    """Write the page.

    Args:
        cards: in the order in which they shall stand.
        run: where they come from.
        summary: what the page says of itself.
        with_images: whether there was a folder of images.
        pictures: by example id, the image or why there is none.
    """
    labels = [other.label for other in cards[0].others] if cards else []
    words = [words_of(card, labels) for card in cards]
    types = sorted(
        {entity.type for card in cards for row in card.rows for entity in (row.gold, row.predicted) if entity}
    )
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("gallery.css", "gallery.js"))
    environment = escaping_environment(FOLDER)
    environment.filters.update(shortened=shortened, box_words=box_words)
    return environment.get_template("page.html.jinja").render(
        policy=f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        cards=list(zip(cards, words, strict=True)),
        filters=filters(words, run, summary, labels),
        run=run,
        summary=summary,
        with_images=with_images,
        pictures=pictures,
        colours={kind: place % COLOURS for place, kind in enumerate(types)},
        pieces=pieces,
        shapes=shapes,
    )


def escaping_environment(folder: Path) -> Environment:
    """Jinja for a folder's HTML templates: what is put into one is escaped, and a name without a value is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def words_of(card: Card, labels: Sequence[str]) -> list[str]:
    """What the filters go by."""
    if not card.scored:
        return []
    words = [kind.replace(" ", "-") for kind in card.kinds] or ["right"]
    words += ["wrong"] if card.kinds else []
    words += ["out-of-reach"] if card.out_of_reach else []
    for other in card.others:
        if other.right != other.compared:
            words.append(f"{'lost' if other.compared else 'gained'}-{labels.index(other.label) + 1}")
    return words


def filters(words: Sequence[Sequence[str]], run: Reported, summary: Summary, labels: Sequence[str]) -> list[Filter]:
    """The buttons, for what the run can have."""
    known = {}
    if summary.scored:
        known = {"wrong": "wrong", "right": "right", **{kind: kind for kind in KINDS}}
        if run.grounded:
            known |= {kind.replace(" ", "-"): kind for kind in BOX_KINDS} | {"out-of-reach": "gold box out of reach"}
        for place, label in enumerate(labels, start=1):
            known |= {f"lost-{place}": f"wrong without {label}", f"gained-{place}": f"right only without {label}"}
    counted = [Filter(word, label, sum(word in own for own in words)) for word, label in known.items()]
    return [Filter("all", "all", len(words)), *counted]


def shapes(card: Card) -> Iterator[Shape]:
    """The boxes of a card, those to be drawn on top last; the number is the row's."""
    for item in card.objects:
        told = f"object: {item.label}, {item.score:.2f}" + (f": {item.caption}" if item.caption else "")
        yield _shape("object", item.box, "", told)
    for kind in ("gold", "predicted"):
        for number, row in enumerate(card.rows, start=1):
            entity: Entity | None = getattr(row, kind)
            for box in entity.boxes if entity else ():
                yield _shape(kind, box, str(number), f"{kind}: {card.example.surface(entity)}")  # type: ignore[arg-type]


def _shape(kind: str, box: Box, tag: str, title: str) -> Shape:
    x1, y1, x2, y2 = box
    return Shape(kind, round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2), tag, title)


def box_words(row: Row, run: Reported) -> str:
    """What a row says of boxes."""
    gold, predicted = row.gold, row.predicted
    said = []
    if predicted is not None and not predicted.boxes:
        said.append("None" if row.box_score is None else f"None (overlap score {row.box_score:.2f}, {_limit(run)})")
    elif predicted is not None:
        said.append("box" if row.box_score is None else f"box (overlap score {row.box_score:.2f})")
    if row.iou is not None:
        said.append(f"IoU {row.iou:.2f}")
    if gold is not None:
        said.append(f"gold: {len(gold.boxes) or 'None'}" + (" box" * bool(gold.boxes) + "es" * (len(gold.boxes) > 1)))
    if row.reach is not None:
        said.append(f"{'within' if row.in_reach else 'out of'} reach: best object {row.reach:.2f}")
    return "; ".join(said)


def _limit(run: Reported) -> str:
    return f"threshold {run.box_threshold:.2f}"


def shortened(text: str) -> str:
    """A text's first `TEXT_LIMIT` characters."""
    left = len(text) - TEXT_LIMIT
    return text if left <= 0 else f"{text[:TEXT_LIMIT]} ... and {left:,} characters more"


def _hash(text: str) -> str:
    """How a Content-Security-Policy names an inline style or script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
