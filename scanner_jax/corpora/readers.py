"""Reads corpus folders: CoNLL-2003, Twitter-2015 and -2017, Twitter-GMNER, and tagged files of one's own."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from scanner_jax.corpora.annotations import Annotation, read_annotations, with_boxes
from scanner_jax.corpora.examples import Examples
from scanner_jax.corpora.layouts import OWN, SPLITS, Layout, detect_layout, split_file
from scanner_jax.corpora.problems import CorpusError, Problem
from scanner_jax.corpora.schemes import PREFIXES, TagScheme, name_scheme, read_tags
from scanner_jax.spill import SpilledDict
from scanner_jax.types import NON_ENTITY, Entity, Example

_IMAGE_PREFIX = "IMGID:"
_DOCUMENT_START = "-DOCSTART-"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_TAG_FORMS = f"O or PREFIX-TYPE with one of the prefixes {' '.join(PREFIXES)}"


@dataclasses.dataclass(frozen=True, slots=True)
class ReadSplit:
    """One split as read.

    Attributes:
        examples: in the file's order.
        scheme: of its tags; None where the file has words alone, so there is no gold.
    """

    examples: Examples
    scheme: TagScheme | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    """How one file's lines are to be read: as its layout says, else as most of its lines are."""

    separator: str
    columns: int
    types: frozenset[str] | None
    tweets: bool

    @property
    def row(self) -> str:
        if self.columns == 1:
            return "one word a line, as on most lines here; or a tag on every line"
        separator = {"\t": "TAB", " ": "one space"}[self.separator]
        return f"{self.columns} columns separated by {separator}, the word first and its tag last"


_Line = tuple[int, str]
"""A line's number, from 1, and its text."""


class _Image(NamedTuple):
    line: int
    id: str


class _Sentence(NamedTuple):
    image_id: str | None
    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_splits(folder: Path) -> tuple[dict[str, ReadSplit], dict[str, Annotation]]:
    """Read a corpus folder's splits, and the boxes of their entities from its `xml/` where it has one.

    Tags are read leniently, in whichever scheme they are (see `schemes.read_tags`). A file of one column has words
    alone: a split without gold. A tweet's id is its image id; where an image id comes again in the corpus, its later
    tweets get `#2`, `#3` and so on, in the order train, dev, test. The id of a sentence without an image is its split
    and number, `train-0`. **Assumption:** words that follow a blank line without an `IMGID:` line of their own are
    another sentence of the same tweet.

    Args:
        folder: a corpus in one of `layouts.LAYOUTS`, recognised by the files in it.

    Returns:
        `train`, `dev` and `test`; `dev` may be missing where the layout allows it. And what `xml/` says of each image.

    Raises:
        CorpusError: everything that is wrong, with file and line: missing files, malformed lines, unknown types.
    """
    layout = detect_layout(folder)
    problems: list[Problem] = []
    paths = {split: split_file(folder, layout, split, problems) for split in SPLITS}
    annotations = read_annotations(folder, problems)
    unique = functools.partial(_unique, seen=SpilledDict[int]())
    splits = {
        split: _read_split(split, path, layout, annotations, unique=unique, problems=problems)
        for split, path in paths.items()
        if path is not None
    }
    if "train" in splits and splits["train"].examples and splits["train"].scheme is None:
        expected = "tagged sentences to train on; only dev and test may do without tags"
        problems.append(Problem(str(paths["train"]), None, "words without tags", expected))
    if problems:
        raise CorpusError(folder, problems)
    return splits, annotations


def read_file(path: Path, *, split: str = "test") -> Examples:
    """Read one file of sentences, tagged or not, as `read_splits` reads data of one's own, without boxes.

    Args:
        path: the file.
        split: what the ids of sentences without an image begin with.

    Raises:
        CorpusError: everything that is wrong, with file and line.
    """
    problems: list[Problem] = []
    unique = functools.partial(_unique, seen=SpilledDict[int]())
    read = _read_split(split, path, OWN, {}, unique=unique, problems=problems)
    if problems:
        raise CorpusError(path, problems)
    return read.examples


def _read_split(
    split: str,
    path: Path,
    layout: Layout,
    annotations: Mapping[str, Annotation],
    *,
    unique: Callable[[str], str],
    problems: list[Problem],
) -> ReadSplit:
    """A file's sentences as examples, with what is wrong in them added to `problems`."""
    # Read twice, since a file's lines take several times the memory of its examples.
    form = _form(_lines(path, problems), layout)
    examples = Examples()

    def read() -> Iterator[tuple[str, tuple[str, ...], tuple[Entity, ...]]]:
        for number, (image_id, words, tags) in enumerate(_sentences(path, form, problems)):
            identity = unique(f"{split}-{number}" if image_id is None else image_id)
            example = with_boxes(Example(identity, words, read_tags(tags), image_id), annotations)
            examples.append(example)
            yield identity, tags, example.entities

    scheme = name_scheme(read())  # which takes each sentence as it is read, so that their tags are not kept
    if not examples and not any(problem.file == str(path) for problem in problems):
        expected = form.row if layout.columns else "a word and its tag a line, with a blank line after each sentence"
        problems.append(Problem(str(path), None, "no sentences", expected))
    return ReadSplit(examples, scheme if form.columns > 1 else None)


