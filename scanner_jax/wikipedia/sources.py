"""What an index is built from: a dump, whose pages are stripped on all cores, or JSON lines of titles and texts."""

from __future__ import annotations

import dataclasses
import html
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from scanner_jax.wikipedia.dump import RawPage, read_dump
from scanner_jax.wikipedia.entries import Disambiguation, Entry, Page, Redirect
from scanner_jax.wikipedia.layout import WikipediaError
from scanner_jax.wikipedia.markup import is_disambiguation, lead_of, listed_links, plain_text
from scanner_jax.wikipedia.pieces import BZIP2
from scanner_jax.wikipedia.places import Place, SourceError, SourceFile

CHUNK_PAGES = 200
CHUNK_CHARACTERS = 2_000_000
"""A worker is sent this much at once; whichever is reached first."""

WAITING_CHUNKS = 4
"""Chunks per worker that are read ahead: what bounds memory, with the line above."""

LISTED_FAILURES = 1000
"""Pages that failed and are listed; all are counted."""

LISTED_PROBLEMS = 1000
"""Malformed lines listed before reading stops: a file may have millions."""

Stripped = Entry | tuple[str, str]
"""A page's entry, or its title and why there is none."""


@dataclasses.dataclass(slots=True)
class Report:
    """What has been read so far, and what was left out.

    Attributes:
        kind: of the source, "dump" or "jsonl".
        read: pages.
        other_namespaces: pages left out because they are no articles.
        failed: pages whose markup could not be read, counted.
        failures: title and reason of the first of them.
        place: where reading goes on; None where it can't.
    """

    kind: str = ""
    read: int = 0
    other_namespaces: int = 0
    failed: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    place: Place | None = None


Batch = tuple[list[Entry], Report]
"""Some entries, and what has been read up to their end."""


def read_batches(
    file: SourceFile, *, workers: int, at: Callable[[int], None] = lambda _: None, before: Report | None = None
) -> Iterator[Batch]:
    """Yield a source's entries in its order, whatever the number of workers.

    Memory is bounded: at most `WAITING_CHUNKS` chunks for each worker.

    Args:
        file: a dump or JSON lines, told by its content; opened with the place of `before`.
        workers: processes that strip markup, and threads that unpack; 1 strips in this process.
        at: told how many bytes of the file have been read, now and then.
        before: what an earlier run has read: this goes on behind it.

    Raises:
        WikipediaError: the source is damaged, or something else.
    """
    with file.path.open("rb") as beginning:
        start = beginning.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    report = before or Report()
    if start.startswith((BZIP2, b"<")):
        pages = read_dump(file, at=at, threads=workers, after=report.place)
        chunks = _chunks(pages, dataclasses.replace(report, kind="dump"))
        yield from _kept(_stripped(chunks, workers), report)
    elif start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"7z\xbc\xaf", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise SourceError(f"{file.path}: packed in another way than bzip2; unpack it first")
    else:
        yield from _read_lines(file, at, dataclasses.replace(report, kind="jsonl"))


