"""Text as people write it -> the words that both stages read, each with its place in the text.

The rule is that of the Twitter corpora, which are split at punctuation:

- a web address (`http://...`), without the punctuation that ends it, is a word;
- so are `@user` and `#tag`, with their mark; a tag may have hyphens;
- so are numbers with `.`, `,`, `:`, `/` or `-` between digits (`3-1`, `10:30`, `2,500`), and `%` behind them;
- so are letters and digits, with single `-`, `.` or `&` between them (`same-sex`, `U.S`, `AT&T`);
- so are two or more dots, or hyphens, in a row;
- any other character that is no blank is a word of its own, apostrophes too: `Obama's` is three words.

Of the words of Twitter-2015's training split it splits 0.8 percent, of Twitter-GMNER's 0.9; most of them are web
addresses that the corpora broke themselves. Of CoNLL-2003's, where `'s` and `U.S.` are words, it splits 2.0 percent:
where that matters, give words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

WORD = re.compile(
    r"""https?://[^\s<>"]*[^\s<>".,:;!?'’)\]}]   # not the punctuation behind an address
    |[@#]\w+(?:-\w+)*
    |\d+(?:[.,:/-]\d+)+%?
    |\w+(?:[-.&]\w+)*
    |\.{2,}|-{2,}
    |[^\w\s]""",
    re.VERBOSE,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Words:
    """A text and its words; word i is `text[starts[i]:ends[i]]`."""

    text: str
    words: tuple[str, ...]
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def characters(self, start: int, end: int) -> tuple[int, int]:
        """Where words `start` to `end`, exclusive, are in the text."""
        return self.starts[start], self.ends[end - 1]


def split_words(text: str) -> Words:
    """Split a text at blanks and punctuation, by the rule above."""
    found = list(WORD.finditer(text))
    return Words(text, tuple(m.group() for m in found), tuple(m.start() for m in found), tuple(m.end() for m in found))


def given_words(words: Sequence[str]) -> Words:
    """Take words as they are; the text is the words joined by single blanks.

    Raises:
        ValueError: a word is no string, or empty.
    """
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ValueError("words: expected a list of strings that are not empty")
    starts, place = [], 0
    for word in words:
        starts.append(place)
        place += len(word) + 1
    ends = (start + len(word) for start, word in zip(starts, words, strict=True))
    return Words(" ".join(words), tuple(words), tuple(starts), tuple(ends))
