"""Retrieval: each candidate gets what the switched-on sources know about it, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from scanner_jax.retrieval import DETECTOR_SCORE, KnowledgeSources, coverage, found_by, retrieve
from scanner_jax.store import Store, box_digest, objects_value, write_kind
from scanner_jax.types import Example, ImageObject, Knowledge, Span
from scanner_jax.wikipedia import FULLTEXT_SCORE, LOOKUPS, WikipediaIndex, build

OBJECTS = (ImageObject((0.0, 0.0, 4.0, 4.0), "red car", 0.9, "a car"), ImageObject((1.0, 1.0, 2.0, 2.0), "dog", 0.5))
PAGES = [("Lake Tamsin", "A lake."), ("Mira Okafor", "A player.")]
TWEETS = [
    Example("test-0", ("Mira", "Okafor", "at", "#LakeTamsin"), image_id="17"),
    Example("test-1", ("Lake", "Tamsin", "!"), image_id="18"),
    Example("test-2", ("Mira", "Okafor")),
]
CANDIDATES = [
    (TWEETS[0], Span(3, 4)),
    (TWEETS[0], Span(0, 2)),
    (TWEETS[1], Span(0, 2)),
    (TWEETS[1], Span(2, 3)),
    (TWEETS[2], Span(0, 2)),
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = tmp_path / "store"
    write_kind(folder, "captions", [("17", {"text": "a lake"}), ("test-1", {"text": "not an image's"})], {})
    write_kind(folder, "notes", [("test-0", {"text": "So they say."}), ("18", {"text": "not an example's"})], {})
    write_kind(folder, "objects", [("17", objects_value(OBJECTS))], {})
    return Store.open(folder)


@pytest.fixture
def index(tmp_path: Path) -> WikipediaIndex:
    build(PAGES, tmp_path / "wikipedia.sqlite")
    return WikipediaIndex.open(tmp_path / "wikipedia.sqlite")


def test_everything_on(store: Store, index: WikipediaIndex) -> None:
    sources = KnowledgeSources(store=store, index=index, use_captions=True, use_objects=True, use_notes=True)
    of_first = Knowledge(caption="a lake", notes="So they say.", objects=OBJECTS, object_order="detector score")
    known = retrieve(sources, CANDIDATES)
    assert known == [
        dataclasses.replace(of_first, wikipedia="A lake.", wikipedia_how="normalised"),
        dataclasses.replace(of_first, wikipedia="A player.", wikipedia_how="exact"),
        Knowledge(wikipedia="A lake.", wikipedia_how="exact"),
        Knowledge(),
        Knowledge(wikipedia="A player.", wikipedia_how="exact"),
    ]
    assert found_by(known) == {"exact": 3, "normalised": 1}
    assert coverage(known) == {"wikipedia": 80.0, "notes": 40.0, "caption": 40.0, "objects": 40.0}
    assert sources.kinds == ("captions", "objects", "notes")
    assert sources.used == ("captions", "objects", "notes", "wikipedia")


@pytest.mark.parametrize(
    ("sources", "kind", "expected"),
    [
        (KnowledgeSources(use_captions=True), "captions", Knowledge(caption="a lake")),
        (KnowledgeSources(use_objects=True), "objects", Knowledge(objects=OBJECTS, object_order=DETECTOR_SCORE)),
        (KnowledgeSources(use_notes=True), "notes", Knowledge(notes="So they say.")),
    ],
    ids=["captions", "objects", "notes"],
)
def test_only_what_is_switched_on(store: Store, sources: KnowledgeSources, kind: str, expected: Knowledge) -> None:
    opened = dataclasses.replace(sources, store=store)
    assert retrieve(opened, CANDIDATES[:1]) == [expected]
    assert opened.kinds == opened.used == (kind,)


def test_a_note_on_the_span_goes_before_that_on_the_example(tmp_path: Path) -> None:
    notes = {
        "test-0": {"text": "So they say.", "spans": [[0, 2, "She plays."], [0, 1, "A name."]]},
        "test-2": {"text": "", "spans": [[0, 2, "She again."]]},
    }
    write_kind(tmp_path, "notes", notes.items(), {})
    sources = KnowledgeSources(store=Store.open(tmp_path), use_notes=True)
    assert [known.notes for known in retrieve(sources, CANDIDATES)] == [
        "So they say.",
        "She plays. So they say.",
        "",
        "",
        "She again.",
    ]


def test_only_objects_are_ordered() -> None:
    assert KnowledgeSources(use_objects=True, use_clip_order=True).orders_by_clip
    assert not KnowledgeSources(use_objects=True).orders_by_clip
    assert not KnowledgeSources(use_captions=True, use_clip_order=True).orders_by_clip


def test_the_index_is_searched_as_the_lookups_say(index: WikipediaIndex) -> None:
    known = retrieve(KnowledgeSources(index=index, lookups=("normalised",)), CANDIDATES)
    assert [one.wikipedia_how for one in known] == ["normalised", "normalised", "normalised", "", "normalised"]
    known = retrieve(KnowledgeSources(index=index, lookups=("exact",)), CANDIDATES)
    assert [one.wikipedia for one in known] == ["", "A player.", "A lake.", "", "A player."]
    mention = [(Example("test-3", ("Okafor",)), Span(0, 1))]
    for score, how in ((0.1, "fulltext"), (1.0, "")):
        sources = KnowledgeSources(index=index, lookups=LOOKUPS, fulltext_score=score)
        assert [one.wikipedia_how for one in retrieve(sources, mention)] == [how]


def test_nothing_on(store: Store, index: WikipediaIndex) -> None:
    assert retrieve(KnowledgeSources(store=store), CANDIDATES) == [Knowledge()] * 5
    assert retrieve(KnowledgeSources(), CANDIDATES) == [Knowledge()] * 5
    assert retrieve(KnowledgeSources(index=index), []) == []
    assert KnowledgeSources(store=store).fingerprints() == {}
    assert coverage([]) == {"wikipedia": 0.0, "notes": 0.0, "caption": 0.0, "objects": 0.0}


def test_fingerprints_follow_only_what_is_read(store: Store, index: WikipediaIndex) -> None:
    captions = KnowledgeSources(store=store, use_captions=True)
    both = KnowledgeSources(store=store, index=index, use_captions=True)
    assert both.fingerprints() == captions.fingerprints() | {
        "wikipedia_index": index.fingerprint,
        "wikipedia_lookups": "exact, redirect, normalised, disambiguation",
    }
    fewer, more = (dataclasses.replace(both, lookups=ways).fingerprints() for ways in (("exact",), LOOKUPS))
    assert fewer["wikipedia_lookups"] == "exact"
    assert more["wikipedia_lookups"].endswith(f"fulltext above {FULLTEXT_SCORE}")
    before = captions.fingerprints()
    with_notes = KnowledgeSources(store=store, use_captions=True, use_notes=True).fingerprints()
    assert with_notes != before

    write_kind(store.folder, "notes", [("test-0", {"text": "Others say."})], {})
    changed = Store.open(store.folder)
    assert KnowledgeSources(store=changed, use_captions=True).fingerprints() == before
    assert KnowledgeSources(store=changed, use_captions=True, use_notes=True).fingerprints() != with_notes


def test_region_captions_count_where_objects_are_read(store: Store) -> None:
    captions = KnowledgeSources(store=store, use_captions=True)
    objects = KnowledgeSources(store=store, use_objects=True)
    before = captions.fingerprints(), objects.fingerprints()
    boxes = box_digest(item.box for item in OBJECTS)
    image = CANDIDATES[0][0].image_id
    assert image is not None
    record = (image, {"captions": ["seen"] * len(OBJECTS), "boxes": boxes})
    write_kind(store.folder, "regions", [record], {})
    changed = Store.open(store.folder)
    assert dataclasses.replace(captions, store=changed).fingerprints() == before[0]
    objects = dataclasses.replace(objects, store=changed)
    assert objects.fingerprints() != before[1]
    assert {item.caption for item in retrieve(objects, CANDIDATES[:1])[0].objects} == {"seen"}
