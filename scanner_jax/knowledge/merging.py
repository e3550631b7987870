"""`python -m scanner_jax.knowledge merge STORE KIND`: a kind from its shards."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scanner_jax.knowledge.command import PROGRAM, in_words
from scanner_jax.knowledge.shards import merge

EPILOG = f"""example:
  {PROGRAM} captions IMAGES STORE --shard 1/2
  {PROGRAM} captions IMAGES STORE --shard 2/2
  {PROGRAM} merge STORE captions

Without --shard a command merges by itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} merge",
        description="Make a kind of the store from all its shards, replacing what the store had of it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("store", type=Path, metavar="STORE", help="store folder: prepared/knowledge/NAME")
    parser.add_argument("kind", metavar="KIND", help="captions, objects, regions or clip")
    options = parser.parse_args(arguments)

    def command() -> int:
        print(f"{options.kind} of {merge(options.store, options.kind):,} images -> {options.store / options.kind}")
        return 0

    return in_words(command)
