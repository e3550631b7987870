"""`python -m scanner_jax.knowledge SUBCOMMAND ...`: each subcommand is imported when it is asked for, and no other."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

SUBCOMMANDS = {
    "wikipedia": ("scanner_jax.wikipedia.command", "build the index of Wikipedia's texts, and look mentions up in it"),
    "captions": ("scanner_jax.knowledge.captions", "caption images with BLIP-2"),
    "objects": ("scanner_jax.knowledge.objects", "detect the objects in images"),
    "vinvl": ("scanner_jax.knowledge.vinvl.command", "check VinVL's weights against published boxes; write its TSV"),
    "regions": ("scanner_jax.knowledge.regions", "caption the regions of a store's objects with BLIP-2"),
    "merge": ("scanner_jax.knowledge.merging", "make a kind of the store from the shards of several machines"),
    "stats": ("scanner_jax.knowledge.stats", "what a store holds: coverage, lengths, failures, provenance"),
    "show": ("scanner_jax.knowledge.show", "what a store knows of one image or example"),
    "clip": ("scanner_jax.knowledge.vectors", "CLIP's vector of every box of the store"),
    "rank": ("scanner_jax.knowledge.ranking", "order images' objects by CLIP's similarity to a text"),
    "serve": ("scanner_jax.knowledge.serve", "experts that stay loaded and answer in JSON lines, for predictions"),
    "gradcam": ("scanner_jax.knowledge.gradcam", "draw where in an image CLIP looks for a text"),
}
"""Name -> the module whose `main(arguments)` returns the exit status, and what it is for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit status."""
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    if name in SUBCOMMANDS:
        module, _ = SUBCOMMANDS[name]
        try:
            status: int = importlib.import_module(module).main(rest[:-1])
            sys.stdout.flush()
        except BrokenPipeError:  # who read the output, such as head, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + signal.SIGPIPE
        return status
    asked = name in ("-h", "--help")
    out = sys.stdout if asked else sys.stderr
    print("usage: python -m scanner_jax.knowledge SUBCOMMAND ...\n", file=out)
    for known, (_, what) in SUBCOMMANDS.items():
        print(f"  {known:<10} {what}", file=out)
    print("\nEach says more with --help.", file=out)
    if not asked:
        print(f"\nerror: {f'no subcommand {name!r}' if name else 'no subcommand given'}; take one above", file=out)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