def _sentences(path: Path, form: _Form, problems: list[Problem]) -> Iterator[_Sentence]:
    """Yield a file's sentences; what is wrong in them goes to `problems`."""
    for image, rows in _blocks(_lines(path, []), form):
        if form.tweets and image is None:
            number, line = rows[0]
            expected = f"a line {_IMAGE_PREFIX}<image id> before a tweet's words"
            problems.append(Problem(str(path), number, f"{line!r} before any {_IMAGE_PREFIX} line", expected))
        if image is not None and not image.id:
            problems.append(Problem(str(path), image.line, f"{_IMAGE_PREFIX} alone", f"{_IMAGE_PREFIX}<image id>"))
        if image is not None and not rows:
            found = f"{_IMAGE_PREFIX}{image.id} without words"
            problems.append(Problem(str(path), image.line, found, "the tweet's words in the lines right below it"))
        pairs = [_row(line, form=form, place=(str(path), number), problems=problems) for number, line in rows]
        words, tags = tuple(word for word, _ in pairs), tuple(tag for _, tag in pairs)
        yield _Sentence(None if image is None else image.id, words, tags)


def _form(lines: Iterable[_Line], layout: Layout) -> _Form:
    """What the layout leaves open is taken from most of the file's lines."""
    separators = (layout.separator,) if layout.separator else ("\t", " ")
    columns = {separator: collections.Counter[int]() for separator in separators}
    images = dict.fromkeys(separators, False)
    tabs = blanks = 0
    for _, line in lines:
        if not line.strip(" \t") or line.startswith(_DOCUMENT_START):
            continue
        image = line.startswith(_IMAGE_PREFIX)
        tabs += "\t" in line
        blanks += " " in line and "\t" not in line and not image
        for separator in separators:
            if image and _is_image(line, separator):
                images[separator] = True
            else:
                columns[separator][line.count(separator) + 1] += 1
    separator = layout.separator or ("\t" if tabs and tabs >= blanks else " ")
    counts = columns[separator]
    most = max(counts, key=lambda columns: (counts[columns], columns), default=1)
    return _Form(
        separator=separator,
        columns=layout.columns or most,
        types=layout.types,
        tweets=images[separator] if layout.tweets is None else layout.tweets,
    )


def _is_image(line: str, separator: str) -> bool:
    """Whether a line gives an image id and is not a word with its tag."""
    return line.startswith(_IMAGE_PREFIX) and separator not in line.removeprefix(_IMAGE_PREFIX).strip(" ")


def _blocks(lines: Iterable[_Line], form: _Form) -> Iterator[tuple[_Image | None, list[_Line]]]:
    """Group lines into sentences, each with the image line that holds for it; the last needs no blank line after it."""
    image: _Image | None = None
    rows: list[_Line] = []
    fresh = False  # the image line stands right above: it makes a block even where no words follow
    for number, line in lines:
        is_image = form.tweets and _is_image(line, form.separator)
        if not is_image and not _ends_sentence(line, form):
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
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if number == 1 and raw.startswith(_WIDE_MARKS):
                    problems.append(Problem(str(path), None, "a file in UTF-16", "a file saved as UTF-8"))
                    return
                yield number, _decoded(raw, place=(str(path), number), problems=problems)
    except OSError as error:
        problems.append(Problem(str(path), None, f"can't be read ({error.strerror})", "a readable file"))


def _decoded(raw: bytes, *, place: tuple[str, int], problems: list[Problem]) -> str:
    """A line's text without its end; what is not UTF-8 goes to `problems` and is replaced."""
    raw = raw.removesuffix(b"\n").removesuffix(b"\r")
    if place[1] == 1:
        raw = raw.removeprefix(_BYTE_ORDER_MARK)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{raw[error.start]:02x} at column {error.start + 1} that is not UTF-8"
        problems.append(Problem(*place, found, "a file saved as UTF-8"))
        return raw.decode("utf-8", errors="replace")


def _ends_sentence(line: str, form: _Form) -> bool:
    """Whether a line is blank or the start of a CoNLL document; a no-break space alone is not blank."""
    if not line.strip(" \t"):
        return True
    return not form.tweets and line.split(form.separator, 1)[0] == _DOCUMENT_START


def _row(line: str, *, form: _Form, place: tuple[str, int], problems: list[Problem]) -> tuple[str, str]:
    """A line's word and tag; what is wrong with it goes to `problems`, and the tag becomes O."""
    columns = line.split(form.separator)
    word, tag = columns[0], columns[-1] if form.columns > 1 else "O"
    if len(columns) != form.columns:
        problems.append(Problem(*place, f"{line!r}, {len(columns)} column(s)", form.row))
        return word, "O"
    if not word.strip(" ") or "\t" in word:
        problems.append(Problem(*place, f"{line!r}, a word that is empty or holds a TAB", form.row))
    if tag == "O":
        return word, tag
    prefix, _, kind = tag.partition("-")
    types = ", ".join(sorted(form.types)) if form.types else ""
    if prefix not in PREFIXES or not kind:
        forms = f"{_TAG_FORMS}, TYPE one of {types}" if types else f"{_TAG_FORMS}; a split without gold has words alone"
        problems.append(Problem(*place, f"tag {tag!r}", forms))
        return word, "O"
    if form.types is not None and kind not in form.types:
        problems.append(Problem(*place, f"unknown type {kind!r} in tag {tag!r}", f"one of {types}"))
    if kind == NON_ENTITY:
        expected = "another name: that is the model's own class for what is no entity"
        problems.append(Problem(*place, f"type {kind!r}", expected))
    return word, tag


def _unique(name: str, seen: SpilledDict[int]) -> str:
    """A name that is not among those seen, with `#2`, `#3` and so on behind it where it has to be; adds it to them.

    What is seen has each name's last number: counting from 2 every time would be quadratic in its repeats.
    """
    identity, repeat = name, seen.get(name, 0)
    while repeat and identity in seen:
        repeat += 1
        identity = f"{name}#{repeat}"
    seen[identity] = 1
    if repeat:
        seen[name] = repeat
    return identity
