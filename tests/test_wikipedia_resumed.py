"""A build that is killed, interrupted or fails goes on where it was, and gives what an undisturbed one gives."""

from __future__ import annotations

import bz2
import errno
import json
import os
import random
import shlex
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from test_wikipedia_dump import HEAD, PAGES, SITE, TAIL, page

from scanner_jax.wikipedia import Entry, WikipediaError, WikipediaIndex, sources, spool, streams
from scanner_jax.wikipedia.command import main
from scanner_jax.wikipedia.places import Place, SourceFile
from scanner_jax.wikipedia.resuming import build_source
from scanner_jax.wikipedia.sources import Report, read_batches
from scanner_jax.wikipedia.spool import Spool

ROOT = Path(__file__).parent.parent

FORMS = ("multistream.bz2", "one.bz2", "plain.xml", "lines.jsonl")

TOWNS = [
    page(f"Town {number}", f"'''Town {number}''' is </page> {random.Random(number).randbytes(40 * number).hex()}")
    for number in range(60)
]

KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from scanner_jax.wikipedia import resuming, sources, spool

sources.CHUNK_PAGES, spool.KEEP_EVERY = 3, 0
left, connect = int(sys.argv[3]), sqlite3.connect

def count(statement):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

def counted(*arguments):
    connection = connect(*arguments)
    connection.set_trace_callback(count)
    return connection

sqlite3.connect = counted
built = resuming.build_source(Path(sys.argv[1]), Path(sys.argv[2]), workers=1)
print(built.before, built.report.read, -left)
"""
"""Dies as it comes to a given statement of SQL; else prints the pages known before, those known, and statements."""


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "CHUNK_PAGES", 3)
    monkeypatch.setattr(spool, "KEEP_EVERY", 0)
    monkeypatch.setattr(streams, "SLICE", 5_000)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pages in every form of a source; as JSON lines the towns alone."""
    folder = tmp_path_factory.mktemp("sources")
    pages = [*TOWNS[:30], *PAGES, *TOWNS[30:]]
    whole = (HEAD + SITE + "".join(pages) + TAIL).encode()
    parts = [HEAD + SITE, *("".join(pages[at : at + 8]) for at in range(0, len(pages), 8)), TAIL]
    (folder / "multistream.bz2").write_bytes(b"".join(bz2.compress(part.encode()) for part in parts))
    (folder / "one.bz2").write_bytes(bz2.compress(whole, 1))  # of several blocks
    (folder / "plain.xml").write_bytes(whole)
    lines = [json.dumps({"title": f"Town {number}", "text": "é" * number}) for number in range(60)]
    (folder / "lines.jsonl").write_text("\n\n".join(lines), encoding="utf-8")
    return folder


def built(source: Path, folder: Path) -> bytes:
    """The index that an undisturbed build makes."""
    build_source(source, folder / "undisturbed.sqlite", workers=1)
    return (folder / "undisturbed.sqlite").read_bytes()


def entries_and_reports(path: Path, before: Report | None = None) -> tuple[list[list[Entry]], list[Report]]:
    with SourceFile(path, before.place if before else None) as file:
        batches = list(read_batches(file, workers=1, before=before))
    return [entries for entries, _ in batches], [report for _, report in batches]


@pytest.mark.parametrize("form", FORMS)
def test_reading_goes_on_from_every_place_as_if_it_had_never_stopped(files: Path, form: str) -> None:
    entries, reports = entries_and_reports(files / form)
    assert len(reports) > 15
    for number, report in enumerate(reports[:-1], 1):
        assert isinstance(report.place, Place)
        rest, later = entries_and_reports(files / form, report)
        assert rest == entries[number:]
        assert [(found.read, found.other_namespaces, found.place and found.place.unpacked) for found in later] == [
            (found.read, found.other_namespaces, found.place and found.place.unpacked) for found in reports[number:]
        ]


