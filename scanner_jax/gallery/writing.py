"""Choose the cards, read their images, and write the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner_jax.files import write_text
from scanner_jax.gallery.cards import make_cards
from scanner_jax.gallery.page import Summary, render
from scanner_jax.gallery.pictures import Picture, read_picture
from scanner_jax.gallery.reported import GalleryError, Reported
from scanner_jax.images import UnreadableImage
from scanner_jax.types import Example

LIMIT = 200
"""Tweets on a page: some 10 MB with photographs."""


def write_gallery(
    path: Path,
    examples: Sequence[Example],
    run: Reported,
    *,
    corpus: str,
    scored: bool,
    images: Mapping[str, Path] | None,
    without: Mapping[str, Reported] | None = None,
    ids: Sequence[str] = (),
    limit: int = LIMIT,
) -> Summary:
    """Write the page, aside and then in place by a rename.

    Args:
        path: the page's.
        examples: test.
        run: the run to show.
        corpus: its name.
        scored: whether the examples have gold.
        images: image id -> file; None where there are none to show.
        without: runs to compare with, each by what it is without.
        ids: show these examples alone; none shows all.
        limit: cards at most: those with an error first.

    Raises:
        GalleryError: there is no example of one of the ids.
    """
    cards = make_cards(_chosen(examples, ids), run, scored=scored, without=without or {})
    shown = cards[:limit]
    pictures = {card.example.id: _picture(card.example, images) for card in shown}
    groundable = [row for card in shown for row in card.rows if row.reach is not None]
    summary = Summary(
        corpus=corpus,
        scored=scored,
        tweets=len(cards),
        wrong=sum(not card.right for card in cards),
        shown=len(shown),
        pictures=sum(isinstance(found, Picture) for found in pictures.values()),
        groundable=len(groundable),
        in_reach=sum(row.in_reach for row in groundable),
    )
    write_text(path, [render(shown, run, summary, with_images=images is not None, pictures=pictures)])
    return summary


def _chosen(examples: Sequence[Example], ids: Sequence[str]) -> Sequence[Example]:
    unknown = sorted(set(ids) - {example.id for example in examples})
    if unknown:
        raise GalleryError(f"test has no example {', '.join(unknown)}; ids stand in predictions.jsonl")
    return [example for example in examples if example.id in ids] if ids else examples


def _picture(example: Example, images: Mapping[str, Path] | None) -> Picture | str:
    """An example's image, or why there is none."""
    if example.image_id is None:
        return "this sentence has no image"
    if images is None or example.image_id not in images:
        return f"no file of the image {example.image_id}"
    try:
        return read_picture(images[example.image_id])
    except UnreadableImage as error:
        return f"image {example.image_id}: {error}"
