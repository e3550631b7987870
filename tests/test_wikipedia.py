"""The Wikipedia index: every way of looking up, against plain Python, and files that are no whole index."""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.settings import paper_settings
from scanner_jax.tags import entities_from_tags
from scanner_jax.wikipedia import (
    DEFAULT_LOOKUPS,
    FULLTEXT_SCORE,
    LOOKUPS,
    BuildCounts,
    Disambiguation,
    Page,
    Redirect,
    WikipediaError,
    WikipediaIndex,
    build,
    build_entries,
    lookup_problem,
    normalise,
    split_camel_case,
)
from scanner_jax.wikipedia.forms import canonical_title, forms
from scanner_jax.wikipedia.places import SourceFile
from scanner_jax.wikipedia.sources import read_batches

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
        ("elan vital", ("Élan Vital", "normalised")),
        ("Oslo...", ("Oslo", "normalised")),
        ("#Oslo !", ("Oslo", "normalised")),
        ("ＯＳＬＯ", ("Oslo", "normalised")),
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


@pytest.mark.parametrize(
    ("title", "form"),
    [
        ("Steve_Kerr", "steve kerr"),
        ("  Steve \t Kerr ", "steve kerr"),
        ("#@ SteveKerr", "stevekerr"),
        ("Beyoncé", "beyonce"),
        ("Łódź", "lodz"),
        ("Søren Ærø", "soren aero"),
        ("Straße", "strasse"),
        ("İstanbul", "istanbul"),
        ("Yahoo!", "yahoo"),
        ("Panic! at the Disco", "panic! at the disco"),
        ("U.S.", "u.s"),
        ("Mercury (planet)", "mercury (planet)"),
        ("C++", "c++"),
        ("!!!", "!!!"),
        ("“Heroes”", "“heroes"),
        ("ﬁne", "fine"),
        ("東京", "東京"),
        ("@", ""),
    ],
)
def test_normalise(title: str, form: str) -> None:
    assert normalise(title) == form


@settings(deadline=None)
@given(st.text())
def test_normal_forms_are_stable(text: str) -> None:
    assert normalise(f"#{text}_") == normalise(text)
    assert normalise(normalise(text)) == normalise(text)
    assert normalise(text.upper().lower()) == normalise(normalise(text.upper().lower()))
    assert split_camel_case(text).replace(" ", "") == text.replace(" ", "")
    assert split_camel_case(split_camel_case(text)) == split_camel_case(text)
    assert set(forms(text)) == {form for form in (normalise(text), normalise(split_camel_case(text))) if form}


@settings(deadline=None)
@given(st.text(alphabet="abzABZ019 #", max_size=12), st.text(alphabet="abzABZ019é #", max_size=12))
def test_the_two_cutters_of_camel_case_agree(ascii_text: str, text: str) -> None:
    beyond = split_camel_case(ascii_text + " é")  # one letter beyond ASCII takes the general rule
    assert beyond == split_camel_case(ascii_text) + " é"
    assert split_camel_case(text).replace(" ", "") == text.replace(" ", "")


def test_canonical_title() -> None:
    assert canonical_title("oslo_city#History") == "Oslo city"
    assert canonical_title(":Category:Towns") == "Category:Towns"


ENTRIES = [
    Page("Mira Okafor", "A player."),
    Page("Lake Tamsin", "A lake of the north."),
    Page("Tamsin (ship)", "A ship."),
    Page("Ulm", "A town."),
    Redirect("MOK", "Mira Okafor"),
    Redirect("Okafor, Mira", "mira_Okafor#Career"),
    Redirect("Twice", "MOK"),
    Redirect("Round", "Again"),
    Redirect("Again", "Round"),
    Redirect("Nowhere", "Atlantis"),
    Redirect("Ulm", "Lake Tamsin"),
    Disambiguation("Tamsin", ("Atlantis", "Twice", "Lake Tamsin", "MOK", "Tamsin (ship)")),
    Redirect("TAM", "Tamsin"),
    Disambiguation("Kerr (disambiguation)", ("Ulm",)),
    Disambiguation("Ghost", ("Atlantis", "Tamsin")),
]


@pytest.fixture(scope="module")
def entries_index(tmp_path_factory: pytest.TempPathFactory) -> WikipediaIndex:
    path = tmp_path_factory.mktemp("entries") / "index.sqlite"
    counts = build_entries(iter(ENTRIES), path)
    assert counts == BuildCounts(4, 0, 0, redirects=4, lost_redirects=4, disambiguations=2, lost_disambiguations=1)
    return WikipediaIndex.open(path)


