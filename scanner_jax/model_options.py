"""The options that give a command an exported model and what it shall know; `predict` and the page share them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from scanner_jax.scanner import Scanner
from scanner_jax.store import Store
from scanner_jax.wikipedia import WikipediaIndex


class Known(TypedDict):
    """Where knowledge is looked up: keyword arguments of `Scanner.explain`."""

    knowledge: Store | None
    wikipedia: WikipediaIndex | None


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add --model, --store, --wikipedia, --expert and --experts-device."""
    add, what = parser.add_argument, "by default as the model names them; VinVL is a folder of its files"
    add("--model", type=Path, required=True, metavar="FOLDER", help="an exported model")
    add("--store", type=Path, metavar="FOLDER", help="knowledge by image and example id: prepared/knowledge/NAME")
    add("--wikipedia", type=Path, metavar="FILE", help="the index of Wikipedia's texts: prepared/wikipedia.sqlite")
    add("--expert", type=_expert, action="append", default=[], metavar="KIND=MODEL",
        help=f"who looks at pictures: captions, objects, regions or clip; {what}")  # fmt: skip
    add("--experts-device", metavar="NAME", help="cpu, cuda, cuda:1; by default a GPU where there is one")


@contextlib.contextmanager
def opened(options: argparse.Namespace) -> Iterator[tuple[Scanner, Known]]:
    """Open what the options name, until the block ends.

    Raises:
        ValueError: of model, store, index or experts, in words.
    """
    with contextlib.ExitStack() as stack:
        store = Store.open(options.store) if options.store else None
        index = stack.enter_context(WikipediaIndex.open(options.wikipedia)) if options.wikipedia else None
        model = Scanner.from_pretrained(options.model, experts=dict(options.expert), device=options.experts_device)
        yield stack.enter_context(model), Known(knowledge=store, wikipedia=index)


def _expert(text: str) -> tuple[str, str]:
    kind, _, model = text.partition("=")
    if not kind or not model:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND=MODEL, such as captions=models/blip2")
    return kind, model
