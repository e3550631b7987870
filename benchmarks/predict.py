"""How fast a trained model predicts, against a Hugging Face token-classification pipeline on the same encoder.

    python benchmarks/predict.py [--sentences N]

Both sides read the first sentences of Twitter-2015's test split with `models/granite-30m-english` in float32, in one
process and in turn, 64 sentences at a time. Theirs is `transformers.pipeline("token-classification")`, one stage; ours
is

- stage 1: the detector alone, from texts to spans, the like of theirs;
- text only: both stages, the recognizer told nothing but the sentence;
- with knowledge: both stages, with captions and ChatGPT's notes from a store and texts from a Wikipedia index.

The model is that of `configs/mner15.py:small`, exported, with random heads. They take the time that trained ones take,
but for the spans that the detector proposes: those are decoded from its logits, and then the gold ones go on to the
recognizer in their place, as of a detector that makes no mistakes. Its bias is such that it proposes as many; theirs
has the same head. Batches of 1 are single calls; of 32, calls with 32 sentences; "all" is one call with all of them, in
batches of 32. Programs are compiled ahead; how long the first answer of a new process takes, with an empty cache on
disk and with a full one, is measured apart.

The last line is JSON: sentences a second, median and 99th percentile of a call in ms, and `ratio`, the speed of our
stage 1 to theirs at a batch of 1; `ratios` has all.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from machine import describe

import scanner_jax.scanner
from scanner_jax import convert, export
from scanner_jax.corpora import Corpus, read_corpus
from scanner_jax.detection import WordLogits, spans_of, tag
from scanner_jax.exported import DESCRIPTION, open_exported, stages_of, write_params
from scanner_jax.files import read_json_lines, write_checksums, write_json
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.scanner import Request, Scanner
from scanner_jax.store import Store, write_kind
from scanner_jax.store.importers import read_captions, read_notes
from scanner_jax.types import BIO, Example, Span
from scanner_jax.wikipedia import WikipediaIndex, build

CORPUS, ENCODER = Path("data/twitter2015"), Path("models/granite-30m-english")
CAPTIONS, NOTES = Path("data/captions/BLIP2_15.txt"), Path("data/chatgpt/twitter2015")
ABSTRACTS = Path("data/wikipedia/abstracts.jsonl")
CONFIG = "configs/mner15.py"
BATCH_SIZE, SEED = 32, 1
IN_A_ROW = 64
"""Sentences that a side reads before the next side's turn."""

