"""Dumps: what is read of each page, in whatever packing, and what a damaged one is answered."""

from __future__ import annotations

import bz2
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.wikipedia import Disambiguation, Entry, Page, Redirect, WikipediaError, WikipediaIndex, build_entries
from scanner_jax.wikipedia.dump import read_dump
from scanner_jax.wikipedia.markup import is_disambiguation, lead_of, listed_links, plain_text
from scanner_jax.wikipedia.places import SourceFile
from scanner_jax.wikipedia.resuming import build_source
from scanner_jax.wikipedia.sources import Report, read_batches

SAMPLE = Path("data/wikipedia/enwiki-sample.xml.bz2")

HEAD = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">\n'
SITE = "<siteinfo><sitename>Invented</sitename></siteinfo>\n"
TAIL = "</mediawiki>\n"

LEAD = """{{about|the sailor|the stream}}
{{Infobox person|name=Ada|image=[[File:A.jpg|thumb|A caption]]|x={{nested|1}}}}
[[File:Ada.jpg|thumb|Ada, in [[Oslo]], {{c.}} 1920]]
<!-- to be checked -->
'''Ada Brook''' ({{IPA-en|x}}; {{lang|fr|Ada Ruisseau}}; 1 {{nowrap|May 1900}}{{ndash}}1980) was a \
''[[sailor|seafarer]]''<ref name="a">A book. {{cite book|title=B}}</ref><ref name="b" /> from [[Oslo]] &amp; \
Bergen.<br />She sailed \
{{convert|10|km}} [https://example.org a day] with [[wikt:crew|her crew]].{{citation needed|date=May 2020}}

{| class="wikitable"
| a || b
|}
[[Category:Sailors]] [[fr:Ada Brook]]
"""
READ = (
    "Ada Brook (Ada Ruisseau; 1 May 1900\u20131980) was a seafarer from Oslo & Bergen. "
    "She sailed 10 km a day with her crew."
)

LIST = """'''Brook''' is a word of [[Old English]] origin. '''[[Brook]]s''' are streams.

'''Brook''' may refer to:
* [[Ada Brook]], a [[sailor]]
* The [[Brook (ship)#History|''Brook'']], a ship
* Brook, with no link
== See also ==
* [[Ada Brook]]
{{disambiguation|name}}
"""


def page(title: str, text: str = "", *, namespace: int = 0, redirect: str | None = None, number: int = 1) -> str:
    target = f"<redirect title={quoteattr(redirect)} />" if redirect else ""
    return (
        f"<page><title>{escape(title)}</title><ns>{namespace}</ns><id>{number}</id>{target}<revision><id>1</id>"
        f'<text bytes="1" xml:space="preserve">{escape(text)}</text></revision></page>\n'
    )


PAGES = [
    page("Ada Brook", LEAD + "== Life ==\nMore of [[her]].\n=== Youth ===\nEven more."),
    page("AdaB", "#REDIRECT [[Ada Brook]]", redirect="Ada Brook"),
    page("Old redirect", "#Redirect [[ada_Brook#Life]] {{R from x}}"),
    page("Brook", LIST),
    page("Talk:Ada Brook", "Is she real?", namespace=1),
    page("Template:X", "{{{1}}}", namespace=10),
    page("R & D <x>", "'''R & D''' is a band."),
    page("Empty", ""),
    page("Headless", "== At once ==\ntext"),
    page("Stream (disambiguation)", "* [[Stream]]\n"),
]
ENTRIES = [
    Page("Ada Brook", READ),
    Redirect("AdaB", "Ada Brook"),
    Redirect("Old redirect", "ada_Brook#Life"),
    Disambiguation("Brook", ("Brook", "Ada Brook", "Brook (ship)#History")),
    Page("R & D <x>", "R & D is a band."),
    Page("Empty", ""),
    Page("Headless", ""),
    Disambiguation("Stream (disambiguation)", ("Stream",)),
]


def dump(pages: list[str]) -> bytes:
    return (HEAD + SITE + "".join(pages) + TAIL).encode()