def test_of_many_streams_those_before_the_place_are_not_read_again(files: Path) -> None:
    _, reports = entries_and_reports(files / "multistream.bz2")
    place = reports[-2].place
    assert place is not None
    with SourceFile(files / "multistream.bz2", place) as file:
        assert file.tell() == place.stream[0] > (files / "multistream.bz2").stat().st_size / 2
        assert 0 <= place.unpacked - place.stream[1] < 200_000


def test_where_the_bytes_of_a_pages_end_are_none_there_is_no_place_and_no_loss(tmp_path: Path) -> None:
    many = [page(f"Town {number}", "text") for number in range(12)]
    content = HEAD + SITE + "".join(many[:4]) + "<!-- </page> -->" + "".join(many[4:]) + TAIL
    (tmp_path / "dump.xml").write_text(content)
    entries, reports = entries_and_reports(tmp_path / "dump.xml")
    assert sum(map(len, entries)) == 12
    assert [report.place is not None for report in reports] == [True, False, False, False, False]
    build_source(tmp_path / "dump.xml", tmp_path / "index.sqlite", workers=1)
    with WikipediaIndex.open(tmp_path / "index.sqlite") as index:
        assert all(index.lookup([f"Town {number}" for number in range(12)]))


def killed(source: Path, index: Path, statement: int) -> list[int] | None:
    """Build in another process, killed when it comes to a statement; what it printed if it came to the end."""
    arguments = [str(source), str(index), str(statement)]
    run = subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT, capture_output=True, text=True)
    if run.returncode == -signal.SIGKILL:
        return None
    assert run.returncode == 0, run.stderr
    return [int(number) for number in run.stdout.split()]


def kill_and_go_on(source: Path, folder: Path, seed: int) -> None:
    """Kill a build at several moments drawn at random, while it reads and while it writes, until one comes through."""
    rng = random.Random(seed)
    whole = built(source, folder)
    index = folder / "index.sqlite"
    _, read, statements = killed(source, folder / "counted.sqlite", 0) or [0, 0, 0]
    index.write_bytes((folder / "counted.sqlite").read_bytes()[:100])  # an old index: it stays until the end
    assert (folder / "counted.sqlite").read_bytes() == whole
    before = -1
    for share in sorted(rng.random() for _ in range(2)):
        if (end := killed(source, index, round(1 + share * (statements - 1)))) is not None:
            break
        assert index.stat().st_size == 100
        known = kept(folder)
        assert before <= known <= read
        before = known
    else:
        end = killed(source, index, 0)
    assert end is not None
    assert end[:2] == [max(before, 0), read]
    assert index.read_bytes() == whole
    assert not list(folder.glob(".building-*"))


def kept(folder: Path) -> int:
    """Pages that a killed build has kept."""
    try:
        with sqlite3.connect(folder / ".building-index.sqlite" / "spool.sqlite") as connection:
            row = connection.execute("SELECT value FROM meta WHERE name = 'report'").fetchone()
    except sqlite3.OperationalError:  # killed before there was a table
        return 0
    return int(json.loads(row[0])["read"]) if row else 0


