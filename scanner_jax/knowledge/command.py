"""What the experts' commands share: their options, errors in words, and what they say at the end. No torch here."""

from __future__ import annotations

import argparse
import logging
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from scanner_jax.files import explain
from scanner_jax.interrupt import Interrupted, leaving_at_signals
from scanner_jax.knowledge.extraction import Describe, Job, Outcome, extract, is_made
from scanner_jax.knowledge.shards import Shard, merge

PROGRAM = "python -m scanner_jax.knowledge"

SHOWN_FAILURES = 5

RAY_BATCHES = 4
"""Batches of a Ray task: images of the next task are read only when it begins, so that fewer would let the GPU wait."""

SHARDS = """\
A run that is stopped or killed goes on with the same command. On several machines or GPUs give each --shard I/N of the
same store, then merge: see docs/knowledge.md."""


def expert_parser(
    name: str,
    *,
    what: str,
    example: str,
    model: str,
    batch_size: int,
    precision: str | None = None,
    models: str | None = None,
) -> argparse.ArgumentParser:
    """The options that every expert has.

    Args:
        name: the subcommand.
        what: it does, in a sentence.
        example: its arguments.
        model: its default.
        batch_size: likewise.
        precision: likewise, where it is not that of most.
        models: which are accepted, where it is not as for most; then without revisions.
    """
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=what,
        epilog=f"example:\n  {PROGRAM} {name} {example}\n\n{SHARDS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", type=Path, metavar="IMAGES", help="a folder of images, in folders or not")
    parser.add_argument("store", type=Path, metavar="STORE", help="store folder: prepared/knowledge/NAME")
    accepted = models or "a folder, or a name on the Hugging Face hub"
    parser.add_argument("--model", default=model, help=f"{accepted} (%(default)s)")
    if models is None:
        parser.add_argument("--revision", help="the hub's branch, tag or commit; by default its main branch")
    parser.add_argument("--device", help="cpu, cuda, cuda:1; by default a GPU where there is one")
    by_default = precision or "bf16 on a GPU and fp32 on a CPU"
    parser.add_argument(
        "--precision", choices=("fp32", "bf16", "fp16"), default=precision, help=f"by default {by_default}"
    )
    parser.add_argument("--batch-size", type=count, default=batch_size, metavar="N", help="at once (%(default)s)")
    parser.add_argument("--threads", type=count, metavar="N", help="that read images; by default one a core, up to 8")
    parser.add_argument(
        "--shard", type=_shard, default=Shard(), metavar="I/N", help="part I, from 1, of N (%(default)s)"
    )
    parser.add_argument("--restart", action="store_true", help="drop what was done so far, and begin anew")
    parser.add_argument(
        "--ray-workers",
        type=count,
        metavar="N",
        help="work on N workers of Ray, each with model and GPU of its own",
    )
    parser.add_argument(
        "--ray-task",
        type=count,
        metavar="N",
        help="images that a worker takes at a time, and that may be done again if it dies; by default 4 batches",
    )
    return parser


def count(text: str) -> int:
    """A number from 1 on, for argparse."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, found {text!r}")
    return int(text)


def _shard(text: str) -> Shard:
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def in_words(command: Callable[[], int]) -> int:
    """Run a command; its exit status, 1 with what is wrong on standard error, or as shells have it after a signal."""
    logging.basicConfig(format="%(message)s")
    try:
        with leaving_at_signals():
            return command()
    except OSError as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    except ValueError as error:  # ImagesError, ModelError, ExtractionError, StoreError
        print(f"error: {error}", file=sys.stderr)
    except Interrupted as error:
        print(f"stopped by {error.signal.name}; the same command goes on from here", file=sys.stderr)
        return error.exit_code
    return 1


def run_job(job: Job, options: argparse.Namespace) -> int:
    """Extract a shard, merge if it is the only one, and say what became of it; 1 if no image has a value."""
    shard: Shard = options.shard
    target = options.store / job.kind
    if not options.restart and is_made(options.store, job):
        print(f"{target} is made of these images with these settings already; --restart makes it again")
        return 0
    describe = _on_ray(options) if options.ray_workers else None
    outcome = extract(options.store, job, shard, restart=options.restart, threads=options.threads, describe=describe)
    if shard.count > 1:
        print(f"shard {shard} of {job.kind} is whole: {outcome.done:,} images")
        print_outcome(outcome)
        print(f"when all {shard.count} are: {PROGRAM} merge {options.store} {job.kind}")
    elif outcome.done:
        merge(options.store, job.kind)
        print(f"{job.kind} of {outcome.done:,} images -> {target}")
        print_outcome(outcome)
    else:
        print(f"no image of {options.images} has a value; {target} was not written", file=sys.stderr)
        print_outcome(outcome)
    return 0 if outcome.done or (shard.count > 1 and not outcome.failures) else 1


def _on_ray(options: argparse.Namespace) -> Describe:
    from scanner_jax.knowledge.loading import choose_device
    from scanner_jax.knowledge.ray_workers import on_ray

    gpus = 1 if choose_device(options.device).type == "cuda" else 0
    task_images = options.ray_task or RAY_BATCHES * options.batch_size
    return on_ray(workers=options.ray_workers, task_images=task_images, gpus=gpus)


def print_outcome(outcome: Outcome) -> None:
    """Print how fast it was, and what failed by reason."""
    new = outcome.done + len(outcome.failures) - outcome.before
    if outcome.before:
        print(f"  done before: {outcome.before:,}, now: {new:,}")
    if new and outcome.seconds:
        print(f"  took {outcome.seconds:,.1f} s, {new / outcome.seconds:,.2f} images a second")
    reasons: defaultdict[str, list[str]] = defaultdict(list)
    for key, reason in outcome.failures:
        reasons[reason].append(key)
    print(f"  failed: {len(outcome.failures):,}")
    for reason, keys in reasons.items():
        shown = ", ".join(keys[:SHOWN_FAILURES]) + (", ..." if len(keys) > SHOWN_FAILURES else "")
        print(f"    {reason}: {len(keys):,} ({shown})")