def _read_lines(file: SourceFile, at: Callable[[int], None], report: Report) -> Iterator[Batch]:
    """Read a file with one `{"title": ..., "text": ...}` object a line; other fields are ignored.

    Raises:
        SourceError: at the end of the file, listing every malformed line; or at the 1,000th.
    """
    problems: list[str] = []
    entries: list[Entry] = []
    characters = 0
    first, end = (report.place.count + 1, report.place.unpacked) if report.place else (1, 0)
    number = first - 1
    for number, raw in enumerate(file, first):
        end += len(raw)
        page = _page(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
        if isinstance(page, str):
            problems.append(f"{file.path}:{number}: {page}")
        elif page:
            entries.append(page)
            characters += len(page.text)
        if len(entries) >= CHUNK_PAGES or characters >= CHUNK_CHARACTERS:
            if not problems:
                report.read += len(entries)
                report.place = Place(number, entries[-1].title, end, (end, end), *file.seal())
                yield entries, dataclasses.replace(report)
            entries, characters = [], 0
            at(end)
        if len(problems) >= LISTED_PROBLEMS:
            problems.append(f"reading stopped here, after {LISTED_PROBLEMS:,} malformed lines")
            break
    if problems:
        raise SourceError(
            "nothing was built; accepted are a MediaWiki dump and JSON lines of {title, text}:\n" + "\n".join(problems)
        )
    report.read += len(entries)
    report.place = Place(number, "", end, (end, end), *file.seal())
    yield entries, report


def _page(raw: bytes) -> Page | str | None:
    """The page of one JSONL line, None for a blank one, or what is wrong with it."""
    try:
        line = raw.decode("utf-8")
        if not line.strip():
            return None
        page = json.loads(line)
        title, text = page["title"], page["text"]
        (title + text).encode()  # refuses what is no text, and lone surrogates, which SQLite can't hold
    except json.JSONDecodeError as error:
        return f"not JSON ({error.msg}, column {error.colno})"
    except UnicodeDecodeError as error:
        return f"not UTF-8 ({error.reason} at byte {error.start}); convert the file"
    except UnicodeError:
        return "not valid Unicode"
    except (KeyError, TypeError, AttributeError, RecursionError):
        return 'expected {"title": "...", "text": "..."}'
    return Page(html.unescape(title), text) if title.strip() else "the title is empty"


def _chunks(pages: Iterable[tuple[RawPage, Place | None]], report: Report) -> Iterator[tuple[list[RawPage], Report]]:
    """The articles in chunks, with what has been read up to their end; the last may be empty."""
    chunk: list[RawPage] = []
    characters = 0
    for page, place in pages:
        report.read += 1
        report.place = place
        if page.namespace != "0":
            report.other_namespaces += 1
            continue
        chunk.append(_cut(page))
        characters += len(chunk[-1].wikitext)
        if len(chunk) == CHUNK_PAGES or characters >= CHUNK_CHARACTERS:
            yield chunk, dataclasses.replace(report)
            chunk, characters = [], 0
    yield chunk, report


def _cut(page: RawPage) -> RawPage:
    """An article cut to what will be read of it, so that little has to travel to another process."""
    if page.redirect is not None:
        return dataclasses.replace(page, wikitext="")
    if is_disambiguation(page.title, page.wikitext):
        return page
    return dataclasses.replace(page, wikitext=lead_of(page.wikitext))


def _stripped(chunks: Iterator[tuple[list[RawPage], Report]], workers: int) -> Iterator[tuple[list[Stripped], Report]]:
    """Strip chunks of pages in other processes and yield them in order."""
    if workers == 1:
        for chunk, report in chunks:
            yield _strip_all(chunk), report
        return
    # Started anew rather than forked: the caller may have threads. Closed without waiting when the caller gives up.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    waiting: deque[tuple[Future[list[Stripped]], Report]] = deque()
    try:
        for chunk, report in chunks:
            waiting.append((pool.submit(_strip_all, chunk), report))
            if len(waiting) >= WAITING_CHUNKS * workers:
                first, report = waiting.popleft()
                yield first.result(), report
        while waiting:
            first, report = waiting.popleft()
            yield first.result(), report
    except BrokenProcessPool as error:
        raise WikipediaError(
            f"a worker was killed, perhaps for want of memory; try again with fewer than {workers}: --workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """Leave signals from the terminal to the parent, and die with it, even where it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_after, args=(parent.sentinel,), daemon=True).start()


def _die_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _strip_all(chunk: list[RawPage]) -> list[Stripped]:
    return [_strip(page) for page in chunk]


def _strip(page: RawPage) -> Stripped:
    try:
        if page.redirect is not None:
            return Redirect(page.title, html.unescape(page.redirect))
        if is_disambiguation(page.title, page.wikitext):
            return Disambiguation(page.title, tuple(map(html.unescape, listed_links(page.wikitext))))
        return Page(page.title, plain_text(page.wikitext))
    except Exception as error:  # one page's markup, or the library, must not stop a build of millions
        return page.title, f"{type(error).__name__}: {error}"


def _kept(stripped: Iterable[tuple[list[Stripped], Report]], before: Report) -> Iterator[Batch]:
    """The entries alone; pages that failed go into the reports."""
    failed, failures = before.failed, before.failures
    for items, report in stripped:
        wrong = [item for item in items if isinstance(item, tuple)]
        failed += len(wrong)
        failures += tuple(wrong[: LISTED_FAILURES - len(failures)])
        entries = [item for item in items if not isinstance(item, tuple)]
        yield entries, dataclasses.replace(report, failed=failed, failures=failures)
