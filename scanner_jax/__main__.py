"""`python -m scanner_jax`: lists the commands."""

from __future__ import annotations

import sys

COMMANDS = {
    "train": "train and score the paper's recipe: --config=configs/mner15.py",
    "predict": "find entities with an exported model, in a text or in a file",
    "app": "open a page on this machine to try an exported model on a sentence and a picture",
    "export": "make a folder of a finished run that predicts anywhere",
    "evaluate": "score any system's predictions against a corpus",
    "gallery": "make the page of a run's predictions, with images, boxes and what prompts were told",
    "corpora": "check a corpus: counts, variant, fingerprint, or everything that is wrong with it",
    "store": "import knowledge (captions, notes, objects) and check it for leaked labels",
    "knowledge": "make knowledge: the index of Wikipedia's texts",
    "profiling": "time training steps by the shape of their batches, against floors, and trace them for xprof",
    "demo": "build the invented corpus and encoder that launch/demo.sh trains on",
}
"""Each runs as `python -m scanner_jax.NAME`."""


def main() -> int:
    """Print the list; a word after the package's name is taken for a command that was meant."""
    print("SCANNER in JAX: named entities, in two stages, from text or text with an image.\n")
    for name, what in COMMANDS.items():
        print(f"  python -m scanner_jax.{name:<9} {what}")
    print("\nEach says more with --help. A demo from nothing: bash launch/demo.sh")
    if len(sys.argv) > 1 and sys.argv[1] not in ("-h", "--help"):
        name = sys.argv[1]
        meant = f"python -m scanner_jax.{name}" if name in COMMANDS else "one of the above"
        print(f"\nerror: {name!r} follows a blank; run {meant}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
