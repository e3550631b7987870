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
from pathlib import Path

from scanner_jax.wikipedia.dump import BZIP2, RawPage, read_dump
from scanner_jax.wikipedia.entries import Disambiguation, Entry, Page, Redirect
from scanner_jax.wikipedia.layout import WikipediaError
from scanner_jax.wikipedia.markup import is_disambiguation, lead_of, listed_links, plain_text

CHUNK_PAGES = 200
CHUNK_CHARACTERS = 2_000_000
"""A worker is sent this much at once; whichever is reached first."""

WAITING_CHUNKS = 4
"""Chunks per worker that are read ahead: what bounds memory, with the line above."""

LISTED_FAILURES = 1000
"""Pages that failed and are listed; all are counted."""

LISTED_PROBLEMS = 1000
"""Malformed lines listed before reading stops: a file may have millions."""


@dataclasses.dataclass(slots=True)
class Report:
    """What has been read so far, and what was left out.

    Attributes:
        kind: of the source, "dump" or "jsonl".
        read: pages or lines.
        other_namespaces: pages left out because they are no articles.
        failed: pages whose markup could not be read, counted.
        failures: title and reason of the first of them.
    """

    kind: str = ""
    read: int = 0
    other_namespaces: int = 0
    failed: int = 0
    failures: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def read_source(
    path: Path, report: Report, *, workers: int, at: Callable[[int], None] = lambda _: None
) -> Iterator[Entry]:
    """Yield a source's entries in its order, whatever the number of workers.

    Memory is bounded: at most `WAITING_CHUNKS` chunks for each worker.

    Args:
        path: a dump or JSON lines, told by its content.
        report: filled while reading.
        workers: processes that strip markup, and threads that unpack; 1 strips in this process.
        at: told how many bytes of the file have been read, now and then.

    Raises:
        WikipediaError: it is missing, damaged, or something else.
    """
    if not path.is_file():
        problem = "is a folder; give the file in it" if path.is_dir() else "does not exist"
        raise WikipediaError(
            f"{path} {problem}; accepted are a MediaWiki dump (pages-articles, .xml or .xml.bz2) and JSON lines of "
            "{title, text}"
        )
    with path.open("rb") as file:
        start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((BZIP2, b"<")):
        report.kind = "dump"
        yield from _stripped(_numbered(read_dump(path, at=at, threads=workers), report), report, workers)
    elif start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"7z\xbc\xaf", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise WikipediaError(f"{path}: packed in another way than bzip2; unpack it first")
    else:
        report.kind = "jsonl"
        for title, text in read_pages(path, at=at):
            report.read += 1
            yield Page(html.unescape(title), text)


def read_pages(path: Path, *, at: Callable[[int], None] = lambda _: None) -> Iterator[tuple[str, str]]:
    """Yield title and text of a file with one `{"title": ..., "text": ...}` object a line; other fields are ignored.

    Raises:
        WikipediaError: at the end of the file, listing every malformed line; or at the 1,000th.
    """
    problems: list[str] = []
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            page = _page(raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw)
            if isinstance(page, str):
                problems.append(f"{path}:{number}: {page}")
            elif page:
                yield page
            if number % 1000 == 0:
                at(file.tell())
            if len(problems) >= LISTED_PROBLEMS:
                problems.append(f"reading stopped here, after {LISTED_PROBLEMS:,} malformed lines")
                break
    if problems:
        raise WikipediaError(
            "nothing was built; accepted are a MediaWiki dump and JSON lines of {title, text}:\n" + "\n".join(problems)
        )


def _page(raw: bytes) -> tuple[str, str] | str | None:
    """Title and text of one JSONL line, None for a blank one, or what is wrong with it."""
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
    return (title, text) if title.strip() else "the title is empty"


def _numbered(pages: Iterable[RawPage], report: Report) -> Iterator[RawPage]:
    """The articles, cut to what will be read of them, so that little has to travel to another process."""
    for page in pages:
        report.read += 1
        if page.namespace != "0":
            report.other_namespaces += 1
        elif page.redirect is not None:
            yield dataclasses.replace(page, wikitext="")
        elif is_disambiguation(page.title, page.wikitext):
            yield page
        else:
            yield dataclasses.replace(page, wikitext=lead_of(page.wikitext))


def _stripped(pages: Iterator[RawPage], report: Report, workers: int) -> Iterator[Entry]:
    """Strip chunks of pages in other processes and yield their entries in order."""
    if workers == 1:
        for chunk in _chunks(pages):
            yield from _kept(_strip_all(chunk), report)
        return
    # Started anew rather than forked: the caller may have threads. Closed without waiting when the caller gives up.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)
    waiting: deque[Future[list[Entry | tuple[str, str]]]] = deque()
    try:
        for chunk in _chunks(pages):
            waiting.append(pool.submit(_strip_all, chunk))
            if len(waiting) >= WAITING_CHUNKS * workers:
                yield from _kept(waiting.popleft().result(), report)
        while waiting:
            yield from _kept(waiting.popleft().result(), report)
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


def _chunks(pages: Iterator[RawPage]) -> Iterator[list[RawPage]]:
    chunk: list[RawPage] = []
    characters = 0
    for page in pages:
        chunk.append(page)
        characters += len(page.wikitext)
        if len(chunk) == CHUNK_PAGES or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _strip_all(chunk: list[RawPage]) -> list[Entry | tuple[str, str]]:
    """Each page's entry, or its title and why there is none."""
    return [_strip(page) for page in chunk]


def _strip(page: RawPage) -> Entry | tuple[str, str]:
    try:
        if page.redirect is not None:
            return Redirect(page.title, html.unescape(page.redirect))
        if is_disambiguation(page.title, page.wikitext):
            return Disambiguation(page.title, tuple(map(html.unescape, listed_links(page.wikitext))))
        return Page(page.title, plain_text(page.wikitext))
    except Exception as error:  # one page's markup, or the library, must not stop a build of millions
        return page.title, f"{type(error).__name__}: {error}"


def _kept(stripped: Iterable[Entry | tuple[str, str]], report: Report) -> Iterator[Entry]:
    for item in stripped:
        if isinstance(item, tuple):
            report.failed += 1
            report.failures += [item][: LISTED_FAILURES - len(report.failures)]
        else:
            yield item