def test_a_killed_build_goes_on(files: Path, tmp_path: Path) -> None:
    kill_and_go_on(files / "multistream.bz2", tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
@pytest.mark.parametrize("form", FORMS)
def test_a_killed_build_goes_on_wherever_it_was(files: Path, tmp_path: Path, form: str, seed: int) -> None:
    kill_and_go_on(files / form, tmp_path, seed)


def stop_after(monkeypatch: pytest.MonkeyPatch, batches: int, stop: object) -> None:
    """Have reading stopped when some batches are kept."""
    add, count = Spool.add, 0

    def counted(self: Spool, entries: list[Entry], report: Report) -> None:
        nonlocal count
        add(self, entries, report)
        count += 1
        if count == batches:
            if isinstance(stop, signal.Signals):
                os.kill(os.getpid(), stop)
            elif isinstance(stop, Exception):
                raise stop

    monkeypatch.setattr(Spool, "add", counted)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_was_read_and_says_how_to_go_on(
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    source, index = files / "one.bz2", tmp_path / "an index.sqlite"
    whole = built(source, tmp_path)
    with monkeypatch.context() as patch:
        stop_after(patch, 5, number)
        assert main(["build", str(source), str(index), "--workers=1"]) == 128 + number
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"stopped by {number.name}; an index that was there before is unchanged. Go on: python -m ")
    assert not index.exists()
    assert main(shlex.split(said)[-4:]) == 0
    assert "  read before: 15, now: 55\n" in capsys.readouterr().out
    assert index.read_bytes() == whole


def test_a_failure_keeps_what_was_read(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["build", str(files / "plain.xml"), str(tmp_path / "index.sqlite"), "--workers=1"]
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "spool.sqlite")
    with monkeypatch.context() as patch:
        stop_after(patch, 4, full)
        assert main(arguments) == 1
    said = capsys.readouterr().err
    assert "12 pages that were read are kept: the build goes on with them\n" in said
    assert "error: spool.sqlite: No space left on device; make room there" in said
    with monkeypatch.context() as patch:
        patch.setattr("scanner_jax.wikipedia.building._resolve", lambda *_: (_ for _ in ()).throw(full))
        assert main(arguments) == 1
    assert "70 pages that were read are kept" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "  read before: 70, now: 0\n" in capsys.readouterr().out
    assert (tmp_path / "index.sqlite").read_bytes() == built(files / "plain.xml", tmp_path)


@pytest.mark.parametrize("form", ["multistream.bz2", "one.bz2", "plain.xml"])
def test_what_was_read_of_a_dump_cut_short_counts_when_all_of_it_is_there(
    files: Path, tmp_path: Path, form: str
) -> None:
    content = (files / form).read_bytes()
    for share in (0.7, 0.9, 1.0):
        (tmp_path / form).write_bytes(content[: int(share * len(content))])
        if share < 1:
            with pytest.raises(WikipediaError, match="is cut short or damaged after the page"):
                build_source(tmp_path / form, tmp_path / "index.sqlite", workers=1)
    result = build_source(tmp_path / form, tmp_path / "index.sqlite", workers=1)
    assert result.report.read == 70 and result.before >= 15
    assert (tmp_path / "index.sqlite").read_bytes() == built(tmp_path / form, tmp_path)


@pytest.mark.parametrize("batches", [4, 0], ids=["while reading", "while writing"])
def test_another_source_is_refused(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], batches: int
) -> None:
    source, index = tmp_path / "dump.xml", tmp_path / "index.sqlite"
    source.write_bytes((files / "plain.xml").read_bytes())
    with monkeypatch.context() as patch:
        stop_after(patch, batches, OSError("gone"))
        if not batches:
            patch.setattr("scanner_jax.wikipedia.building._resolve", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        assert main(["build", str(source), str(index), "--workers=1"]) == 1
    source.write_bytes(source.read_bytes().replace(b"Town 3<", b"City 3<"))
    again = ["build", str(source), str(index), "--workers=1"]
    for _ in range(2):
        assert main(again) == 1
        assert f"error: {source} is not the source of the build that was begun" in capsys.readouterr().err
    assert not index.exists()
    assert main([*again, "--restart"]) == 0
    assert "read before" not in capsys.readouterr().out
    assert index.read_bytes() == built(source, tmp_path)


def test_other_versions_are_refused(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "index.sqlite"
    with monkeypatch.context() as patch:
        stop_after(patch, 4, OSError("gone"))
        with pytest.raises(OSError, match="gone"):
            build_source(files / "plain.xml", index, workers=1)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "__version__", "99")
        with pytest.raises(WikipediaError, match=r"other versions \(.*scanner_jax .*, and is 99.*--restart"):
            build_source(files / "plain.xml", index, workers=1)
    assert build_source(files / "plain.xml", index, workers=1).before == 12


def test_of_a_source_that_must_be_changed_nothing_is_kept(files: Path, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes((files / "lines.jsonl").read_bytes() + b"\n{")
    with pytest.raises(WikipediaError, match=":120: not JSON"):
        build_source(path, tmp_path / "index.sqlite", workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["lines.jsonl"]
