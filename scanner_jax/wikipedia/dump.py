"""Read the pages of a MediaWiki XML dump, `pages-articles`, packed with bzip2 or not, in bounded memory."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from scanner_jax.wikipedia.layout import WikipediaError
from scanner_jax.wikipedia.pieces import Pieces
from scanner_jax.wikipedia.places import Place, SourceError, SourceFile

REDIRECT = re.compile(r"\s*#redirect\s*:?\s*\[\[([^\]|\n]+)", re.IGNORECASE)
"""**Assumption:** the English word; dumps since 2010 say in the XML what a page redirects to."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawPage:
    """A page as the dump has it; `redirect` is its target's title, None for a page with content."""

    title: str
    namespace: str
    redirect: str | None
    wikitext: str


def read_dump(
    file: SourceFile, *, at: Callable[[int], None], threads: int = 1, after: Place | None = None
) -> Iterator[tuple[RawPage, Place | None]]:
    """Yield a dump's pages in order; entities that a dump may not declare are refused (billion laughs).

    Args:
        file: the dump, told by its content to be packed or not; several bzip2 streams may follow each other. It was
            opened with the same `after`.
        at: told after each page how many bytes of the file have been read, and while what lies before `after` is
            unpacked again.
        threads: that unpack; more than one help where there are several streams.
        after: yield the pages behind this place.

    Yields:
        A page and the place behind it, None where reading can't go on from there.

    Raises:
        WikipediaError: it is cut short or damaged, or no MediaWiki dump; the message names the last whole page.
        OSError: it can't be read.
    """
    count, last = (after.count, after.title) if after else (0, "")
    path = file.path
    try:
        pieces = Pieces(file, threads, after, at)
        for element in _pages(pieces, path):
            page = _raw_page(element)
            if page is None:
                raise SourceError(f"{path}: the page {_after(last)} has no title; fetch the dump again")
            count, last = count + 1, page.title
            yield page, pieces.place(count, last)
            at(file.tell())
    except (EOFError, ParseError, OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; bz2's has no number
            raise
        raise WikipediaError(
            f"{path} is cut short or damaged {_after(last)} (page {count:,}): {_why(error)}; no index was written. "
            "Fetch the dump again and compare its checksum with the published one"
        ) from error
    except DefusedXmlException as error:
        raise SourceError(f"{path}: not a MediaWiki dump: {error}; dumps declare no entities") from error


def _pages(file: Any, path: Path) -> Iterator[Element]:
    """The `<page>` elements; each is gone from memory when the next is asked for."""
    root: Element | None = None
    for event, element in ElementTree.iterparse(file, events=("start", "end"), forbid_dtd=True):
        if root is None:
            root = element
            if _name(root) != "mediawiki":
                expected = "a MediaWiki dump, <mediawiki>, or JSON lines of {title, text}"
                raise SourceError(f"{path}: expected {expected}; found <{root.tag}>")
        elif event == "end" and _name(element) == "page":
            yield element
            root.clear()


def _raw_page(page: Element) -> RawPage | None:
    """Title, namespace, redirect and the last revision's text; None without a title."""
    fields = {_name(child): child for child in page}  # of several revisions the last one stays
    title = (fields["title"].text or "").strip() if "title" in fields else ""
    texts = [child.text for child in fields.get("revision", ()) if _name(child) == "text"]
    wikitext = (texts[-1] if texts else None) or ""
    redirect = fields["redirect"].get("title") if "redirect" in fields else None
    if redirect is None and (match := REDIRECT.match(wikitext)):
        redirect = match[1]
    namespace = (fields["ns"].text or "").strip() if "ns" in fields else "0"
    return RawPage(title, namespace, redirect, wikitext) if title else None


def _name(element: Element) -> str:
    """A tag without the XML namespace, which has the dump format's version in it."""
    return str(element.tag).rpartition("}")[2]


def _after(last: str) -> str:
    return f"after the page {last!r}" if last else "before its first page"


def _why(error: Exception) -> str:
    text = str(error)
    with contextlib.suppress(IndexError):
        text = {"no element found": "the file ends too early"}.get(text.partition(":")[0], text)
    return text[:1].lower() + text[1:]
