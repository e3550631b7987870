"""The detector's second epoch on Twitter-2015, whole, against a plain PyTorch loop.

    python benchmarks/epoch.py [--steps N] [--rounds N] [--pack-width TOKENS] [--whole-vocabulary] [--ablate]

Both sides train `models/granite-30m-english` in float32 on the same batches of 8 in the same order, with dropout on
hidden states and attention probabilities, AdamW, decay 0.01, clipping at 1 and a linear schedule. Ours is what the
recipe runs: Grain pipeline, the vocabulary in use, sentences sharing rows of 96 tokens, steps compiled ahead. PyTorch's
is what people write: Hugging Face's token classifier, padded to the batch's longest sentence, on as many threads as
there are cores. Both have made some steps before; then each in turn takes a part of the second epoch, its data
included, until both have taken all of it. Prints a line for each part, and at the end a line of JSON: `ratio` is
PyTorch's seconds over ours. With `--ablate` ours takes part twice more, once with a row for each sentence and once with
the whole vocabulary.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from machine import describe

from scanner_jax import convert
from scanner_jax.corpora import load_corpus
from scanner_jax.detection import detector_loss
from scanner_jax.models import SpanDetector, init_detector
from scanner_jax.optim import Milestones, OptimizerSettings, make_optimizer
from scanner_jax.pipeline import (
    DetectorFeatures,
    collate_detector,
    detector_features,
    length_buckets,
    steps_per_epoch,
    training_batches,
)
from scanner_jax.stepping import Course, Stepper, TrainState, shape_of
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import BIO
from scanner_jax.vocabulary import Vocabulary

CORPUS, ENCODER = Path("data/twitter2015"), Path("models/granite-30m-english")
BATCH_SIZE, EPOCHS, SEED = 8, 4, 1
OPTIMIZER = OptimizerSettings(learning_rate=1e-4)
WARM = 5
"""Steps of the first epoch that each side makes before it is timed."""

Side = Callable[[int], float]
"""Makes so many steps more and returns the last loss."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, help="only so many steps of the epoch")
    parser.add_argument("--rounds", type=int, default=10, help="parts that the epoch is taken in (default: 10)")
    parser.add_argument(
        "--pack-width", type=int, default=96, help="ours: tokens of a row that is shared; 0 shares none"
    )
    parser.add_argument("--whole-vocabulary", action="store_true", help="ours: train all word embeddings")
    parser.add_argument("--ablate", action="store_true", help="ours in turn without the one and the other as well")
    options = parser.parse_args()
    for path in (CORPUS, ENCODER):
        if not path.is_dir():
            parser.exit(1, f"error: {path} is missing; docs/data.md says where it is published\n")
    with tempfile.TemporaryDirectory() as prepared:
        corpus = load_corpus(CORPUS, prepared_dir=Path(prepared))
        splits = {name: list(examples) for name, examples in corpus.splits.items()}
    config = convert.load_config(ENCODER)
    tokenize = functools.partial(detector_features, tokenizer=load_tokenizer(ENCODER), max_tokens=config.max_tokens)
    features = {name: tokenize(examples) for name, examples in splits.items()}
    epoch = steps_per_epoch(len(features["train"]), BATCH_SIZE)
    steps = min(epoch, options.steps or epoch)
    chosen = {"pack_width": options.pack_width, "whole_vocabulary": options.whole_vocabulary}
    ours = {"scanner_jax": chosen}
    if options.ablate:
        ours |= {"rows unshared": chosen | {"pack_width": 0}, "all embeddings": chosen | {"whole_vocabulary": True}}
    sides: dict[str, Side] = {}
    compile_seconds = {}
    for name, settings in ours.items():
        sides[name], compile_seconds[name] = our_side(features, epoch, **settings)
    sides["pytorch"] = torch_side(features["train"], epoch)
    seconds = dict.fromkeys(sides, 0.0)
    losses = {name: side(WARM) for name, side in sides.items()}
    parts = np.diff(np.linspace(0, steps, options.rounds + 1).astype(int))
    for part in filter(None, parts.tolist()):
        for name, side in sides.items():
            started = time.perf_counter()
            losses[name] = side(part)
            took = time.perf_counter() - started
            seconds[name] += took
            print(f"{name:<14} {part:4d} steps  {1000 * took / part:7.1f} ms each  loss {losses[name]:.4f}", flush=True)
    result = {
        "benchmark": "epoch",
        "ratio": round(seconds["pytorch"] / seconds["scanner_jax"], 3),
        "steps": steps,
        **chosen,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "compile_seconds": {name: round(value, 1) for name, value in compile_seconds.items()},
        "last_loss": {name: round(value, 4) for name, value in losses.items()},
        "torch": torch.__version__,
        "machine": describe(),
    }
    print(json.dumps(result))


