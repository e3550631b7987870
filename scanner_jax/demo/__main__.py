"""Command line of the demo: `python -m scanner_jax.demo {build,compare} ...`; launch/demo.sh runs it all."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scanner_jax.demo.compare import comparison

EPILOG = """examples:
  bash launch/demo.sh                                                    the whole demo
  python -m scanner_jax.demo build prepared/demo --seed 2                another corpus and encoder
  python -m scanner_jax.demo compare runs/demo runs/demo-without-knowledge"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 1 with every problem on standard error."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.command
    try:
        command(options)
    except OSError as error:
        print(f"error: {error.filename or 'demo'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except ValueError as error:  # DemoError, CompareError and what the rooms above report
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m scanner_jax.demo",
        description="An invented corpus with pictures and knowledge, and an encoder for it.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    commands = parser.add_subparsers(required=True, metavar="{build,compare}")
    text = "generate corpus, pictures, knowledge and encyclopedia, and pretrain the encoder; about a minute"
    builder = commands.add_parser("build", help=text, description=f"{text.capitalize()}.")
    builder.add_argument(
        "folder", type=Path, metavar="FOLDER", help="such as prepared/demo, where configs/demo.py looks"
    )
    builder.add_argument("--seed", type=int, default=1, help="the same seed gives the same files (default: 1)")
    builder.set_defaults(command=_build)
    text = "print the scores of finished runs side by side"
    comparer = commands.add_parser("compare", help=text, description=f"{text.capitalize()}.")
    comparer.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder, such as runs/demo")
    comparer.set_defaults(command=_compare)
    return parser


def _build(options: argparse.Namespace) -> None:
    from scanner_jax.demo.build import build  # brings in JAX, which the other command does without

    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax writes ten lines for every checkpoint
    description, built = build(options.folder, seed=options.seed)
    counts = description["counts"]
    noise = ", ".join(f"{count} {kind}" for kind, count in counts["noisy_labels"].items())
    print(f"{options.folder}: {'built' if built else 'built before'}, seed {description['seed']}")
    print("  tweets: " + ", ".join(f"{count} {split}" for split, count in counts["tweets"].items()))
    print(f"  training labels: {counts['training_labels']}; made wrong: {noise}")
    print(f"  pages in the encyclopedia: {counts['pages']}")


def _compare(options: argparse.Namespace) -> None:
    print(comparison(options.runs), end="")


if __name__ == "__main__":
    sys.exit(main())
