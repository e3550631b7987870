"""Find entities with an exported model: `python -m scanner_jax.predict --model FOLDER --text "..."`."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import rich.console

from scanner_jax.command_line import quieten
from scanner_jax.drawing import draw
from scanner_jax.files import explain, iter_json_lines, naming, write_text
from scanner_jax.images import UnreadableImage
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.lock import locked
from scanner_jax.model_options import Known, add_model_options, opened
from scanner_jax.predictions import conll_lines, prediction_record
from scanner_jax.scanner import BATCH_SIZE, Prediction, Scanner
from scanner_jax.sentences import FORMATS, Sentence, SentencesError, read_sentences
from scanner_jax.throughput import Throughput
from scanner_jax.types import Entity, Example

AT_ONCE = 512
"""Sentences between two writes; a run that is killed loses as many."""

SHOWN_PROBLEMS = 20

DESCRIPTION = """Find the entities of one text, or of all sentences of a file, with a model that
`python -m scanner_jax.export` made."""

EPILOG = """input formats (--input-format; by default by the file's ending, then by its first line)
  lines   a text a line; its id is the line's number
  jsonl   {"text": "..."} or {"words": ["..."]} a line, and where they are known
          "id", "image" (a file), "image_id" (in the store), "knowledge" ({"caption": "...", "wikipedia": "...",
          "notes": "...", "objects": [{"box": [x1, y1, x2, y2], "label": "..."}]})
  conll   a word a line, tagged or not, a blank line after each sentence, IMGID:<image id> before it
  A folder is a corpus, of which --split is predicted, with the ids that evaluate knows.

output formats (--output-format; by default by the file's ending)
  jsonl   the predictions format, which `python -m scanner_jax.evaluate` takes; start and end count words,
          start_char and end_char characters of the text as given
  conll   word, predicted tag, with the gold tag between them where the input has tags: conlleval -d '\\t'

examples
  python -m scanner_jax.predict --model exported/mner15 --text "Ada Okafor plays in Lake Tamsin tonight"
  python -m scanner_jax.predict --model exported/gmner --text "Go Reds" --image photo.jpg --draw drawn.png
  python -m scanner_jax.predict --model exported/mner15 --input data/twitter2015 --output predictions.jsonl \\
      --store prepared/knowledge/twitter2015 --wikipedia prepared/wikipedia.sqlite

A run that is stopped or killed goes on with the same command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if (options.text is None) == (options.input is None):
        parser.error("give --text or --input")
    if options.draw and not (options.text is not None and options.image):
        parser.error("--draw goes with --text and --image")
    if options.input is None and (options.output or options.images):
        parser.error("--output and --images go with --input")
    if options.input is not None and options.image:
        parser.error(
            "--image goes with --text; with --input, name images in JSON lines, or give their folder, --images"
        )
    quieten()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("scanner_jax").setLevel(logging.WARNING)
    try:
        with leaving_at_signals():
            return _predict_text(options) if options.input is None else _predict_file(options)
    except UnreadableImage as error:
        print(f"error: {options.image}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    except ValueError as error:  # of model, sentences, corpus, images, store or index
        print(f"error: {error}", file=sys.stderr)
    except Interrupted as error:
        print(f"stopped by {error.signal.name}; the same command goes on from here", file=sys.stderr)
        return error.exit_code
    return 1


def _predict_text(options: argparse.Namespace) -> int:
    """Print the entities of a text, one a line."""
    with opened(options) as (scanner, knowledge):
        entities = scanner.predict(options.text, options.image, **knowledge)
        for entity in entities:
            box = "" if entity.box is None else f"  box {', '.join(f'{side:g}' for side in entity.box)}"
            print(f"{entity}{box}{f' {entity.box_score:.2f}' if box else ''}")
        if not entities:
            print("no entity found", file=sys.stderr)
        if options.draw:
            draw(options.image, entities, scanner.labels, options.draw)
    return 0


def _predict_file(options: argparse.Namespace) -> int:
    """Predict all sentences of a file into another."""
    source = Path("standard input") if options.input == "-" else Path(options.input)
    data = b"" if source.is_dir() else sys.stdin.buffer.read() if options.input == "-" else source.read_bytes()
    read = read_sentences(source, data, form=options.input_format, images=options.images, split=options.split)
    for problem in read.problems[:SHOWN_PROBLEMS]:
        print(problem, file=sys.stderr)
    if len(read.problems) > SHOWN_PROBLEMS:
        print(f"... and {len(read.problems) - SHOWN_PROBLEMS:,} more", file=sys.stderr)
    if read.problems and options.bad_lines == "stop":
        raise SentencesError(
            f"{len(read.problems):,} lines of {source} cannot be read; correct them, or pass --bad-lines skip"
        )
    with opened(options, batch_size=options.batch_size) as (scanner, knowledge):
        if options.output is None:
            _write(sys.stdout, _predicted(scanner, read.sentences, knowledge, options.batch_size), options)
        else:
            _predict_resumably(options, scanner, read.sentences, knowledge)
    if read.problems:
        print(f"left out: {len(read.problems):,} lines", file=sys.stderr)
    return 0


def _predict_resumably(
    options: argparse.Namespace, scanner: Scanner, sentences: Sequence[Sentence], knowledge: Known
) -> None:
    """Write OUTPUT, going on where an earlier run of the same command was stopped.

    Records are appended to a file beside it, in the predictions format; OUTPUT is written when all are there.
    """
    aside = options.output.with_name(f"{options.output.name}.part")
    with locked(aside):
        records = aside / f"{_key(options, scanner, sentences, knowledge)[:16]}.jsonl"
        records.touch()
        known = _keep_whole_lines(records)
        console = rich.console.Console(stderr=True)
        with Throughput("predict", "sentences", len(sentences), console, start=known) as progress:
            for start in range(known, len(sentences), AT_ONCE):
                part = sentences[start : start + AT_ONCE]
                _append(records, _predicted(scanner, part, knowledge, options.batch_size))
                progress.at(start + len(part), start + len(part) - known)
            seconds = progress.seconds
        found = zip(sentences, iter_json_lines(records), strict=True)
        write_text(options.output, _lines(found, _output_format(options)))
        shutil.rmtree(aside)
    new = len(sentences) - known
    before = f", {known:,} of them before" if known else ""
    print(f"{len(sentences):,} sentences -> {options.output}{before}; {new / max(seconds, 1e-9):,.1f} a second")


def _predicted(
    scanner: Scanner, sentences: Sequence[Sentence], knowledge: Known, batch_size: int
) -> Iterator[tuple[Sentence, dict[str, Any]]]:
    """Each sentence with its record of the predictions format."""
    found = scanner.explain([sentence.request for sentence in sentences], batch_size=batch_size, **knowledge)
    for sentence, prediction in zip(sentences, found, strict=True):
        yield sentence, record_of(sentence.id, prediction)


def record_of(identity: str, prediction: Prediction) -> dict[str, Any]:
    """A prediction in the predictions format, with the text, its words, and offsets in the text as it was given."""
    words = prediction.words
    record = prediction_record(Example(identity, words.words), prediction.predicted)
    for item in record["entities"]:
        item["start_char"], item["end_char"] = words.characters(item["start"], item["end"])
        item["text"] = words.text[item["start_char"] : item["end_char"]]
    return {"id": identity, "text": words.text, "words": list(words.words), "entities": record["entities"]}


def _write(out: IO[str], found: Iterator[tuple[Sentence, dict[str, Any]]], options: argparse.Namespace) -> None:
    out.writelines(_lines(found, _output_format(options)))
    out.flush()


def _lines(found: Iterator[tuple[Sentence, dict[str, Any]]], form: str) -> Iterator[str]:
    for sentence, record in found:
        if form == "jsonl":
            yield _json_line(record)
            continue
        entities = [Entity(item["start"], item["end"], item["type"]) for item in record["entities"]]
        tagged = sentence.gold or Example(sentence.id, tuple(record["words"]))
        for line in conll_lines([tagged], [_apart(entities)]):
            word, _, tags = line.rstrip("\n").partition("\t")
            yield line if sentence.gold or not tags else f"{word}\t{tags.partition(chr(9))[2]}\n"


def _apart(entities: Sequence[Entity]) -> list[Entity]:
    """Entities that do not overlap, which columns cannot have: the first ones stand."""
    kept: list[Entity] = []
    for entity in entities:
        if not kept or entity.start >= kept[-1].end:
            kept.append(entity)
    return kept


def _json_line(record: Mapping[str, Any]) -> str:
    # Half a character, which JSON can spell, is no UTF-8: then all is escaped.
    line = json.dumps(record, ensure_ascii=False)
    return (line if line.isascii() or line.encode(errors="replace").decode() == line else json.dumps(record)) + "\n"


def _append(records: Path, found: Iterator[tuple[Sentence, dict[str, Any]]]) -> None:
    lines = [_json_line(record) for _, record in found]
    with naming(records), records.open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _keep_whole_lines(records: Path) -> int:
    """Cut an earlier run's file behind its last whole line; returns how many it has."""
    lines = records.read_bytes().split(b"\n")[:-1]
    with records.open("r+b") as file:
        file.truncate(sum(len(line) + 1 for line in lines))
    return len(lines)


def _key(options: argparse.Namespace, scanner: Scanner, sentences: Sequence[Sentence], knowledge: Known) -> str:
    """What decides the records: model, sentences and knowledge."""
    digest = hashlib.sha256(f"{scanner.fingerprint} {sorted(options.expert)}\n".encode())
    store, index = knowledge["knowledge"], knowledge["wikipedia"]
    digest.update(f"{store and store.fingerprint(store.kinds)} {index and index.fingerprint}\n".encode())
    for sentence in sentences:
        digest.update(f"{sentence.id!r} {sentence.request!r}\n".encode(errors="replace"))
    return digest.hexdigest()


def _output_format(options: argparse.Namespace) -> str:
    if options.output_format != "auto":
        return str(options.output_format)
    conll = options.output is not None and options.output.suffix.lower() in (".conll", ".tsv", ".bio", ".iob")
    return "conll" if conll else "jsonl"


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scanner_jax.predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_model_options(parser)
    add = parser.add_argument
    add("--text", help="one text to predict")
    add("--image", type=Path, metavar="FILE", help="that belongs to it")
    add("--draw", type=Path, metavar="FILE", help="save the image with the entities drawn on it")
    add("--input", metavar="FILE", help="sentences to predict: a file, - for standard input, or a corpus's folder")
    add("--input-format", choices=FORMATS, default="auto", help="see below")
    add("--split", default="test", help="of a corpus (%(default)s)")
    add("--images", type=Path, metavar="FOLDER", help="images by their ids; paths in JSON lines are relative to it")
    add("--output", type=Path, metavar="FILE", help="to write; by default standard output, which cannot be resumed")
    add("--output-format", choices=("auto", "jsonl", "conll"), default="auto", help="see below")
    add("--bad-lines", choices=("stop", "skip"), default="stop", help="what unreadable lines do (%(default)s)")
    add("--batch-size", type=_positive, default=BATCH_SIZE, metavar="N", help="texts at once (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
