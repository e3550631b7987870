"""Reads corpus folders as their authors publish them: CoNLL-2003, Twitter-2015, Twitter-2017, Twitter-GMNER's text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scanner_jax.tags import entities_from_tags
from scanner_jax.types import Example

SPLITS = ("train", "dev", "test")
_IMAGE_PREFIX = "IMGID:"
_DOCUMENT_START = "-DOCSTART-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PROBLEMS_SHOWN = 50


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a corpus: where, what was found, and what would be right."""

    file: str
    line: int | None
    found: str
    expected: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.found}; expected {self.expected}"


class CorpusError(ValueError):
    """A corpus that can't be read: every problem found in it, raised once.

    Args:
        folder: the folder as the user gave it.
        problems: all of them, in file order; the message shows the first 50 and counts the rest.
    """

    def __init__(self, folder: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        plural = "problem" if len(problems) == 1 else "problems"
        lines = [f"{folder}: {len(problems)} {plural}", *(f"  {problem}" for problem in problems[:_PROBLEMS_SHOWN])]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append(f"  ... and {len(problems) - _PROBLEMS_SHOWN} more")
        super().__init__("\n".join(lines))


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """How a corpus lies in its folder.

    Attributes:
        name: for messages.
        files: each split's accepted file names, relative to the folder; exactly one of them has to be there.
        separator: what stands between a line's columns. It is this one character and nothing else: in tweets a
            token may be a lone no-break space, which a split on white space loses.
        columns: columns a line; the first is the word, the last its tag.
        types: the entity types accepted. **Assumption:** the two Twitter sets share one layout, so OTHER and MISC
            are both accepted there; copies of Twitter-2017 circulate with either.
        tweets: an `IMGID:<id>` line goes before each sentence.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    separator: str
    columns: int
    types: frozenset[str]
    tweets: bool

    @property
    def row(self) -> str:
        """A right line, in words."""
        separator = {"\t": "TAB", " ": "one space"}[self.separator]
        return f"{self.columns} columns separated by {separator}, the word first and its tag last"


CONLL2003 = Layout(
    name="CoNLL-2003",
    files={"train": ("eng.train",), "dev": ("eng.testa",), "test": ("eng.testb",)},
    separator=" ",
    columns=4,
    types=frozenset({"PER", "LOC", "ORG", "MISC"}),
    tweets=False,
)
TWITTER = Layout(
    name="Twitter-2015 or Twitter-2017",
    files={"train": ("train.txt",), "dev": ("valid.txt", "dev.txt"), "test": ("test.txt",)},
    separator="\t",
    columns=2,
    types=frozenset({"PER", "LOC", "ORG", "OTHER", "MISC"}),
    tweets=True,
)
TWITTER_GMNER = Layout(
    name="Twitter-GMNER",
    files={"train": ("txt/train.txt",), "dev": ("txt/dev.txt", "txt/valid.txt"), "test": ("txt/test.txt",)},
    separator="\t",
    columns=2,
    types=frozenset({"PER", "LOC", "ORG", "OTHER"}),
    tweets=True,
)
LAYOUTS = (CONLL2003, TWITTER, TWITTER_GMNER)


_Line = tuple[int, str]
"""A line's number, from 1, and its text."""


class _Image(NamedTuple):
    line: int
    id: str


class _Sentence(NamedTuple):
    image_id: str | None
    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_splits(folder: Path) -> dict[str, tuple[Example, ...]]:
    """Read a corpus folder's three splits.

    Tags are read leniently, whether IOB1, IOB2 or neither (see `tags.entities_from_tags`). A tweet's id is its
    image id; where an image id comes again in the corpus, its later tweets get `#2`, `#3` and so on, in the order
    train, dev, test. A CoNLL sentence's id is its split and number, `train-0`. **Assumption:** words that follow a
    blank line without an `IMGID:` line of their own are another sentence of the same tweet.

    Args:
        folder: a corpus in one of `LAYOUTS`, recognised by the files in it.

    Returns:
        The examples of `train`, `dev` and `test`, in the files' order; an entity's boxes are not read here.

    Raises:
        CorpusError: everything that is wrong, with file and line: missing files, malformed lines, unknown types.
    """
    layout = detect_layout(folder)
    problems: list[Problem] = []
    sentences: dict[str, list[_Sentence]] = {}
    for split in SPLITS:
        path = _split_file(folder, layout, split, problems)
        sentences[split] = [] if path is None else _read_file(path, layout, problems)
    if problems:
        raise CorpusError(folder, problems)
    return _examples(sentences)


def detect_layout(folder: Path) -> Layout:
    """The one layout whose files lie in a folder.

    Raises:
        CorpusError: there is no such folder, or it holds the files of no layout or of several.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "no such folder"
        raise CorpusError(folder, [Problem(str(folder), None, found, f"a folder with {_known_files()}")])
    present = [
        layout
        for layout in LAYOUTS
        if any((folder / name).is_file() for names in layout.files.values() for name in names)
    ]
    if len(present) == 1:
        return present[0]
    if not present:
        found = "no corpus files"
    else:
        found = "files of several corpora (" + ", ".join(layout.name for layout in present) + ")"
    raise CorpusError(folder, [Problem(str(folder), None, found, _known_files())])


def _known_files() -> str:
    return "the files of one: " + "; ".join(f"{layout.name}: {_wanted(layout)}" for layout in LAYOUTS)


def _wanted(layout: Layout) -> str:
    return ", ".join(" or ".join(layout.files[split]) for split in SPLITS)


def _split_file(folder: Path, layout: Layout, split: str, problems: list[Problem]) -> Path | None:
    """A split's file, or a problem where there is none or more than one."""
    names = layout.files[split]
    present = [folder / name for name in names if (folder / name).is_file()]
    if len(present) == 1:
        return present[0]
    found = f"no {split} split" if not present else f"several files for the {split} split"
    problems.append(Problem(str(folder), None, found, f"the file {' or '.join(names)}"))
    return None


def _read_file(path: Path, layout: Layout, problems: list[Problem]) -> list[_Sentence]:
    """A file's sentences, with what is wrong in them added to `problems`."""
    sentences: list[_Sentence] = []
    for image, rows in _blocks(_lines(path, problems), layout):
        if layout.tweets and image is None:
            number, line = rows[0]
            expected = f"a line {_IMAGE_PREFIX}<image id> before a tweet's words"
            problems.append(Problem(str(path), number, f"{line!r} before any {_IMAGE_PREFIX} line", expected))
        if image is not None and not image.id:
            problems.append(Problem(str(path), image.line, f"{_IMAGE_PREFIX} alone", f"{_IMAGE_PREFIX}<image id>"))
        if image is not None and not rows:
            found = f"{_IMAGE_PREFIX}{image.id} without words"
            problems.append(Problem(str(path), image.line, found, "the tweet's words in the lines right below it"))
        pairs = [_row(line, layout=layout, place=(str(path), number), problems=problems) for number, line in rows]
        words, tags = tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs)
        sentences.append(_Sentence(None if image is None else image.id, words, tags))
    if not sentences:
        problems.append(Problem(str(path), None, "no sentences", f"lines of {layout.row}"))
    return sentences


