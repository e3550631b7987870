"""How fast the input pipeline is beside the fastest training step that it feeds.

    python benchmarks/input.py

Twitter-2015 (`data/twitter2015`) and `models/granite-30m-english`, trained as `configs/mner15.py:small` does: batches
of 8, sentences packed into rows of 96, only the vocabulary in use, dropout 0.1 hidden and attention. In every round the
detector's batches are drained as fast as they come, then the recognizer's (gold spans as candidates, with BLIP-2's
captions and ChatGPT's notes where `data/` has them), then the detector makes some steps. Their batches lie ready, AWP
is off, as it is for the first half of a training, and the fastest of them counts: no step of the recipe takes examples
faster. Examples are sentences; for the recognizer, prompts.

The last line is JSON: examples a second, median and least over the rounds; `ratio`, of the detector's pipeline to the
step, by their medians; `least_ratio`, of the pipeline's slowest round to the fastest step of all.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import itertools
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import describe
from ml_collections import ConfigDict

from scanner_jax import convert
from scanner_jax.candidates import gold_class
from scanner_jax.corpora import Corpus, read_corpus
from scanner_jax.detection import Detection, detector_loss
from scanner_jax.models import init_detector
from scanner_jax.optim import make_optimizer
from scanner_jax.pipeline import (
    Batch,
    RecognizerFeatures,
    collate_detector,
    collate_recognizer,
    detector_features,
    length_buckets,
    steps_per_epoch,
    training_batches,
)
from scanner_jax.recognition import Recognition, write_prompts
from scanner_jax.retrieval import KnowledgeSources, retrieve
from scanner_jax.settings import paper_settings, training_settings
from scanner_jax.stepping import Course, Stepper, TrainState
from scanner_jax.store import Store, write_kind
from scanner_jax.store.importers import read_captions, read_notes
from scanner_jax.tokens import Tokenizer, load_tokenizer
from scanner_jax.vocabulary import Vocabulary

CORPUS, ENCODER = Path("data/twitter2015"), Path("models/granite-30m-english")
CAPTIONS, NOTES = Path("data/captions/BLIP2_15.txt"), Path("data/chatgpt/twitter2015")
BATCH_SIZE = 8
PROMPT_TOKENS = 160  # of configs/mner15.py:small
SEED = 1


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A training's batches, as `loop.train` makes them.

    Attributes:
        features: of all examples.
        collate: makes a batch of some.
    """

    features: Sequence[Any]
    collate: Callable[..., Batch]

    def batches(self, *, epochs: int) -> Iterator[Batch]:
        """A new iterator over all of them."""
        return training_batches(self.features, self.collate, batch_size=BATCH_SIZE, epochs=epochs, seed=SEED)

    def examples_per_second(self, *, epochs: int) -> float:
        """Drain the batches of some epochs as fast as they come."""
        started = time.perf_counter()
        drained = sum(1 for _ in self.batches(epochs=epochs))
        seconds = time.perf_counter() - started
        assert drained == epochs * steps_per_epoch(len(self.features), BATCH_SIZE)
        return epochs * len(self.features) / seconds


