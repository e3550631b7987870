"""The gallery: what its cards say, and that nothing in them is taken for markup."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from gallery_cases import (
    ALL_KINDS,
    EXAMPLES,
    LEFT,
    NEAR_LEFT,
    OBJECTS,
    PREDICTED,
    RIGHT,
    WORDS,
    example,
    images,
    make,
    person,
    report,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from scanner_jax.analysis import BOX_KINDS, KINDS
from scanner_jax.gallery import Card, GalleryError, Reported, make_cards, read_report
from scanner_jax.gallery.page import TEXT_LIMIT
from scanner_jax.grounding import grounded_counts
from scanner_jax.metrics import entity_counts
from scanner_jax.types import Entity, Example, ImageObject, Knowledge

NASTY = "</p><script>alert(1)</script><img src=x onerror='alert(2)'>\"&amp;"


class Elements(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def cards_of(run: Reported, **without: Reported) -> dict[str, Card]:
    return {card.example.id: card for card in make_cards(EXAMPLES, run, scored=True, without=without)}


def test_each_kind_of_error(tmp_path: Path) -> None:
    cards = cards_of(report(tmp_path))
    assert {name: card.kinds for name, card in cards.items()} == ALL_KINDS
    assert list(cards) == [*list(ALL_KINDS)[1:], "right"]  # wrong ones first
    (row, other) = cards["right"].rows
    assert row.iou == row.reach == pytest.approx(48 / 50) and row.score == 0.9 and row.box_score == 0.625
    assert other.iou is other.reach is None
    assert cards["box-wrong"].rows[0].iou == 0.0 and not cards["box-wrong"].out_of_reach
    assert cards["several"].rows[0].iou is None  # another span's box is not compared


def test_without_grounding_boxes_are_not_judged(tmp_path: Path) -> None:
    cards = cards_of(report(tmp_path, threshold=None))
    assert {name for name, card in cards.items() if card.right} == {"right", "box-missing", "box-wrong", "box-spurious"}


def test_gold_that_no_object_covers_is_out_of_reach(tmp_path: Path) -> None:
    cards = cards_of(report(tmp_path, knowledge=Knowledge(objects=OBJECTS[1:])))
    assert {name for name, card in cards.items() if card.out_of_reach} == {"right", "box-missing", "box-wrong", "type"}
    assert cards["right"].right  # though the box came from elsewhere


BOXES = st.sampled_from([(), (LEFT,), (RIGHT,), (NEAR_LEFT,)])
ENTITIES = st.lists(st.builds(Entity, st.integers(0, 2), st.integers(3, 5), st.sampled_from("PL"), BOXES), max_size=4)


@given(ENTITIES, ENTITIES)
def test_right_rows_are_those_that_score(gold: list[Entity], predicted: list[Entity]) -> None:
    gold, predicted = ([*{e.span: e for e in found}.values()] for found in (gold, predicted))
    for threshold, counts in ((0.5, grounded_counts), (None, entity_counts)):
        run = Reported(entities={"a": predicted}, box_scores={}, prompts=None, box_threshold=threshold)
        (card,) = make_cards([Example("a", WORDS, tuple(gold))], run, scored=True, without={})
        assert sum(not row.kinds for row in card.rows) == counts([gold], [predicted]).true_positives
        assert {kind for row in card.rows for kind in row.kinds} <= {*KINDS, *BOX_KINDS}


def test_filters_count_the_cards_that_fit(tmp_path: Path) -> None:
    page, summary = make(tmp_path)
    words = [(attributes["data-words"] or "").split() for attributes in Elements(page).all("article")]
    shown = {word: int(count) for word, count in re.findall(r'data-filter="([^"]+)">[^<]*<b>(\d+)</b>', page)}
    assert shown == {
        "all": 6,
        "wrong": 5,
        "right": 1,
        "missed": 1,
        "spurious": 1,
        "boundary": 1,
        "type": 1,
        "box-missing": 1,
        "box-spurious": 1,
        "box-wrong": 1,
        "out-of-reach": 0,
    }
    assert all(sum(word in own for own in words) == count for word, count in shown.items() if word != "all")
    assert (summary.tweets, summary.wrong, summary.shown) == (6, 5, 6)
    assert (summary.groundable, summary.in_reach) == (4, 4)


def test_runs_with_less_knowledge_beside(tmp_path: Path) -> None:
    lost = PREDICTED | {"right": [Entity(0, 2, "LOC", (LEFT,)), Entity(3, 5, "LOC")]}
    gained = PREDICTED | {"box-missing": [person(LEFT)]}
    without = {
        "caption": report(tmp_path / "caption", lost),
        NASTY: report(tmp_path / "notes", gained),
        "objects": report(tmp_path / "objects", threshold=None),
    }
    page, _ = make(tmp_path, without=without)
    words = {
        re.findall(r"^[\w-]+", heading)[0]: set(own.split())
        for own, heading in re.findall(r'data-words="([^"]*)".*?<h2>(.*?)</h2>', page, re.DOTALL)
    }
    assert "lost-1" in words["right"] and "gained-2" in words["box-missing"]
    assert sum("lost-" in word or "gained-" in word for own in words.values() for word in own) == 2
    assert page.count("without objects (judged without boxes)") == 6
    assert "<script>alert" not in page
    others = {other.label: other for other in cards_of(report(tmp_path / "report"), **without)["box-missing"].others}
    assert others["objects"].right and others["objects"].compared  # by types alone, both are


def test_nothing_is_taken_for_markup(tmp_path: Path) -> None:
    nasty = Entity(0, 1, NASTY, (LEFT,))
    examples = [Example(NASTY, (NASTY, "x"), (nasty,), image_id=NASTY)]
    known = Knowledge(NASTY, NASTY, NASTY, (ImageObject(LEFT, NASTY, 0.5, NASTY),), NASTY, NASTY)
    picture = images(tmp_path / "images", ["a"])["image-a"]
    for found in ({NASTY: picture}, {}):
        run = report(tmp_path / "report", {NASTY: [nasty]}, examples, knowledge=known)
        elements = Elements(make(tmp_path, run, examples, corpus=NASTY, images=found, without={NASTY: run})[0])
        assert len(elements.all("script")) == 1 and not elements.all("img")
        attributes = [name for _, own in elements.found for name in own]
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert elements.text.count(NASTY) > 15


def test_the_page_may_load_and_run_nothing_else(tmp_path: Path) -> None:
    page, _ = make(tmp_path, images=images(tmp_path / "images", ["right"]))
    elements = Elements(page)
    (policy,) = [own["content"] for own in elements.all("meta") if own.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy and "http" not in policy
    addresses = [own.get(name) for _, own in elements.found for name in ("src", "href") if own.get(name)]
    assert addresses and all(str(address).startswith("data:image/jpeg;base64,") for address in addresses)


def test_boxes_lie_in_the_real_image_whatever_its_size_here(tmp_path: Path) -> None:
    page, summary = make(tmp_path, images=images(tmp_path / "images", ["right"], (1000, 700)))
    assert summary.pictures == 1
    elements = Elements(page)
    (drawing,) = [own for own in elements.all("svg") if own.get("class") == "picture"]
    assert (drawing["viewbox"], drawing["width"], drawing["height"]) == ("0 0 1000 700", "480", "336")
    (image,) = elements.all("image")
    assert (image["width"], image["height"]) == ("1000", "700")
    data = base64.b64decode(str(image["href"]).partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (480, 336)
    drawn = [own for own in elements.all("rect") if own["class"] != "halo"][3:]  # the first three are the legend's
    assert [(own["class"], *(float(str(own[side])) for side in ("x", "y", "width", "height"))) for own in drawn] == [
        ("object", 12, 20, 48, 70),
        ("object", 70, 20, 25, 70),
        ("gold", 10, 20, 50, 70),
        ("predicted", 12, 20, 48, 70),
    ]


def test_an_image_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    found = images(tmp_path / "images", ["right", "type"])
    found["image-type"].write_bytes(b"no image")
    page, summary = make(tmp_path, images=found)
    assert summary.pictures == 1
    assert "image image-type: not an image" in page and "no file of the image image-several" in page
    assert "There was no folder of images" not in page
    assert "There was no folder of images" in make(tmp_path)[0]


def test_a_page_is_bounded(tmp_path: Path) -> None:
    names = [str(number) for number in range(12)]
    examples = [example(name, person(LEFT)) for name in names]
    run = report(
        tmp_path / "report",
        {name: [person(LEFT)] for name in names},
        examples,
        knowledge=Knowledge(notes="note " * 10_000),
    )
    found = images(tmp_path / "images", names[:1])
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), np.uint8)
    Image.fromarray(noise).save(found["image-0"])
    page, summary = make(tmp_path, run, examples, images=dict.fromkeys((f"image-{n}" for n in names), found["image-0"]))
    assert summary.shown == 12 and len(page) < 12 * 250_000
    assert f"and {50_000 - TEXT_LIMIT:,} characters more" in page
    page, summary = make(tmp_path, run, examples, limit=5)
    assert (summary.tweets, summary.shown) == (12, 5) and page.count("<article") == 5
    assert "5 are shown, those with an error first;\n7 are left out." in page


def test_chosen_tweets(tmp_path: Path) -> None:
    page, summary = make(tmp_path, ids=["right", "type"])
    assert (summary.tweets, page.count("<article")) == (2, 2)
    with pytest.raises(GalleryError, match="test has no example nobody"):
        make(tmp_path, ids=["nobody", "type"])


def test_a_split_without_gold_is_not_judged(tmp_path: Path) -> None:
    bare = [dataclasses.replace(item, entities=()) for item in EXAMPLES]
    page, _ = make(tmp_path, examples=bare, scored=False)
    assert "whose gold is not known" in page and "Okafor" in page
    assert not any(word in page for word in ("✓", "✗", 'data-filter="wrong"', "<dt>gold"))


def test_spans_that_overlap_or_lie_outside_do_no_harm(tmp_path: Path) -> None:
    found = PREDICTED | {"right": [person(), Entity(1, 4, "ORG"), Entity(3, 99, "LOC")]}
    page, _ = make(tmp_path, report(tmp_path / "report", found))
    assert "Okafor visits Lake" in page


def test_malformed_reports_are_refused(tmp_path: Path) -> None:
    report(tmp_path)
    (tmp_path / "prompts.jsonl").write_text('{"id": "right", "start": 0}\n')
    with pytest.raises(GalleryError, match=r"prompts.jsonl: not what a report has there .KeyError"):
        read_report(tmp_path, EXAMPLES, box_threshold=None)
    (tmp_path / "predictions.jsonl").unlink()
    with pytest.raises(GalleryError, match=r"predictions.jsonl is missing: give the folder of a run"):
        read_report(tmp_path, EXAMPLES, box_threshold=None)
