"""Sentences to predict, from a file, standard input or a corpus: plain lines, JSON lines or CoNLL columns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from scanner_jax.corpora import read_corpus
from scanner_jax.corpora.readers import read_file
from scanner_jax.images import find_images
from scanner_jax.questions import Request
from scanner_jax.types import Example, ImageObject, Knowledge

FORMATS = ("auto", "lines", "jsonl", "conll")

CONLL_ENDINGS = (".conll", ".bio", ".iob", ".tsv")

_FIELDS = ("id", "text", "words", "image", "image_id", "knowledge")

_EXPECTED = '{"text": "..."} or {"words": ["..."]}, with "id", "image", "image_id", "knowledge" where they are known'


class SentencesError(ValueError):
    """Input that cannot be read; the message says which lines, or what would do."""


class Sentence(NamedTuple):
    """A sentence to predict.

    Attributes:
        id: unique in its file.
        request: what `Scanner` is asked.
        gold: the example that it comes from, None where it is no corpus's.
    """

    id: str
    request: Request
    gold: Example | None = None


class Read(NamedTuple):
    """What a file holds, and a line for each of its lines that cannot be read."""

    sentences: list[Sentence]
    problems: list[str]


def read_sentences(
    source: Path, data: bytes, *, form: str = "auto", images: Path | None = None, split: str = "test"
) -> Read:
    """Read all sentences of an input.

    Plain lines are one text each, with the line's number as id; blank ones are passed over. JSON lines are objects as
    `_EXPECTED` has them. CoNLL columns are read as corpora are; of those, one malformed line spoils the whole file.

    Args:
        source: the file, which names what is wrong; or a corpus's folder, of which `split` is taken.
        data: the file's content.
        form: one of `FORMATS`; "auto" goes by the file's ending, then by its first line.
        images: the folder of images by their ids, for CoNLL and corpora; paths in JSON lines are relative to it.
        split: of a corpus.

    Raises:
        SentencesError: nothing to predict, or ids that come twice.
        CorpusError, ImagesError: CoNLL columns, a corpus or a folder of images that cannot be read.
    """
    if source.is_dir():
        splits = read_corpus(source).splits
        if split not in splits:
            raise SentencesError(f"{source} has no {split} split; it has {', '.join(splits)}")
        read = Read(_of_examples(splits[split], images), [])
    elif (form if form != "auto" else guess_format(source, data)) == "conll":
        read = Read(_of_examples(_conll(source, data, split), images), [])
    else:
        plain = (form if form != "auto" else guess_format(source, data)) == "lines"
        read = _read_lines(source, data, _plain if plain else _object, images)
    if not read.sentences and not read.problems:
        raise SentencesError(f"{source}: nothing to predict in it")
    return read


def guess_format(source: Path, data: bytes) -> str:
    """The format of a file by its ending, or by the first line that is not blank."""
    ending = source.suffix.lower()
    if ending in (".jsonl", ".ndjson"):
        return "jsonl"
    if ending in CONLL_ENDINGS:
        return "conll"
    first = next((line for line in data.split(b"\n") if line.strip()), b"").removeprefix(b"\xef\xbb\xbf")
    if first.startswith(b"{"):
        return "jsonl"
    return "conll" if first.startswith(b"IMGID:") or b"\t" in first else "lines"


def _conll(source: Path, data: bytes, split: str) -> Sequence[Example]:
    if source.is_file():
        return read_file(source, split=split)
    with tempfile.TemporaryDirectory(prefix="scanner-") as folder:  # standard input
        path = Path(folder) / "standard input"
        path.write_bytes(data)
        return read_file(path, split=split)


def _of_examples(examples: Iterable[Example], images: Path | None) -> list[Sentence]:
    files = find_images(images) if images is not None else {}
    return [
        Sentence(
            example.id,
            Request(
                words=example.words,
                id=example.id,
                image_id=example.image_id,
                image=files.get(example.image_id or ""),
            ),
            example,
        )
        for example in examples
    ]


def _read_lines(
    source: Path, data: bytes, read: Callable[[str, int, Path | None], Sentence], images: Path | None
) -> Read:
    sentences: dict[str, Sentence] = {}
    problems: list[str] = []
    for number, raw in _numbered(data):
        try:
            sentence = read(raw.decode("utf-8-sig" if number == 1 else "utf-8"), number, images)
            if sentence.id in sentences:
                raise ValueError(f"id {sentence.id!r} has a line already")
            sentences[sentence.id] = sentence
        except UnicodeDecodeError as error:
            problems.append(f"{source}:{number}: not UTF-8 ({error.reason} at byte {error.start})")
        except json.JSONDecodeError as error:
            problems.append(f"{source}:{number}: not JSON ({error.msg}, column {error.colno}); expected {_EXPECTED}")
        except (ValueError, RecursionError) as error:
            problems.append(f"{source}:{number}: {error}; expected {_EXPECTED}")
    return Read(list(sentences.values()), problems)


def _numbered(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers from 1; they end at LF alone, which tweets have none of."""
    for number, raw in enumerate(data.split(b"\n"), start=1):
        if raw.strip():
            yield number, raw.removesuffix(b"\r")


def _plain(line: str, number: int, images: Path | None) -> Sentence:
    return Sentence(str(number), Request(text=line))


def _object(line: str, number: int, images: Path | None) -> Sentence:
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a JSON {type(record).__name__}")
    if unknown := sorted(set(record) - set(_FIELDS)):
        raise ValueError(f"unknown field {', '.join(map(repr, unknown))}")
    for name in ("id", "text", "image", "image_id"):
        if not isinstance(record.get(name, ""), str):
            raise ValueError(f"{name} is no string")
    image = record.get("image")
    identity = record.get("id", str(number))
    request = Request(
        text=record.get("text"),
        words=record.get("words"),
        id=identity,
        image=None if image is None else (images or Path()) / image,
        image_id=record.get("image_id"),
        knowledge=_knowledge(record["knowledge"]) if "knowledge" in record else None,
    )
    request.split()
    return Sentence(identity, request)


def _knowledge(value: Any) -> Knowledge:
    """Knowledge as JSON: texts by kind, and objects with box, label, score, caption."""
    texts = ("wikipedia", "notes", "caption")
    if not isinstance(value, dict) or set(value) - {*texts, "objects"}:
        raise ValueError(f"knowledge is not an object with some of {', '.join(texts)}, objects")
    for name, kind in [*((name, str) for name in texts), ("objects", list)]:
        if not isinstance(value.get(name, kind()), kind):
            raise ValueError(f"knowledge: {name} is no {'string' if kind is str else 'list'}")
    objects = tuple(_image_object(item) for item in value.get("objects", ()))
    return Knowledge(**{name: value.get(name, "") for name in texts}, objects=objects)


def _image_object(item: Mapping[str, Any]) -> ImageObject:
    try:
        x1, y1, x2, y2 = (float(number) for number in item["box"])
        return ImageObject(
            (x1, y1, x2, y2), str(item["label"]), float(item.get("score", 1)), str(item.get("caption", ""))
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError('an object is not {"box": [x1, y1, x2, y2], "label": "...", ...}') from error
