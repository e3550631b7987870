"""The Wikipedia index: both ways of looking up, and files that are no whole index."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner_jax.store.importers import read_pages
from scanner_jax.tags import entities_from_tags
from scanner_jax.wikipedia import BuildCounts, WikipediaError, WikipediaIndex, build, normalise, split_camel_case

DATA = Path("data")

PAGES = [
    ("Ada Brook", "A sailor."),
    ("Ada brook", "A stream."),
    ("ADA BROOK", "A ship."),
    ("YouBoat", "A company."),
    ("&quot;Heute&quot; &amp; morgen", "A paper."),
    ("Élan Vital", "A band."),
    ("Oslo", "A city."),
    ("Oslo", "Another city."),
    ("Void", "  "),
    ("C++ Club", "A club."),
]


@pytest.fixture
def index(tmp_path: Path) -> WikipediaIndex:
    build(PAGES, tmp_path / "index.sqlite")
    return WikipediaIndex.open(tmp_path / "index.sqlite")


def found(index: WikipediaIndex, surface: str) -> tuple[str, str] | None:
    (hit,) = index.lookup([surface])
    return (hit.title, hit.how) if hit else None


@pytest.mark.parametrize(
    ("surface", "expected"),
    [
        ("Ada Brook", ("Ada Brook", "exact")),
        ("ADA BROOK", ("ADA BROOK", "exact")),
        ("Oslo", ("Oslo", "exact")),
        ('"Heute" & morgen', ('"Heute" & morgen', "exact")),
        ("oslo", ("Oslo", "normalised")),
        ("#Oslo", ("Oslo", "normalised")),
        ("@ OSLO", ("Oslo", "normalised")),
        ("#AdaBrook", ("Ada Brook", "normalised")),
        ("AdaBrook", ("Ada Brook", "normalised")),
        ("Ada_Brook", ("Ada Brook", "normalised")),
        (" ada \t brook", ("Ada brook", "normalised")),
        ("ADA BROOk", ("ADA BROOK", "normalised")),
        ("youboat", ("YouBoat", "normalised")),
        ("#YouBoat", ("YouBoat", "normalised")),
        ("ÉlanVital", ("Élan Vital", "normalised")),
        ("c++ club", ("C++ Club", "normalised")),
        ("&quot;Heute&quot; &amp; morgen", None),
        ("Void", None),
        ("adabrook", None),
        ("#", None),
        ("", None),
        ("Osl", None),
        ("O%", None),
    ],
)
def test_lookup(index: WikipediaIndex, surface: str, expected: tuple[str, str] | None) -> None:
    assert found(index, surface) == expected


def test_a_batch_keeps_its_order_and_its_repetitions(index: WikipediaIndex) -> None:
    surfaces = ["nowhere", "oslo", "Oslo", "oslo", "#", "AdaBrook", "x\x00y", "\ud800", "'; DROP TABLE pages; --"]
    assert index.lookup(surfaces) == [index.lookup([surface])[0] for surface in surfaces]
    hits = [hit.how if hit else None for hit in index.lookup(surfaces)]
    assert hits == [None, "normalised", "exact", "normalised", None, "normalised", None, None, None]
    assert index.lookup([]) == []


def test_the_shortest_then_first_title_wins_at_equal_case(tmp_path: Path) -> None:
    build([("a  _X", "1"), ("_a X", "2"), ("a_X", "3"), ("a X", "4")], tmp_path / "index.sqlite")
    with WikipediaIndex.open(tmp_path / "index.sqlite") as index:
        assert found(index, "#a X") == ("a X", "normalised")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SteveKerr", "Steve Kerr"),
        ("NBAFinals", "NBA Finals"),
        ("iPad", "i Pad"),
        ("Top10Songs", "Top10 Songs"),
        ("USA", "USA"),
        ("A", "A"),
        ("", ""),
    ],
)
def test_split_camel_case(text: str, expected: str) -> None:
    assert split_camel_case(text) == expected


@given(st.text())
def test_normal_forms_are_stable(text: str) -> None:
    assert normalise(f"#{text}_") == normalise(text)
    assert split_camel_case(text).replace(" ", "") == text.replace(" ", "")


def test_counts_and_fingerprint(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    assert build(PAGES, paths[0], provenance={"importer": "test"}) == BuildCounts(8, 1, 1)
    build(PAGES[:7], paths[1])
    build([*PAGES[:-1], ("C++ Club", "A club!")], paths[2])
    prints = []
    for path in paths:
        with WikipediaIndex.open(path) as index:
            prints.append(index.fingerprint)
    assert len(set(prints)) == 3
    build(iter(PAGES), paths[2])
    with WikipediaIndex.open(paths[2]) as index:
        assert index.fingerprint == prints[0]
        assert index.provenance["duplicates"] == 1


def test_a_failed_build_leaves_the_old_index(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    build(PAGES, path)

    def broken() -> object:
        yield "Bergen", "A town."
        raise OSError("the source went away")

    with pytest.raises(OSError, match="went away"):
        build(broken(), path)  # type: ignore[arg-type]
    with pytest.raises(WikipediaError, match="no page with a title and a text"):
        build([("Empty", "")], path)
    assert [file.name for file in tmp_path.iterdir()] == ["index.sqlite"]
    with WikipediaIndex.open(path) as index:
        assert found(index, "Oslo") == ("Oslo", "exact")
        assert found(index, "Bergen") is None


def test_files_that_are_no_index(tmp_path: Path) -> None:
    text, other, empty = tmp_path / "text", tmp_path / "other.sqlite", tmp_path / "empty"
    text.write_text("not a database " * 50)
    empty.touch()
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
    connection.close()
    for path, message in [
        (tmp_path / "missing", "missing does not exist; build it: python -m scanner_jax.store import wikipedia"),
        (tmp_path, "is a folder"),
        (text, "is not a Wikipedia index: no SQLite file"),
        (empty, "is not a Wikipedia index: no SQLite file"),
        (other, "is not a Wikipedia index, or damaged"),
    ]:
        with pytest.raises(WikipediaError, match=message):
            WikipediaIndex.open(path)
    for path in (text, empty):
        with pytest.raises(WikipediaError, match="exists and is no SQLite file"):
            build(PAGES, path)
    with pytest.raises(WikipediaError, match="is a folder; name the index file"):
        build(PAGES, tmp_path)


def test_cut_short_damaged_and_newer(tmp_path: Path) -> None:
    path = tmp_path / "index #1?.sqlite"  # a name that needs quoting
    build(((f"Title {i}", "text " * 50) for i in range(500)), path)
    data = path.read_bytes()
    for size in (101, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(WikipediaError, match=r"is cut short: .* bytes of .*; build it"):
            WikipediaIndex.open(path)
    path.write_bytes(data[: 3 * 4096] + b"\xa5" * (len(data) - 3 * 4096))
    with pytest.raises(WikipediaError, match="damaged"), WikipediaIndex.open(path) as index:
        index.lookup([f"Title {i}" for i in range(500)])
    path.write_bytes(data)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
    connection.close()
    with pytest.raises(WikipediaError, match="format 2, and this version reads up to 1"):
        WikipediaIndex.open(path)


@pytest.mark.skipif(not (DATA / "wikipedia").is_dir(), reason="needs data/wikipedia and data/twitter2015")
def test_the_real_abstracts_cover_twitter_2015(tmp_path: Path) -> None:
    counts = build(read_pages(DATA / "wikipedia" / "abstracts.jsonl"), tmp_path / "index.sqlite")
    assert counts == BuildCounts(34394, 0, 0)
    surfaces = []
    for name in ("train", "valid", "test"):
        for block in (DATA / "twitter2015" / f"{name}.txt").read_bytes().decode().split("\n\n"):
            rows = [row.split("\t") for row in block.strip("\n").split("\n")[1:]]
            for entity in entities_from_tags([tag for _, tag in rows]):
                surfaces.append(" ".join(word for word, _ in rows[entity.start : entity.end]))
    with WikipediaIndex.open(tmp_path / "index.sqlite") as index:
        how = Counter(hit.how if hit else None for hit in index.lookup(surfaces))
    assert len(surfaces) == 13153
    assert 0.165 < how["exact"] / len(surfaces) < 0.18
    assert 0.205 < (how["exact"] + how["normalised"]) / len(surfaces) < 0.215