def _blocks(lines: Iterable[_Line], layout: Layout) -> Iterator[tuple[_Image | None, list[_Line]]]:
    """Group lines into sentences, each with the image line that holds for it; the last needs no blank line after it."""
    image: _Image | None = None
    rows: list[_Line] = []
    fresh = False  # the image line stands right above: it makes a block even where no words follow
    for number, line in lines:
        is_image = layout.tweets and line.startswith(_IMAGE_PREFIX) and layout.separator not in line
        if not is_image and not _ends_sentence(line, layout):
            rows.append((number, line))
            continue
        if rows or fresh:
            yield image, rows
        rows, fresh = [], is_image
        if is_image:
            image = _Image(number, line.removeprefix(_IMAGE_PREFIX).strip())
    if rows or fresh:
        yield image, rows


def _lines(path: Path, problems: list[Problem]) -> Iterator[_Line]:
    """A file's lines with their numbers from 1: UTF-8, LF or CRLF, a byte order mark at the start allowed.

    Bytes are split at LF alone, since str.splitlines would also cut at characters that occur inside tweets (U+2028).
    """
    try:
        content = path.read_bytes().removeprefix(_BYTE_ORDER_MARK)
    except OSError as error:
        problems.append(Problem(str(path), None, f"can't be read ({error.strerror})", "a readable file"))
        return
    for number, raw in enumerate(content.split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1} that is not UTF-8"
            problems.append(Problem(str(path), number, found, "a file saved as UTF-8"))
            line = raw.decode("utf-8", errors="replace")
        yield number, line.removesuffix("\r")


def _ends_sentence(line: str, layout: Layout) -> bool:
    """Whether a line is blank or the start of a CoNLL document; a no-break space alone is not blank."""
    if not line.strip(" \t"):
        return True
    return not layout.tweets and line.split(layout.separator, 1)[0] == _DOCUMENT_START


def _row(line: str, *, layout: Layout, place: tuple[str, int], problems: list[Problem]) -> tuple[str, str]:
    """A line's word and tag; what is wrong with it goes to `problems`, and the tag becomes O."""
    columns = line.split(layout.separator)
    word, tag = columns[0], columns[-1]
    if len(columns) != layout.columns:
        problems.append(Problem(*place, f"{line!r}, {len(columns)} column(s)", layout.row))
        return word, "O"
    if not word.strip(" ") or "\t" in word:
        problems.append(Problem(*place, f"{line!r}, a word that is empty or holds a TAB", layout.row))
    if tag == "O":
        return word, tag
    prefix, _, kind = tag.partition("-")
    types = ", ".join(sorted(layout.types))
    if prefix not in ("B", "I") or not kind:
        problems.append(Problem(*place, f"tag {tag!r}", f"O, B-TYPE or I-TYPE with TYPE one of {types}"))
        return word, "O"
    if kind not in layout.types:
        problems.append(Problem(*place, f"unknown type {kind!r} in tag {tag!r}", f"one of {types}"))
    return word, tag


def _examples(sentences: Mapping[str, Sequence[_Sentence]]) -> dict[str, tuple[Example, ...]]:
    """Sentences as examples with ids that are unique in the corpus."""
    seen: set[str] = set()
    splits: dict[str, tuple[Example, ...]] = {}
    for split, rows in sentences.items():
        examples = []
        for number, (image_id, words, tags) in enumerate(rows):
            name = f"{split}-{number}" if image_id is None else image_id
            identity, repeat = name, 1
            while identity in seen:
                repeat += 1
                identity = f"{name}#{repeat}"
            seen.add(identity)
            examples.append(Example(identity, words, entities_from_tags(tags), image_id))
        splits[split] = tuple(examples)
    return splits
