"""From a page's wikitext to the text of its lead, or to the links of a disambiguation page."""

from __future__ import annotations

import re

import wikitextparser
from wikitextparser import Template, WikiLink

HEADING = re.compile(r"^==+[^=\n].*$", re.MULTILINE)
"""The first one ends the lead."""

UNREAD_TAGS = frozenset("ref references gallery imagemap timeline math chem score syntaxhighlight source graph".split())
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
    r"\{\{\s*(?:[\w-]+ )*?(?:disambiguation|disambig|disamb|dab|geodis|hndis|numberdis|schooldis|roaddis|mathdab)"
    r"(?: page| cleanup)?\s*(?:\||\}\})|__DISAMBIG__",
    re.IGNORECASE,
)
"""**Assumption:** the English Wikipedia's templates; elsewhere the title must tell."""

EMPTY_BRACKETS = re.compile(r"\s*[(\[][\s,;:/\u2013-]*[)\]]")
START_OF_BRACKETS = re.compile(r"(?<=[(\[])[\s,;:]+")
REPEATED_SEPARATORS = re.compile(r"([,;])(?:\s*[,;])+")
SPACE_BEFORE = re.compile(r"\s+(?=[,;.)\]])")
SWITCH = re.compile(r"__[A-Z]+__")
BREAK = re.compile(r"<br\b[^<>]*>", re.IGNORECASE)
ITEM = re.compile(r"^\s*[*#:].*|(?<=''')\s*\[\[.*", re.MULTILINE)
"""An entry of a disambiguation page: a line of a list, or the link in bold type above it that most readers want."""


def is_disambiguation(title: str, wikitext: str) -> bool:
    """Does a page only list what its title may mean?"""
    return title.endswith("(disambiguation)") or DISAMBIGUATION.search(wikitext) is not None


def lead_of(wikitext: str) -> str:
    """A page's wikitext up to its first heading."""
    heading = HEADING.search(wikitext)
    return wikitext[: heading.start()] if heading else wikitext


def plain_text(wikitext: str) -> str:
    """The words of wikitext on one line, without tables, pictures, references and most templates."""
    parsed = wikitextparser.parse(wikitext)
    unread = [tag.span for tag in parsed.get_tags() if tag.name.lower() in UNREAD_TAGS]
    unread += [match.span() for match in BREAK.finditer(wikitext)]
    unread += [link.span for link in parsed.wikilinks if _shows_nothing(link)]
    rest = wikitextparser.parse(_without(wikitext, unread))
    text = rest.plain_text(replace_templates=_shown, replace_tables=_nothing)
    text = EMPTY_BRACKETS.sub("", START_OF_BRACKETS.sub("", SWITCH.sub("", text)))
    return " ".join(SPACE_BEFORE.sub("", REPEATED_SEPARATORS.sub(r"\1", text)).split())


def listed_links(wikitext: str) -> tuple[str, ...]:
    """What a disambiguation page's entries are about: the first link of each, in order."""
    items = (wikitextparser.parse(item).wikilinks for item in ITEM.findall(wikitext))
    targets = (links[0].target.strip() for links in items if links)
    return tuple(dict.fromkeys(target for target in targets if target))


def _shows_nothing(link: WikiLink) -> bool:
    """Pictures and categories, and the same page in another language: links to there in a sentence have a text."""
    return PICTURE.match(link.title) is not None or (OTHER_LANGUAGE.match(link.title) is not None and not link.text)


def _shown(template: Template) -> str:
    name = template.name.strip().lower()
    if name in SIGNS:
        return SIGNS[name]
    values = (template.get_arg(argument) for argument in SHOWN_ARGUMENTS.get(name, ()))
    return " ".join(plain_text(value.value) for value in values if value is not None)


def _nothing(_: object) -> str:
    return ""


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """The text with a space for each of those spans, some of which may lie in others."""
    kept, place = [], 0
    for start, end in sorted(spans):
        if start >= place:
            kept.append(text[place:start])
        place = max(place, end)
    return " ".join([*kept, text[place:]])