@pytest.mark.parametrize(
    ("surface", "title", "how", "name"),
    [
        ("MOK", "Mira Okafor", "redirect", "MOK"),
        ("Okafor, Mira", "Mira Okafor", "redirect", "Okafor, Mira"),
        ("Twice", "Mira Okafor", "redirect", "Twice"),
        ("#mok", "Mira Okafor", "normalised", "MOK"),
        ("Ulm", "Ulm", "exact", "Ulm"),
        ("Tamsin", "Mira Okafor", "disambiguation", "Tamsin"),
        ("tamsin!", "Mira Okafor", "disambiguation", "Tamsin"),
        ("TAM", "Mira Okafor", "disambiguation", "TAM"),
        ("Kerr", "Ulm", "disambiguation", "Kerr"),
        ("Kerr (disambiguation)", "Ulm", "disambiguation", "Kerr (disambiguation)"),
        ("player", "Mira Okafor", "fulltext", "Mira Okafor"),
        ("Nowhere", None, None, None),
        ("Ghost", None, None, None),
        ("Round", None, None, None),
    ],
)
def test_redirects_and_disambiguation_pages(
    entries_index: WikipediaIndex, surface: str, title: str | None, how: str | None, name: str | None
) -> None:
    (hit,) = entries_index.lookup([surface], lookups=LOOKUPS, fulltext_score=0.1)
    assert (hit and (hit.title, hit.how, hit.name)) == (title and (title, how, name))


def test_the_lookups_can_be_limited(entries_index: WikipediaIndex) -> None:
    surfaces = ["Ulm", "MOK", "#mok", "#ulm", "Tamsin", "player"]

    def ways(*lookups: str) -> list[str | None]:
        hits = entries_index.lookup(surfaces, lookups=lookups, fulltext_score=0.1)  # type: ignore[arg-type]
        return [hit and hit.how for hit in hits]

    assert ways("exact") == ["exact", *[None] * 5]
    assert ways("redirect") == [None, "redirect", *[None] * 4]
    assert ways("normalised") == ["normalised", None, None, "normalised", None, None]
    assert ways("normalised", "redirect") == ["normalised", "redirect", "normalised", "normalised", None, None]
    assert ways("disambiguation") == [*[None] * 4, "disambiguation", None]
    assert ways(*DEFAULT_LOOKUPS) == ["exact", "redirect", "normalised", "normalised", "disambiguation", None]
    assert [hit and hit.how for hit in entries_index.lookup(surfaces)] == ways(*DEFAULT_LOOKUPS)
    assert ways(*LOOKUPS)[5] == "fulltext"
    assert ways("fulltext") == ["fulltext", None, None, "fulltext", None, "fulltext"]  # half of the pages have "Tamsin"


def test_the_default_is_the_settings() -> None:
    assert paper_settings().knowledge.wikipedia_lookups == DEFAULT_LOOKUPS
    assert paper_settings().knowledge.wikipedia_fulltext_score == FULLTEXT_SCORE
    assert lookup_problem(DEFAULT_LOOKUPS) is lookup_problem(LOOKUPS) is lookup_problem(["exact"]) is None
    for wrong in ((), ("exakt",), ("exact", "exact"), "exact"):
        assert "exact, redirect, normalised, disambiguation, fulltext" in (lookup_problem(wrong) or "")


NAMES = st.lists(st.text(alphabet="abAB é#_.", min_size=1, max_size=4), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(NAMES, NAMES, NAMES)
def test_names_are_found_as_a_plain_search_finds_them(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], redirects: list[str], surfaces: list[str]
) -> None:
    path = tmp_path_factory.mktemp("plain") / "index.sqlite"
    pages: dict[str, str] = {}
    for title in titles:
        if " ".join(title.split()):
            pages.setdefault(" ".join(title.split()), f"text of {title}")
    if not pages:
        return
    target = next((title for title in pages if canonical_title(title) == title), None)
    leads = {} if target is None else {" ".join(name.split()): target for name in redirects}
    names = {name: title for name, title in leads.items() if name and name not in pages}
    entries = [Page(title, "text") for title in pages] + [Redirect(name, title) for name, title in names.items()]
    build_entries(entries, path)

    def searched(surface: str) -> tuple[str, str] | None:
        if normalise(surface) and surface in pages:
            return surface, "exact"
        if normalise(surface) and surface in names:
            return names[surface], "redirect"
        for form in forms(surface):
            found = [title for title in pages if normalise(title) == form]
            through = {names[name] for name in names if normalise(name) == form}
            if found or through:
                return ("any of", "|".join(sorted({*found, *through})))
        return None

    with WikipediaIndex.open(path) as index:
        for surface, hit in zip(surfaces, index.lookup(surfaces), strict=True):
            expected = searched(surface)
            if expected is None or hit is None:
                assert expected == hit
            elif expected[0] == "any of":
                assert hit.how == "normalised"
                assert hit.title in expected[1].split("|")
            else:
                assert (hit.title, hit.how) == expected