def our_side(
    features: dict[str, list[DetectorFeatures]], epoch: int, *, pack_width: int, whole_vocabulary: bool
) -> tuple[Side, float]:
    """The recipe's training from the end of its first epoch, and how long it took to compile."""
    config, pretrained = convert.load_encoder(ENCODER)
    vocabulary = Vocabulary.whole(config.vocab_size)
    if not whole_vocabulary:
        ids = (item.token_ids for split in features.values() for item in split)
        vocabulary = Vocabulary.of(ids, size=config.vocab_size)
    params = vocabulary.shrink(init_detector(config, pretrained, jax.random.key(SEED)))
    milestones = OPTIMIZER.milestones(EPOCHS * epoch)
    params = jax.tree.map(jnp.array, params)
    state = TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(OPTIMIZER, milestones).init(params))
    collate = functools.partial(collate_detector, buckets=length_buckets(config.max_tokens), pack_width=pack_width)
    batches = second_epoch(features["train"], functools.partial(vocabulary.renumbered(collate), batch_size=BATCH_SIZE))
    shapes = {str(shape := shape_of(batch)): shape for batch in batches()}
    stepper = Stepper(
        detector_loss(SpanDetector(config), alpha=None),
        OPTIMIZER,
        state=state,
        course=Course(jax.random.key(SEED), Milestones(*map(jnp.int32, milestones))),
    )
    started = time.perf_counter()
    stepper.compile_ahead(shapes.values())
    for shape in shapes.values():
        stepper.compiled(shape)
    compile_seconds = time.perf_counter() - started
    left = batches()

    def advance(count: int) -> float:
        nonlocal state
        for batch in itertools.islice(left, count):
            state, losses = stepper(state, [batch])
        return float(losses[-1])

    return advance, compile_seconds


def torch_side(features: Sequence[DetectorFeatures], epoch: int) -> Side:
    """A plain loop over Hugging Face's token classifier."""
    torch.manual_seed(SEED)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    transformers = import_transformers()
    model = transformers.AutoModelForTokenClassification.from_pretrained(
        ENCODER, num_labels=len(BIO), dtype=torch.float32
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=OPTIMIZER.learning_rate, weight_decay=OPTIMIZER.weight_decay)
    milestones = OPTIMIZER.milestones(EPOCHS * epoch)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, milestones.warmed_up, milestones.end)
    left = second_epoch(features, list)()

    def advance(count: int) -> float:
        for chosen in itertools.islice(left, count):
            loss = model(**padded(chosen, model.config.pad_token_id)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return float(loss.detach())

    return advance


def second_epoch(features: Sequence[DetectorFeatures], collate: Any) -> Callable[[], Iterator[Any]]:
    """Iterators over the last steps of the first epoch and all of the second, as the recipe orders them."""
    epoch = steps_per_epoch(len(features), BATCH_SIZE)

    def batches() -> Iterator[Any]:
        iterator = training_batches(features, collate, batch_size=BATCH_SIZE, epochs=EPOCHS, seed=SEED)
        iterator.set_state({**iterator.get_state(), "next_index": epoch - WARM})
        return itertools.islice(iterator, WARM + epoch)

    return batches


def padded(features: Sequence[DetectorFeatures], pad: int, *, multiple: int = 1) -> dict[str, torch.Tensor]:
    """A batch as Hugging Face's collator for token classification makes it, its tokens a multiple of some number."""
    longest = max(item.length for item in features)
    shape = len(features), -(-longest // multiple) * multiple
    batch = {
        "input_ids": np.full(shape, pad),
        "attention_mask": np.zeros(shape, np.int64),
        "labels": np.full(shape, -100),
    }
    for row, item in enumerate(features):
        batch["input_ids"][row, : item.length] = item.token_ids
        batch["attention_mask"][row, : item.length] = 1
        batch["labels"][row, item.positions] = item.labels
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def import_transformers() -> Any:
    """Hugging Face's package; its classes need no operator of torchvision's, which a torch of another build lacks."""
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


if __name__ == "__main__":
    main()
