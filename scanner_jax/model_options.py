"""The options that give a command an exported model and what it shall know; `predict` and the page share them."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
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
    """Add --model, --store, --wikipedia, --expert, --experts-device, --warm-up and --compilation-cache."""
    add, what = parser.add_argument, "by default as the model names them; VinVL is a folder of its files"
    add("--model", type=Path, required=True, metavar="FOLDER", help="an exported model")
    add("--store", type=Path, metavar="FOLDER", help="knowledge by image and example id: prepared/knowledge/NAME")
    add("--wikipedia", type=Path, metavar="FILE", help="the index of Wikipedia's texts: prepared/wikipedia.sqlite")
    add("--expert", type=_expert, action="append", default=[], metavar="KIND=MODEL",
        help=f"who looks at pictures: captions, objects, regions or clip; {what}")  # fmt: skip
    add("--experts-device", metavar="NAME", help="cpu, cuda, cuda:1; by default a GPU where there is one")
    add("--warm-up", action="store_true", help="compile ahead for all lengths, before the first text")
    add("--compilation-cache", type=_cache, default=True, metavar="FOLDER",
        help="for compiled programs (scanner_jax in ~/.cache, unless JAX has one); none keeps none")  # fmt: skip


@contextlib.contextmanager
def opened(options: argparse.Namespace, *, batch_size: int = 1) -> Iterator[tuple[Scanner, Known]]:
    """Open what the options name, until the block ends.

    Args:
        options: with what `add_model_options` added.
        batch_size: of the predictions to come.

    Raises:
        ValueError: of model, store, index or experts, in words.
    """
    with contextlib.ExitStack() as stack:
        store = Store.open(options.store) if options.store else None
        index = stack.enter_context(WikipediaIndex.open(options.wikipedia)) if options.wikipedia else None
        model = Scanner.from_pretrained(
            options.model,
            experts=dict(options.expert),
            device=options.experts_device,
            compilation_cache=options.compilation_cache,
        )
        if options.warm_up:
            started = time.perf_counter()
            print(f"compiling programs for batches of {batch_size}, for all lengths", file=sys.stderr, flush=True)
            count = model.warm_up(batch_size=batch_size)
            print(f"{count} programs are ready, after {time.perf_counter() - started:.1f} s", file=sys.stderr)
        yield stack.enter_context(model), Known(knowledge=store, wikipedia=index)


def _cache(text: str) -> Path | bool:
    """A folder, or False for none."""
    return text != "none" and Path(text)


def _expert(text: str) -> tuple[str, str]:
    kind, _, model = text.partition("=")
    if not kind or not model:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KIND=MODEL, such as captions=models/blip2")
    return kind, model
