"""The normal forms of titles and mentions: each is defined here once, for building and for looking up."""

from __future__ import annotations

import re
import unicodedata

MARKS = "#@ \t"
"""What a mention may begin with on Twitter: stripped from its start."""

TRAILING = " .,:;!?\u2026'\"\u2018\u2019\u201c\u201d"
"""Punctuation that is stripped from the end: no brackets, which belong to titles, and no `+`, as in `C++`."""

UNDECOMPOSED = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t"}
)
"""Latin letters whose strokes and ligatures Unicode does not take for diacritics, after case folding."""

CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where an ASCII word is cut; the general rule is in `split_camel_case`."""


def normalise(title: str) -> str:
    """The normal form: words without case, diacritics, leading `#` and `@` and trailing punctuation.

    Underscores and runs of white space are one space. Compatibility characters (full-width letters, ligatures) are
    their plain ones. What consists of such punctuation alone, as the title `!!!`, keeps it.
    """
    words = clean(title)
    if words.isascii():
        return words.lower()
    folded, before = words, ""
    while folded != before:  # folding can leave what decomposes, and the reverse: two rounds are the rule
        before = folded
        decomposed = unicodedata.normalize("NFKD", folded.casefold()).translate(UNDECOMPOSED)
        folded = clean("".join(char for char in decomposed if not unicodedata.combining(char)))
    return folded


def clean(title: str) -> str:
    """The normal form before case and diacritics are folded."""
    words = " ".join(title.replace("_", " ").split()).lstrip(MARKS)
    return words.rstrip(TRAILING) or words


def split_camel_case(text: str) -> str:
    """`SteveKerr` -> `Steve Kerr`, `NBAFinals` -> `NBA Finals`."""
    if text.isascii():
        return CAMEL.sub(" ", text)
    pairs = zip(text, text[1:], [*text[2:], ""], strict=False)
    cuts = [b.isupper() and (a.islower() or a.isdigit() or (a.isupper() and c.islower())) for a, b, c in pairs]
    return text[:1] + "".join(f" {char}" if cut else char for char, cut in zip(text[1:], cuts, strict=True))


def forms(surface: str) -> tuple[str, ...]:
    """The normal forms to try for a mention: as it is written, then split at camel case; none if nothing is left."""
    first = normalise(surface)
    if not first or surface.islower():
        return (first,) if first else ()
    split = split_camel_case(surface)
    if split == surface:
        return (first,)
    second = normalise(split)
    return (first,) if second == first else (first, second)


def canonical_title(target: str) -> str:
    """A link's target as the title of a page: no section, no underscores, its first letter in upper case."""
    title = " ".join(target.partition("#")[0].replace("_", " ").split()).lstrip(": ")
    return title[:1].upper() + title[1:]