Side = Callable[[Sequence[Request]], int]
"""Predicts some sentences; returns how many entities, or spans, it found."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=256, help="of the test split (default: 256)")
    parser.add_argument("--first", type=Path, metavar="MODEL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sentences < 1:
        parser.error("--sentences: expected at least 1")
    logging.disable(logging.WARNING)
    if options.first:
        print(json.dumps(first_answer(options.first)))
        return
    for path in (CORPUS, ENCODER, CAPTIONS, NOTES, ABSTRACTS):
        if not path.exists():
            parser.exit(1, f"error: {path} is missing; docs/data.md says where it is published\n")
    with tempfile.TemporaryDirectory() as temporary:
        measure(Path(temporary), options.sentences)


def measure(folder: Path, count: int) -> None:
    """Make model and knowledge, time all sides, print a table and the line of JSON."""
    corpus = read_corpus(CORPUS)
    examples = list(corpus.splits["test"][:count])
    spans = write_model(folder / "model", corpus, examples)
    store, index = write_knowledge(folder, corpus)
    first = {name: in_new_process(folder) for name in ("cold", "warm")}  # the second finds what the first compiled
    requests = [Request(words=example.words, id=example.id, image_id=example.image_id) for example in examples]
    gold = {example.id: tuple(entity.span for entity in example.entities) for example in examples}
    with (
        WikipediaIndex.open(index) as opened,
        Scanner.from_pretrained(folder / "model", compilation_cache=folder / "compiled") as scanner,
    ):
        known = {"knowledge": store, "wikipedia": opened}
        sides = {
            "pipeline": pipeline(folder / "model"),
            "stage 1": stage_1(folder / "model"),
            "text only": functools.partial(predict, scanner, gold, known={}),
            "with knowledge": functools.partial(predict, scanner, gold, known=known),
        }
        for size in (1, BATCH_SIZE):
            scanner.warm_up(batch_size=size)
        found = {}
        for name, size in (("1", 1), (str(BATCH_SIZE), BATCH_SIZE), ("all", len(requests))):
            found[name] = in_turn(sides, [requests[at : at + size] for at in range(0, len(requests), size)])
            for side, numbers in found[name].items():
                print(
                    f"batch {name:<4} {side:<15} " + "  ".join(f"{k} {v:,.1f}" for k, v in numbers.items()), flush=True
                )
    ratios = {
        name: {side: round(own["sentences/s"] / sides["pipeline"]["sentences/s"], 3) for side, own in sides.items()}
        for name, sides in found.items()
    }
    result = {
        "benchmark": "predict",
        "ratio": ratios["1"]["stage 1"],
        "ratios": ratios,
        "sentences": len(requests),
        "spans": spans,
        "speed": found,
        "first_answer_seconds": first,
        "torch": sys.modules["torch"].__version__,
        "machine": describe(),
    }
    print(json.dumps(result))


def in_turn(sides: dict[str, Side], batches: Sequence[Sequence[Request]]) -> dict[str, dict[str, float]]:
    """Give some batches to each side before the next ones; a call before them does not count.

    Not one by one: threads of the side before still wait for more work, which slows the next side's first call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    spans = dict.fromkeys(sides, 0)
    together = max(1, IN_A_ROW // len(batches[0]))
    for at in range(0, len(batches), together):
        for name, side in sides.items():
            side(batches[at])
            for batch in batches[at : at + together]:
                started = time.perf_counter()
                spans[name] += side(batch)
                seconds[name].append(time.perf_counter() - started)
    count = sum(map(len, batches))
    return {
        name: {
            "sentences/s": round(count / sum(taken), 2),
            "p50 ms": round(1000 * float(np.percentile(taken, 50)), 2),
            "p99 ms": round(1000 * float(np.percentile(taken, 99)), 2),
            "found": spans[name],
        }
        for name, taken in seconds.items()
    }


def predict(
    scanner: Scanner, gold: Mapping[str, tuple[Span, ...]], requests: Sequence[Request], *, known: Mapping[str, Any]
) -> int:
    """Both stages, the second on gold spans; counts them."""

    def decoded(logits: WordLogits) -> list[tuple[Span, ...]]:
        spans_of(logits)
        return [gold[request.id] for request in requests]

    with mock.patch.object(scanner_jax.scanner, "spans_of", decoded):
        found = scanner.explain(requests, batch_size=min(BATCH_SIZE, len(requests)), **known)
    return sum(len(prediction.knowledge) for prediction in found)


def stage_1(folder: Path) -> Side:
    """The detector alone, as `Scanner` runs it: texts -> words -> spans -> characters."""
    model = open_exported(folder)
    params = jax.device_put(model.detector)

    def run(requests: Sequence[Request]) -> int:
        words = [request.split() for request in requests]
        examples = [Example(str(number), item.words) for number, item in enumerate(words)]
        detection = dataclasses.replace(model.detection, eval_batch_size=min(BATCH_SIZE, len(requests)))
        spans = spans_of(tag(detection, params, examples))
        places = [item.characters(span.start, span.end) for item, own in zip(words, spans, strict=True) for span in own]
        return len(places)

    return run


def pipeline(folder: Path) -> Side:
    """Hugging Face's, with the detector's head, on as many threads as there are cores."""
    import torch
    from epoch import import_transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers = import_transformers()
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        ENCODER, num_labels=len(BIO), id2label=dict(enumerate(("O", "B-X", "I-X"))), dtype=torch.float32
    )
    head = open_exported(folder).detector["tags"]
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(np.asarray(head["kernel"]).T))
        model.classifier.bias.copy_(torch.tensor(np.asarray(head["bias"])))
    pipe = transformers.pipeline(
        "token-classification",
        model=model.eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(ENCODER),
        aggregation_strategy="first",
    )

    def run(requests: Sequence[Request]) -> int:
        texts = [" ".join(item.words or ()) for item in requests]
        return sum(map(len, pipe(texts, batch_size=min(BATCH_SIZE, len(texts)))))

    return run


