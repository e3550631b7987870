"""Read published captions and notes into records of the store."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from scanner_jax.images import without_extension
from scanner_jax.spill import SpilledDict
from scanner_jax.store.sources import Imported, Texts, all_lines, lines, refuse
from scanner_jax.types import Example

NOTE_FILES = {"train": ("train.txt",), "dev": ("valid.txt", "dev.txt"), "test": ("test.txt",)}
"""The names that a split's notes go by."""

REPETITION = re.compile(r"(?<![\w'])(\w(?:.{0,60}?\w)?)(?:\W+\1(?![\w'])){3,}(?P<rest>.*)$", re.DOTALL)
"""A phrase four times or more in a row, and what follows."""


@dataclasses.dataclass(slots=True)
class _Block:
    """One sentence of a notes file: its words with their line numbers, and the note's words."""

    line: int
    words: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    note: list[str] | None = None


def read_captions(paths: Sequence[Path]) -> Imported:
    """Read BLIP-2 caption files: `IMAGE.jpg :caption`, split at the first ` :`.

    The key is the file name without its extension. An empty caption is skipped. A caption that ends in one
    phrase four times or more in a row, as captioners at a loss write, keeps the phrase once.

    Args:
        paths: text files in UTF-8; together they become the store's captions.

    Raises:
        StoreError: lists every line of another form and every image with two different captions.
    """
    texts = SpilledDict[str]()
    problems: list[str] = []
    empty: list[str] = []
    again: list[str] = []
    cut: list[str] = []
    for place, line in lines(paths, problems):
        name, separator, caption = line.partition(" :")
        key = without_extension(name)
        if not separator or not key:
            problems.append(f"{place}: expected 'IMAGE.jpg :caption', found {line[:60]!r}")
            continue
        text = cut_repetition(caption.strip())
        if not text:
            empty.append(place)
        elif (known := texts.get(key)) == text:
            again.append(place)
        elif known is not None:
            problems.append(f"{place}: {name} has another caption already; keep one of the two")
        else:
            texts[key] = text
            cut += [place] if text != caption.strip() else []
    if not texts and not problems:
        problems.append(f"no caption in {', '.join(map(str, paths))}; expected lines of 'IMAGE.jpg :caption'")
    refuse(problems)
    remarks = {
        "skipped, empty": tuple(empty),
        "skipped, same image and caption as before": tuple(again),
        "repetition cut": tuple(cut),
    }
    return Imported(Texts(texts), remarks, tuple(paths))


def cut_repetition(text: str) -> str:
    """Keep a phrase once where the text ends in it four times or more in a row, the last one perhaps unfinished."""
    at = 0
    while match := REPETITION.search(text, at):
        if match[1].startswith(re.sub(r"^\W+|\W+$", "", match["rest"])):
            return text[: match.end(1)]
        at = match.start() + 1  # one that ends before the text does; another may follow
    return text


def read_notes(folder: Path, corpus: Mapping[str, Sequence[Example]]) -> Imported:
    """Read the ChatGPT notes of PGIM and RiVEG and give each the id of its example.

    The files carry no ids: sentence n of a file is example n of the split, and every token is compared with the
    corpus. Nothing is tolerated but the line ends (CRLF or LF); tags are not compared. Only the last example of
    a split may lack its sentence, as in the published Twitter-2015 files.

    The note is its words joined by single spaces; the empty words that double spaces left are dropped.

    Args:
        folder: holds train.txt, valid.txt (or dev.txt) and test.txt: blocks of `token<TAB>tag` lines, then
            `<EOS><TAB>X`, then `word<TAB>X` lines of the note, then a blank line.
        corpus: split name ("train", "dev", "test") -> its examples in their published order.

    Raises:
        StoreError: lists missing files, malformed lines, and each file's first mismatch.
    """
    texts: dict[str, str] = {}
    problems: list[str] = []
    without: list[str] = []
    sources: list[Path] = []
    for split, examples in corpus.items():
        names = NOTE_FILES.get(split, (f"{split}.txt",))
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            problems.append(f"{folder}: no {' or '.join(names)} for the corpus's {split} split")
            continue
        malformed = len(problems)
        blocks = _blocks(path, problems)
        if len(problems) == malformed:
            problems += _mismatches(path, split, examples, blocks)
        notes = [" ".join(block.note or ()) for block in blocks]
        notes += [""] * (len(examples) - len(notes))
        texts |= {example.id: note for example, note in zip(examples, notes, strict=False) if note}
        without += [f"{split} {example.id}" for example, note in zip(examples, notes, strict=False) if not note]
        sources.append(path)
    refuse(problems)
    return Imported(Texts(texts), {"examples without notes": tuple(without)}, tuple(sources))


def _blocks(path: Path, problems: list[str]) -> list[_Block]:
    """Cut a notes file at its blank lines."""
    blocks: list[_Block] = []
    current: _Block | None = None
    for number, line in all_lines(path, problems):
        if not line:
            current = None
            continue
        if current is None:
            current = _Block(number)
            blocks.append(current)
        word, tab, tag = line.partition("\t")
        in_note = current.note is not None
        if not tab or not tag or "\t" in tag or not (word or in_note):  # a note's double space gives an empty word
            problems.append(f"{path}:{number}: expected 'word<TAB>tag', found {line[:60]!r}")
        elif current.note is not None:
            current.note += [word] if word else []
        elif (word, tag) == ("<EOS>", "X"):
            current.note = []
        else:
            current.words.append((number, word))
    problems += [f"{path}:{b.line}: a sentence without its '<EOS><TAB>X' line" for b in blocks if b.note is None]
    return blocks


def _mismatches(path: Path, split: str, examples: Sequence[Example], blocks: Sequence[_Block]) -> list[str]:
    """The first place where the sentences differ from the corpus (one shift makes all that follows differ)."""
    pairs = zip(examples, blocks, strict=False)
    bad = [i for i, (example, block) in enumerate(pairs) if [word for _, word in block.words] != list(example.words)]
    if bad:
        place, found, expected = _first_difference(examples[bad[0]], blocks[bad[0]])
        problem = (
            f"{path}:{place}: expected {expected}, found {found}, in sentence {bad[0] + 1}, example "
            f"{examples[bad[0]].id} of {split}; {len(bad)} of {len(blocks)} sentences differ: "
            "give the corpus that the notes were written for, in its published order"
        )
        return [problem]
    if not len(examples) - 1 <= len(blocks) <= len(examples):
        counts = f"{len(blocks)} sentences, and the corpus's {split} split has {len(examples)}"
        return [f"{path}: {counts}: only the last may be missing"]
    return []


def _first_difference(example: Example, block: _Block) -> tuple[int, str, str]:
    """Line, found and expected at the first token that differs."""
    for (line, found), expected in zip(block.words, example.words, strict=False):
        if found != expected:
            return line, repr(found), repr(expected)
    if len(block.words) > len(example.words):
        line, found = block.words[len(example.words)]
        return line, repr(found), "the end of the sentence"
    line = block.words[-1][0] + 1 if block.words else block.line
    return line, "the end of the sentence", repr(example.words[len(block.words)])