WORDS = ["mira", "lake", "ship", "of", "north", "town"]
SOME_WORDS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12)
DOCUMENTS = st.lists(st.tuples(SOME_WORDS, SOME_WORDS), min_size=3, max_size=12)


def bm25(phrase: list[str], documents: list[tuple[list[str], list[str]]]) -> list[float]:
    """Each document's score by the formula in SQLite's manual (FTS5, section 5.1.1), titles weighing 10."""

    def occurrences(words: list[str]) -> int:
        return sum(words[at : at + len(phrase)] == phrase for at in range(len(words)))

    frequency = [10 * occurrences(title) + occurrences(text) for title, text in documents]
    matching = sum(count > 0 for count in frequency)
    lengths = [len(title) + len(text) for title, text in documents]
    mean = sum(lengths) / len(lengths)
    weight = max(math.log((len(documents) - matching + 0.5) / (matching + 0.5)), 1e-6)
    return [
        weight * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))
        for count, length in zip(frequency, lengths, strict=True)
    ]


@settings(max_examples=40, deadline=None)
@given(DOCUMENTS, st.lists(st.sampled_from(WORDS), min_size=1, max_size=2), st.floats(0.01, 1))
def test_full_text_scores_are_bm25_and_refusing_by_number_loses_none(
    tmp_path_factory: pytest.TempPathFactory,
    documents: list[tuple[list[str], list[str]]],
    phrase: list[str],
    at_least: float,
) -> None:
    documents = [([f"t{number}", *title], text) for number, (title, text) in enumerate(documents)]
    path = tmp_path_factory.mktemp("bm25") / "index.sqlite"
    build(((" ".join(title), " ".join(text)) for title, text in documents), path)
    scores = bm25(phrase, documents)
    most = 2.2 * max(math.log((len(documents) - 0.5) / 1.5), 1e-6)
    with WikipediaIndex.open(path) as index:
        found = index.fulltext(" ".join(phrase))
        if max(scores) == 0:
            assert found is None
            return
        assert found is not None
        assert scores[found[0] - 1] == pytest.approx(max(scores), rel=1e-9)
        assert found[1] == pytest.approx(max(scores) / most, rel=1e-9)
        assert 0 < found[1] <= 1
        if abs(found[1] - at_least) > 1e-9:
            assert index.fulltext(" ".join(phrase), at_least=at_least) == (found if found[1] >= at_least else None)


def test_full_text_takes_any_mention(entries_index: WikipediaIndex) -> None:
    for surface in ("", "#", '"', "a\0b", "\ud800", "NEAR(", "title : x", "*", "()", "-", "AND", '"" OR ""', "Lake's"):
        assert entries_index.lookup([surface], lookups=("fulltext",)) == [None]
    (hit,) = entries_index.lookup(["#LakeTamsin"], lookups=("fulltext",), fulltext_score=0.1)
    assert hit is not None and hit.title == "Lake Tamsin"


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
        (tmp_path / "missing", "missing does not exist; build it: python -m scanner_jax.knowledge wikipedia build"),
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
    for written, message in (
        (3, "of a newer format, 3, and this version reads 2; upgrade scanner_jax or build it: .* wikipedia build"),
        (1, "of an older format, 1, and this version reads 2; build it: python -m .* wikipedia build SOURCE"),
    ):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'format'", (str(written),))
        connection.close()
        with pytest.raises(WikipediaError, match=message):
            WikipediaIndex.open(path)


def test_a_name_that_leads_nowhere_is_damage(tmp_path: Path) -> None:
    build(PAGES, tmp_path / "index.sqlite")
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("DELETE FROM pages WHERE title = 'Oslo'")
    connection.close()
    with (
        pytest.raises(WikipediaError, match="is damaged; build it"),
        WikipediaIndex.open(tmp_path / "index.sqlite") as index,
    ):
        index.lookup(["Oslo"])


@pytest.mark.skipif(not (DATA / "wikipedia").is_dir(), reason="needs data/wikipedia and data/twitter2015")
def test_the_real_abstracts_cover_twitter_2015(tmp_path: Path) -> None:
    with SourceFile(DATA / "wikipedia" / "abstracts.jsonl") as file:
        entries = (entry for batch, _ in read_batches(file, workers=1) for entry in batch)
        counts = build_entries(entries, tmp_path / "index.sqlite")
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