class Steps:
    """The detector's training steps over batches that lie ready."""

    def __init__(self, detection: Detection, section: ConfigDict, vocabulary: Vocabulary, batches: list[Batch]) -> None:
        """Compile the steps for the batches' shapes."""
        settings = training_settings(section, epochs=1).optimizer
        milestones = settings.milestones(1_000_000)  # far from the end of training, however many steps are made
        encoder = convert.load_encoder(ENCODER)[1]
        params = jax.tree.map(np.asarray, init_detector(detection.encoder, encoder, jax.random.key(SEED)))
        params = jax.tree.map(jnp.array, vocabulary.shrink(params))
        tx = make_optimizer(settings, milestones)
        self._state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))
        course = Course(jax.random.key(SEED), type(milestones)(*map(jnp.int32, milestones)))
        loss_fn = detector_loss(detection.model, alpha=None)
        self._stepper = Stepper(loss_fn, settings, state=self._state, course=course)
        self._stepper.await_steps(batches)
        self._batches = itertools.cycle(batches)

    def examples_per_second(self, *, count: int) -> float:
        """Of the fastest of `count` steps."""
        seconds = []
        for _ in range(count):
            batch, started = next(self._batches), time.perf_counter()
            self._state, losses = self._stepper(self._state, [batch])
            (loss,) = jax.device_get(losses)
            seconds.append(time.perf_counter() - started)
            assert np.isfinite(loss)
        return BATCH_SIZE / min(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = _parser().parse_args(arguments)
    if missing := [str(path) for path in (CORPUS, ENCODER) if not path.is_dir()]:
        print(f"error: this measures with {' and '.join(missing)}, which is missing (README.md)", file=sys.stderr)
        return 1
    logging.disable(logging.WARNING)  # of Orbax and the like; not before, since it holds for the whole process
    corpus, tokenizer = read_corpus(CORPUS), load_tokenizer(ENCODER)
    detector, steps = _detector(corpus, tokenizer, count=options.steps)
    recognizer, kinds = _recognizer(corpus, tokenizer)
    found: dict[str, list[float]] = {"pipeline": [], "recognizer_pipeline": [], "step": []}
    for number in range(options.rounds + 1):
        rates = (
            detector.examples_per_second(epochs=options.epochs),
            recognizer.examples_per_second(epochs=options.epochs),
            steps.examples_per_second(count=options.steps),
        )
        if number:  # the first only warms up
            print(f"round {number}: " + ", ".join(f"{n} {r:,.1f}/s" for n, r in zip(found, rates, strict=True)))
            for values, rate in zip(found.values(), rates, strict=True):
                values.append(rate)
    medians = {name: statistics.median(values) for name, values in found.items()}
    result = {
        "benchmark": "input",
        "machine": describe(),
        "rounds": options.rounds,
        "steps_per_round": options.steps,
        "prompts_hold": ["sentence", *kinds],
        "ratio": round(medians["pipeline"] / medians["step"], 1),
        "least_ratio": round(min(found["pipeline"]) / max(found["step"]), 1),
        **{f"{name}_examples_per_second": round(value, 1) for name, value in medians.items()},
        **{f"least_{name}_examples_per_second": round(min(values), 1) for name, values in found.items()},
    }
    print(json.dumps(result))
    return 0


def _detector(corpus: Corpus, tokenizer: Tokenizer, *, count: int) -> tuple[Pipeline, Steps]:
    config, section = convert.load_config(ENCODER), paper_settings().detector
    assert config.hidden_dropout == config.attention_dropout == 0.1
    section.update(batch_size=BATCH_SIZE, awp=False)
    detection = Detection(
        encoder=config,
        tokenizer=tokenizer,
        max_tokens=config.max_tokens,
        eval_batch_size=section.eval_batch_size,
        pack_width=section.pack_width,
    )
    features = detector_features(corpus.splits["train"], tokenizer, max_tokens=detection.max_tokens)
    vocabulary = Vocabulary.of((item.token_ids for item in features), size=config.vocab_size)
    collate = functools.partial(
        collate_detector, buckets=length_buckets(detection.max_tokens), pack_width=section.pack_width
    )
    pipeline = Pipeline(features, functools.partial(vocabulary.renumbered(collate), batch_size=BATCH_SIZE))
    batches = list(itertools.islice(pipeline.batches(epochs=1), min(count, len(features) // BATCH_SIZE)))
    return pipeline, Steps(detection, section, vocabulary, batches)


def _recognizer(corpus: Corpus, tokenizer: Tokenizer) -> tuple[Pipeline, tuple[str, ...]]:
    """The pipeline, and the kinds of knowledge that its prompts hold."""
    config, section = convert.load_config(ENCODER), paper_settings().recognizer
    recognition = Recognition(
        encoder=dataclasses.replace(config, vocab_size=config.vocab_size + 1),
        tokenizer=tokenizer,
        types=corpus.types,
        max_tokens=PROMPT_TOKENS,
        max_objects=section.max_objects,
        eval_batch_size=section.eval_batch_size,
        pack_width=section.pack_width,
    )
    candidates = [(example, entity.span) for example in corpus.splits["train"] for entity in example.entities]
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(Path(folder), corpus)
        prompted = write_prompts(recognition, candidates, retrieve(sources, candidates))
    features = [
        RecognizerFeatures(
            index=index,
            prompt=prompt,
            label=recognition.classes.index(gold_class(*candidate)),
            overlaps=np.zeros(0, np.float32),  # no objects: there are none of all images
        )
        for index, (candidate, prompt) in enumerate(zip(candidates, prompted.prompts, strict=True))
    ]
    vocabulary = Vocabulary.of((prompt.token_ids for prompt in prompted.prompts), size=recognition.encoder.vocab_size)
    collate = functools.partial(
        collate_recognizer,
        buckets=length_buckets(recognition.max_tokens),
        max_objects=recognition.max_objects,
        pack_width=recognition.pack_width,
    )
    return Pipeline(features, functools.partial(vocabulary.renumbered(collate), batch_size=BATCH_SIZE)), sources.kinds


def _sources(folder: Path, corpus: Corpus) -> KnowledgeSources:
    """A store with what `data/` has, as the import commands write it."""
    if CAPTIONS.is_file():
        write_kind(folder / "store", "captions", read_captions([CAPTIONS]).records, {})
    if NOTES.is_dir():
        write_kind(folder / "store", "notes", read_notes(NOTES, corpus.splits).records, {})
    kinds = {"use_captions": CAPTIONS.is_file(), "use_notes": NOTES.is_dir()}
    return KnowledgeSources(store=Store.open(folder / "store") if any(kinds.values()) else None, **kinds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/input.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--steps", type=int, default=30, help="training steps a round; default: 30")
    parser.add_argument("--epochs", type=int, default=2, help="times a round drains all batches; default: 2")
    return parser


if __name__ == "__main__":
    sys.exit(main())