def write_model(folder: Path, corpus: Corpus, examples: Sequence[Example]) -> int:
    """Export the config's model with random heads; returns how many spans it proposes in these sentences."""
    config = runpy.run_path(CONFIG)["get_config"]("small").to_dict()
    told = {"name": corpus.name, "types": corpus.types, "variant": corpus.variant, "sha256": corpus.fingerprint}
    run = export.FinishedRun({"config": config, "corpus": told, "knowledge": {}}, {"recognizer": {}}, {})
    description = export.describe(run, ENCODER, weights="safetensors")
    detection, recognition = stages_of(description, convert.load_config(ENCODER), ENCODER)
    encoder, key = convert.load_encoder(ENCODER)[1], jax.random.key(SEED)
    detector = init_detector(detection.encoder, encoder, key)
    gold = sum(len(example.entities) for example in examples)
    detection = dataclasses.replace(detection, eval_batch_size=BATCH_SIZE)
    detector["tags"]["bias"] = proposing(list(tag(detection, detector, examples)), gold)
    grown = convert.add_token_row(encoder)
    recognizer = init_recognizer(recognition.encoder, grown, key, num_types=len(recognition.classes))
    folder.mkdir()
    write_json(folder / "config.json", detection.encoder.to_dict())
    shutil.copy(ENCODER / "tokenizer.json", folder)
    params = {"detector": detector, "recognizer": recognizer}
    write_params(folder, params, weights="safetensors", recognition=recognition)
    write_json(folder / DESCRIPTION, description)
    write_checksums(folder)
    return gold


def proposing(logits: Sequence[np.ndarray], count: int) -> np.ndarray:
    """A bias with which so many words begin a span, and none goes on with one."""
    rows = np.concatenate(logits)
    above = np.sort(rows[:, 1] - rows[:, 0])
    return np.array([0, -(above[-count] + above[-count - 1]) / 2, -100], np.float32)


def write_knowledge(folder: Path, corpus: Corpus) -> tuple[Store, Path]:
    """A store and an index of what `data/` has, as the import commands write them."""
    write_kind(folder / "store", "captions", read_captions([CAPTIONS]).records, {})
    write_kind(folder / "store", "notes", read_notes(NOTES, corpus.splits).records, {})
    build(((page["title"], page["text"]) for page in read_json_lines(ABSTRACTS)), folder / "index.sqlite")
    return Store.open(folder / "store"), folder / "index.sqlite"


def in_new_process(folder: Path) -> dict[str, float]:
    """What `first_answer` says in a process of its own, which keeps what it compiles in `folder`."""
    command = [sys.executable, __file__, "--first", str(folder / "model")]
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def first_answer(folder: Path) -> dict[str, float]:
    """Seconds to load a model, of its first prediction, and of the next one of the same text."""
    text = "Kroger opens a store in Columbus tonight"
    moments = [time.perf_counter()]
    scanner = Scanner.from_pretrained(folder)
    moments.append(time.perf_counter())
    for _ in range(2):
        scanner.predict(text)
        moments.append(time.perf_counter())
    taken = np.diff(moments).tolist()
    return dict(zip(("loading", "first", "second"), (round(value, 3) for value in taken), strict=True))


if __name__ == "__main__":
    main()