def read(path: Path, workers: int = 1) -> tuple[list[Entry], Report]:
    with SourceFile(path) as file:
        batches = list(read_batches(file, workers=workers))
    return [entry for entries, _ in batches for entry in entries], batches[-1][1]


def test_what_is_read_of_each_page_however_packed(tmp_path: Path) -> None:
    whole = dump(PAGES)
    streams = [HEAD + SITE, "".join(PAGES[:4]), "".join(PAGES[4:]), TAIL]
    files = {
        "plain.xml": whole,
        "mark.xml": b"\xef\xbb\xbf" + whole,
        "one.bz2": bz2.compress(whole),
        "multistream.bz2": b"".join(bz2.compress(part.encode()) for part in streams),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        entries, report = read(tmp_path / name)
        assert entries == ENTRIES, name
        assert (report.kind, report.read, report.other_namespaces, report.failed) == ("dump", 10, 2, 0)


def test_any_number_of_workers_builds_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner_jax.wikipedia.sources.CHUNK_PAGES", 3)
    many = [page(f"Town {number}", f"'''Town {number}''' is a [[town]].", number=number) for number in range(90)]
    (tmp_path / "dump.bz2").write_bytes(bz2.compress(dump([*PAGES, *many])))
    built = []
    for workers in (1, 2):
        index = tmp_path / f"{workers}.sqlite"
        build_source(tmp_path / "dump.bz2", index, workers=workers)
        built.append(index.read_bytes())
    assert built[0] == built[1]


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Oslo''' ({{lang-no|Oslo}}, {{IPA|o}}) is a [[city]].", "Oslo is a city."),
        ("'''Oslo''' ( {{IPA|o}}, city;, {{IPA|o}} ) is.", "Oslo (city) is."),
        ("A <math>x^2</math> and <nowiki>[[raw]]</nowiki>.", "A and [[raw]]."),
        ("An [[File:x.png|20px]] icon, [[:Category:Towns|towns]].", "An icon, towns."),
        ("Broken [[link and {{template", "Broken [[link and {{template"),
        ("{{small|{{lang|de|Stadt}}}} and {{unknown|word}}.", "Stadt and."),
        ("__NOTOC__\n\n Two\n\nparagraphs.", "Two paragraphs."),
        ("{|\n| {{a}} [[b]]\n|}\nAfter<br>it", "After it"),
        ("<ref>only a note</ref>", ""),
        ("", ""),
    ],
)
def test_plain_text(wikitext: str, text: str) -> None:
    assert plain_text(wikitext) == text


@settings(deadline=None)
@given(st.text(alphabet="ab \n'[]{}|=<>/!-&;:#*réf", max_size=60))
def test_any_markup_is_read(wikitext: str) -> None:
    assert plain_text(wikitext) == " ".join(plain_text(wikitext).split())
    assert wikitext.startswith(lead_of(wikitext))
    listed_links(wikitext)


def test_the_lead_ends_at_a_heading_and_somewhere() -> None:
    assert lead_of("a\n=b=\n==c\n== d ==\ne") == "a\n=b=\n"
    assert lead_of("a == b ==\n\n=== c ===") == "a == b ==\n\n"
    assert len(lead_of("word " * 100_000)) == 100_000


@settings(deadline=None)
@given(st.lists(st.text(alphabet="abcdeé", min_size=1, max_size=8), min_size=1, max_size=12))
def test_words_without_markup_stay(words: list[str]) -> None:
    assert plain_text(" ".join(words)) == " ".join(words)
    assert plain_text(" ".join(f"[[{word}|{word}]]<ref>x</ref>" for word in words)) == " ".join(words)


@pytest.mark.parametrize(
    ("title", "wikitext", "expected"),
    [
        ("Brook", "{{Disambiguation}}", True),
        ("Brook", "{{disambig|geo}}", True),
        ("Brook", "{{ hndis|Brook, Ada }}", True),
        ("Brook", "{{Place name disambiguation}}", True),
        ("Brook", "__DISAMBIG__", True),
        ("Brook (disambiguation)", "", True),
        ("Brook", "[[x]]{{disambiguation needed|date=May}}", False),
        ("Brook", "{{other uses|Brook (disambiguation)}}", False),
        ("Brook", "a disambiguation", False),
    ],
)
def test_disambiguation_pages_are_known(title: str, wikitext: str, expected: bool) -> None:
    assert is_disambiguation(title, wikitext) is expected


def test_a_page_that_fails_is_listed_and_the_others_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(wikitext: str) -> str:
        if "band" in wikitext:
            raise RecursionError("too deep")
        return plain_text(wikitext)

    monkeypatch.setattr("scanner_jax.wikipedia.sources.plain_text", fails)
    (tmp_path / "dump.xml").write_bytes(dump(PAGES))
    entries, report = read(tmp_path / "dump.xml")
    assert len(entries) == len(ENTRIES) - 1
    assert (report.failed, report.failures) == (1, (("R & D <x>", "RecursionError: too deep"),))


MANY = [page(f"Town {number}", f"'''Town {number}''' {os.urandom(300).hex()}") for number in range(400)]


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
@pytest.mark.parametrize("packed", [True, False], ids=["bz2", "plain"])
def test_a_dump_cut_short_names_the_last_whole_page(tmp_path: Path, packed: bool, share: float) -> None:
    content = dump(MANY)
    content = (
        b"".join(bz2.compress(content[at : at + 20_000]) for at in range(0, len(content), 20_000))
        if packed
        else content
    )
    path = tmp_path / "dump"
    path.write_bytes(content[: int(share * len(content))])
    pages = []
    with pytest.raises(WikipediaError) as caught, SourceFile(path) as file:
        for found, _ in read_dump(file, at=lambda _: None):
            pages.append(found.title)
    assert f"{path} is cut short or damaged after the page {pages[-1]!r} (page {len(pages):,}):" in str(caught.value)
    assert pages == [f"Town {number}" for number in range(len(pages))]
    assert abs(len(pages) - share * len(MANY)) < 60
    with pytest.raises(WikipediaError, match="Fetch the dump again"):
        build_source(path, tmp_path / "index.sqlite", workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["dump"]


def test_a_multistream_dump_cut_between_streams_is_cut_short_too(tmp_path: Path) -> None:
    path = tmp_path / "dump.bz2"
    path.write_bytes(bz2.compress((HEAD + SITE).encode()) + bz2.compress("".join(MANY[:100]).encode()))
    with pytest.raises(WikipediaError, match=r"after the page 'Town 99' \(page 100\): the file ends too early"):
        read(path)


def test_damaged_bytes_are_an_error(tmp_path: Path) -> None:
    packed = bytearray(bz2.compress(dump(MANY)))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "dump.bz2").write_bytes(packed)
    with pytest.raises(WikipediaError, match="is cut short or damaged"):
        read(tmp_path / "dump.bz2")
    broken = dump(PAGES).replace(b"</page>", b"</pag>", 3)
    (tmp_path / "dump.xml").write_bytes(broken)
    with pytest.raises(WikipediaError, match="is cut short or damaged before its first page.*mismatched tag"):
        read(tmp_path / "dump.xml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'<!DOCTYPE x [<!ENTITY a "aa">]>' + dump(PAGES), "not a MediaWiki dump: .*declare no entities"),
        (b"<html><body/></html>", "expected a MediaWiki dump, <mediawiki>, or JSON lines.*; found <html>"),
        ((HEAD + "<page><ns>0</ns></page>" + TAIL).encode(), "the page before its first page has no title"),
        (b"\x1f\x8b\x08 gzip", "packed in another way than bzip2; unpack it first"),
        (b"7z\xbc\xaf\x27\x1c", "packed in another way than bzip2"),
        (b"BZh9 no bzip2", "is cut short or damaged before its first page"),
        (b"some words", ":1: not JSON"),
    ],
    ids=["entities", "html", "untitled", "gzip", "7z", "not-bzip2", "words"],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(WikipediaError, match=message):
        read(tmp_path / "file")


def test_malformed_pages_are_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "pages.jsonl"
    lines = ['{"title": "A", "text": "a"}', "{", '{"title": "B"}', '["A", "a"]', '{"title": "C", "text": 3}', ""]
    path.write_bytes("\n".join([*lines, '{"title": " ", "text": "x"}', '{"title": "\\ud800", "text": "x"}']).encode())
    with path.open("ab") as file:
        file.write(b'\n"\xff"')
    with pytest.raises(WikipediaError) as caught:
        read(path)
    found = [line.split(":")[1] for line in str(caught.value).splitlines()[1:]]
    assert found == ["2", "3", "4", "5", "7", "8", "9"]


def test_a_file_of_another_form_is_given_up_early(tmp_path: Path) -> None:
    path = tmp_path / "pages.csv"
    path.write_text("title,text\n" * 5000)
    with pytest.raises(WikipediaError, match="reading stopped here, after 1,000 malformed lines") as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1002


def test_a_long_dump_is_read_in_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "dump.xml").open("wb") as file:
        file.write((HEAD + SITE).encode())
        for number in range(1000):
            file.write(page(f"Town {number}", "'''Town'''\n== History ==\n" + "word " * 4000).encode())
        file.write(TAIL.encode())
    tracemalloc.start()
    try:
        with SourceFile(tmp_path / "dump.xml") as source:
            count = sum(len(entries) for entries, _ in read_batches(source, workers=1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1000
    assert peak < 3_000_000 < (tmp_path / "dump.xml").stat().st_size / 6


def test_a_killed_build_leaves_no_index_and_no_process(tmp_path: Path) -> None:
    with bz2.open(tmp_path / "dump.bz2", "wb", compresslevel=1) as file:
        file.write((HEAD + SITE).encode())
        for number in range(20_000):
            file.write(
                page(f"Town {number}", f"'''Town {number}''' is a [[town]] of {{{{nowrap|the north}}}}.").encode()
            )
        file.write(TAIL.encode())
    index = tmp_path / "index.sqlite"
    command = [sys.executable, "-m", "scanner_jax.knowledge", "wikipedia", "build"]
    arguments = [str(tmp_path / "dump.bz2"), str(index), "--workers=2"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        aside = tmp_path / ".building-index.sqlite"
        deadline = time.monotonic() + 30
        workers: set[int] = set()
        while not (workers and (aside / "spool.sqlite").exists()):
            assert time.monotonic() < deadline and run.poll() is None
            workers = children(run.pid)
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert not index.exists()
    while any(alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived the build"
        time.sleep(0.02)
    build_entries([Page("Oslo", "A city.")], index)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dump.bz2", "index.sqlite"]
    with WikipediaIndex.open(index) as opened:
        assert opened.lookup(["Oslo", "Town 1"])[1] is None


def children(parent: int) -> set[int]:
    return {int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not SAMPLE.is_file(), reason="needs data/wikipedia")
def test_the_real_dump_piece(tmp_path: Path) -> None:
    built = build_source(SAMPLE, tmp_path / "index.sqlite", workers=1)
    counts, report = built.counts, built.report
    assert (report.read, report.other_namespaces, report.failed) == (206, 1, 0)
    assert (counts.pages, counts.empty, counts.redirects + counts.lost_redirects) == (97, 1, 99)
    with WikipediaIndex.open(tmp_path / "index.sqlite") as index:
        hits = index.lookup(["Ayn Rand", "AynRand", "#AynRand", "ayn rand!", "Adolf Hitler"])
    assert [hit and (hit.title, hit.how) for hit in hits] == [
        ("Ayn Rand", "exact"),
        ("Ayn Rand", "redirect"),
        ("Ayn Rand", "normalised"),
        ("Ayn Rand", "normalised"),
        None,
    ]
    assert all(hit is None or hit.text.startswith("Ayn Rand (born Alisa") for hit in hits)
