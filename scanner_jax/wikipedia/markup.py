"""From a page's wikitext to the text of its lead, or to the links of a disambiguation page."""

from __future__ import annotations

import re

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

HEADING = re.compile(r"^==+[^=\n].*$", re.MULTILINE)
"""The first one ends the lead."""

LONGEST_LEAD = 100_000
"""Characters: few leads have a tenth of it, and what markup costs to read grows faster than its length."""

UNREAD_TAGS = frozenset(
    "table ref references gallery imagemap timeline math chem score syntaxhighlight source graph br hr".split()
)
"""Tags whose content is no running text."""

SHOWN_ARGUMENTS = {
    "lang": ("2",),
    "nowrap": ("1",),
    "nobr": ("1",),
    "small": ("1",),
    "abbr": ("1",),
    "nihongo": ("1",),
    "transl": ("2",),
    "transliteration": ("2",),
    "convert": ("1", "2"),
    "cvt": ("1", "2"),
}
"""Templates that stand for words of a sentence -> their arguments that show; all other templates are left out."""

SIGNS = {"ndash": "\u2013", "mdash": "\u2014", "snd": " \u2013 ", "spaced ndash": " \u2013 ", "nbsp": " ", "'": "'"}
"""Templates that stand for one sign."""

PICTURE = re.compile(r"\s*(?:file|image|media|category)\s*:", re.IGNORECASE)
OTHER_LANGUAGE = re.compile(r"\s*[a-z]{2,3}(?:-[a-z-]+)?:")

DISAMBIGUATION = re.compile(
    r"\{\{\s*(?:[\w-]+ ){0,4}?(?:disambiguation|disambig|disamb|dab|geodis|hndis|numberdis|schooldis|roaddis|mathdab)"
    r"(?: page| cleanup)?\s*(?:\||\}\})|__DISAMBIG__",
    re.IGNORECASE,
)
"""**Assumption:** the English Wikipedia's templates; elsewhere the title must tell."""

EMPTY_BRACKETS = re.compile(r"\s*[(\[][\s,;:/\u2013-]*[)\]]")
START_OF_BRACKETS = re.compile(r"(?<=[(\[])[\s,;:]+")
REPEATED_SEPARATORS = re.compile(r"([,;])(?:\s*[,;])+")
SPACE_BEFORE = re.compile(r"\s+(?=[,;.])|[\s,;]+(?=[)\]])")
SWITCH = re.compile(r"__[A-Z]+__")
ITEM = re.compile(r"^\s*[*#:].*|(?<=''')\s*\[\[.*", re.MULTILINE)
"""An entry of a disambiguation page: a line of a list, or the link in bold type above it that most readers want."""


def is_disambiguation(title: str, wikitext: str) -> bool:
    """Does a page only list what its title may mean?"""
    return title.endswith("(disambiguation)") or DISAMBIGUATION.search(wikitext) is not None


def lead_of(wikitext: str) -> str:
    """A page's wikitext up to its first heading, `LONGEST_LEAD` characters at most."""
    heading = HEADING.search(wikitext, 0, LONGEST_LEAD)
    return wikitext[: heading.start() if heading else LONGEST_LEAD]


def plain_text(wikitext: str) -> str:
    """The words of wikitext on one line, without tables, pictures, references and most templates."""
    text = " ".join(SWITCH.sub("", _words(mwparserfromhell.parse(wikitext))).split())
    text = EMPTY_BRACKETS.sub("", START_OF_BRACKETS.sub("", text))
    return " ".join(SPACE_BEFORE.sub("", REPEATED_SEPARATORS.sub(r"\1", text)).split())


def listed_links(wikitext: str) -> tuple[str, ...]:
    """What a disambiguation page's entries are about: the first link of each, in order."""
    items = (mwparserfromhell.parse(item).filter_wikilinks() for item in ITEM.findall(wikitext))
    targets = (str(links[0].title).strip() for links in items if links)
    return tuple(dict.fromkeys(target for target in targets if target))


def _words(code: Wikicode | None) -> str:
    return "" if code is None else "".join(map(_shown, code.nodes))


def _shown(node: Node) -> str:
    """What a reader sees of a part of the wikitext; comments and the rest of the markup are nothing."""
    match node:
        case Text():
            return str(node.value)
        case HTMLEntity():
            return str(node.normalize())
        case Wikilink():
            return "" if _shows_nothing(node) else _words(node.title if node.text is None else node.text)
        case ExternalLink():
            return _words(node.title)
        case Tag():
            return " " if str(node.tag).strip().lower() in UNREAD_TAGS else _words(node.contents)
        case Template():
            name = str(node.name).strip().lower()
            shown = [argument for argument in SHOWN_ARGUMENTS.get(name, ()) if node.has(argument)]
            return SIGNS.get(name, "") or " ".join(_words(node.get(argument).value).strip() for argument in shown)
    return ""


def _shows_nothing(link: Wikilink) -> bool:
    """Pictures and categories, and the same page in another language: links to there in a sentence have a text."""
    title = str(link.title)
    return PICTURE.match(title) is not None or (OTHER_LANGUAGE.match(title) is not None and not link.text)
