"""`rank STORE QUERIES ORDERS`: order images' objects by CLIP's similarity to a text, for the recipe or by hand.

Answers are appended to a file beside ORDERS and renamed when all are there; a run that was stopped goes on from it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.console
import torch
from jaxtyping import Float

from scanner_jax.files import naming
from scanner_jax.knowledge.clip import Clip, add_template_option, load_clip, made_by
from scanner_jax.knowledge.command import PROGRAM, count, in_words
from scanner_jax.knowledge.loading import BatchRunner, ModelError, choose_device, choose_precision
from scanner_jax.lock import locked
from scanner_jax.retrieval import CLIP_TEMPLATE
from scanner_jax.store import Store, import_command
from scanner_jax.throughput import Throughput

logger = logging.getLogger(__name__)

QUERIES_AT_ONCE = 1024
"""Queries between two writes; a run that is killed loses as many."""

BATCH_SIZE = 256
"""Texts at once."""

GPU_MEMORY = 4 * 2**30
"""Bytes that must be free for a GPU to be taken unasked: JAX, in the recipe that waits for this, holds most of them."""

SHOWN_PROBLEMS = 20

DESCRIPTION = """Put the objects of images in the order of CLIP's similarity to a text.

QUERIES  JSON lines {"image": "17_06_4705", "text": "Steve Kerr"}
ORDERS   gets a line {"image": ..., "text": ..., "order": [2, 0, 1]} for each, in their order: places of the store's
         objects from 0 on, the most similar first, equal ones in the detector's order; null for an image without
         vectors. It is there when it is whole; until then a run that was stopped goes on with the same command.

The recipe runs this where knowledge.use_clip_order=True."""

EPILOG = f"""example:
  echo '{{"image": "17_06_4705", "text": "Steve Kerr"}}' > queries.jsonl
  {PROGRAM} rank prepared/knowledge/twitter2015 queries.jsonl orders.jsonl"""


class QueryError(ValueError):
    """Queries that can't be read; the message lists the lines."""


class Query(NamedTuple):
    """An image, and the text that its objects are compared with."""

    image: str
    text: str


def similarities(vectors: Float[np.ndarray, "o d"], text: Float[np.ndarray, " d"]) -> Float[np.ndarray, " o"]:
    """The cosine of each object's vector and a text's, -1 where the object has none (0).

    Rounded to 6 digits, as sums of equal products may differ in the last ones, and equal boxes shall be equal.
    """
    cosines = np.round(vectors.astype(np.float64) @ text, 6)
    return np.where(vectors.any(axis=1), cosines, -1.0)


def best_first(similar: Float[np.ndarray, " o"]) -> list[int]:
    """The places of the objects, the most similar first, equal ones as they stand."""
    return [int(place) for place in np.argsort(-similar, kind="stable")]


class Ranker:
    """Orders images' objects by texts; equal texts are encoded once.

    Args:
        clip: the model.
        store: with objects and their vectors.
        template: what CLIP is asked, with the text for `{}`.
        batch_size: texts encoded at once, fewer from when memory first ran out.

    Raises:
        ModelError: the store's vectors were made with another text tower.
    """

    def __init__(self, clip: Clip, store: Store, *, template: str, batch_size: int) -> None:
        check_text_tower(clip, store)
        self._store, self.template = store, template
        self._encode = BatchRunner(lambda texts: list(clip.encode_texts(texts)), batch_size)
        self._texts: dict[str, Float[np.ndarray, " d"]] = {}
        # What decides the answers.
        self.key = f"{clip.text_tower} {store.fingerprint(('clip', 'objects'))} {template}"

    def orders(self, queries: Sequence[Query]) -> list[list[int] | None]:
        """The order of each query's objects, None for an image without vectors.

        Raises:
            StoreError: vectors are damaged, or those of other boxes.
        """
        vectors = {image: self._store.vectors(image) for image in {query.image for query in queries}}
        asked = dict.fromkeys(text for image, text in queries if vectors[image] is not None)
        unknown = [text for text in asked if text not in self._texts]
        encoded = self._encode([self.template.replace("{}", text) for text in unknown])
        self._texts.update(zip(unknown, encoded, strict=True))
        found = ((vectors[image], text) for image, text in queries)
        return [
            None if matrix is None else best_first(similarities(matrix, self._texts[text])) for matrix, text in found
        ]


def open_ranker(
    store: Store,
    model: str | None = None,
    *,
    template: str = CLIP_TEMPLATE,
    device: str | None = None,
    batch_size: int = BATCH_SIZE,
) -> Ranker:
    """Load the CLIP that made a store's vectors, by the name that the store has, or by another.

    Raises:
        ModelError: it can't be loaded, or is not the one.
        StoreError: the store has no vectors.
    """
    chosen = choose_device(device)
    if device is None and chosen.type == "cuda" and torch.cuda.mem_get_info(chosen)[0] < GPU_MEMORY:
        logger.warning("less than %d GiB are free on the GPU: ranking on the CPU", GPU_MEMORY // 2**30)
        chosen = torch.device("cpu")
    clip = load_clip(
        model or made_by(store.provenance("clip")), device=chosen, precision=choose_precision(None, chosen)
    )
    return Ranker(clip, store, template=template, batch_size=batch_size)


def check_text_tower(clip: Clip, store: Store) -> None:
    """Refuse a model whose texts do not lie among the store's vectors.

    Raises:
        ModelError: it is another than the one that made them.
    """
    made = store.provenance("clip")
    if made.get("text_tower") != clip.text_tower:
        raise ModelError(
            f"the vectors of {store.folder} were made with {made.get('model')}, text tower {made.get('text_tower')}, "
            f"and {clip.name} has text tower {clip.text_tower}: they do not compare. Pass --model with the one that "
            f"made them (in a recipe --config.knowledge.clip_model), or make them again: "
            f"{import_command('clip', store.folder)} --model {clip.name}"
        )


def read_queries(path: Path) -> list[Query]:
    """Read JSON lines of image and text.

    Raises:
        QueryError: lines that are none, by number.
        OSError: the file cannot be read.
    """
    queries: list[Query] = []
    problems: list[str] = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                queries.append(Query(*(_text(record, name) for name in Query._fields)))
            except (ValueError, TypeError) as error:
                problems.append(f"  {path}:{number}: {error}")
    if problems:
        more = [f"  and {len(problems) - SHOWN_PROBLEMS:,} more"] * (len(problems) > SHOWN_PROBLEMS)
        listed = "\n".join(problems[:SHOWN_PROBLEMS] + more)
        raise QueryError(f'expected lines {{"image": "an id", "text": "a text"}}:\n{listed}')
    return queries


def write_orders(path: Path, queries: Sequence[Query], ranker: Ranker) -> int:
    """Answer all queries in `path`, going on where an earlier run of the same was stopped.

    Returns:
        For how many queries the image has no vectors.
    """
    aside = path.with_name(f"{path.name}.part")
    with locked(aside):
        answers = aside / f"{hashlib.sha256(ranker.key.encode()).hexdigest()[:16]}.jsonl"
        answers.touch()
        known = _keep_whole_lines(answers, queries)
        with Throughput("rank", "queries", len(queries), rich.console.Console(stderr=True), start=known) as progress:
            for start in range(known, len(queries), QUERIES_AT_ONCE):
                part = queries[start : start + QUERIES_AT_ONCE]
                _append(answers, zip(part, ranker.orders(part), strict=True))
                progress.at(start + len(part), start + len(part) - known)
        without = sum(line.endswith(b"null}\n") for line in answers.read_bytes().splitlines(keepends=True))
        os.replace(answers, path)
        shutil.rmtree(aside)
    return without


def _append(answers: Path, answered: Iterable[tuple[Query, list[int] | None]]) -> None:
    lines = [json.dumps({**query._asdict(), "order": order}, ensure_ascii=False) + "\n" for query, order in answered]
    with naming(answers), answers.open("a", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def _keep_whole_lines(answers: Path, queries: Sequence[Query]) -> int:
    """Cut an earlier run's file behind its last whole line; returns how many queries it has answered."""
    lines = answers.read_bytes().splitlines(keepends=True)
    whole = 0
    for line, query in zip(lines, queries, strict=False):
        if not line.endswith(b"\n"):
            break
        record = json.loads(line)
        if Query(record["image"], record["text"]) != query:  # they were other queries
            break
        whole += 1
    with answers.open("r+b") as file:
        file.truncate(sum(map(len, lines[:whole])))
    return whole


def _text(record: Any, name: str) -> str:
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"no text {name!r} in it")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Rank; returns the exit status."""
    options = _parser().parse_args(arguments)
    return in_words(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    queries, store = read_queries(options.queries), Store.open(options.store)
    ranker = open_ranker(
        store, options.model, template=options.template, device=options.device, batch_size=options.batch_size
    )
    without = write_orders(options.orders, queries, ranker)
    print(f"{len(queries):,} orders -> {options.orders}")
    if without:
        print(f"  null, as the image has no vectors: {without:,}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} rank",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="with objects and clip: prepared/knowledge/NAME")
    parser.add_argument("queries", type=Path, metavar="QUERIES", help="JSON lines of image and text")
    parser.add_argument("orders", type=Path, metavar="ORDERS", help="JSON lines to write")
    add_template_option(parser)
    parser.add_argument("--model", help="the CLIP that made the vectors; by default by the name that the store has")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; by default a GPU where there is one with memory left")
    parser.add_argument("--batch-size", type=count, default=BATCH_SIZE, metavar="N", help="texts at once (%(default)s)")
    return parser
