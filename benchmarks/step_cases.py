"""What `train_step.py` times: the batches of a stage as both sides read them, and our side's step."""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from scanner_jax.beginning import Training, TrainingSettings, begin
from scanner_jax.corpora import read_corpus
from scanner_jax.costs import ModelSizes, step_flops
from scanner_jax.detection import detector_loss
from scanner_jax.encoder import EncoderConfig, Execution, random_params
from scanner_jax.metering import planned_bytes
from scanner_jax.models import EntityRecognizer, SpanDetector, init_detector, init_recognizer
from scanner_jax.optim import OptimizerSettings
from scanner_jax.pipeline import (
    RecognizerFeatures,
    collate_detector,
    collate_recognizer,
    detector_features,
    length_buckets,
    training_batches,
)
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.recognition import recognizer_loss
from scanner_jax.stepping import Stepper, shape_of
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import BIO
from scanner_jax.vocabulary import Vocabulary

CORPUS = Path("data/twitter2015")
CLASSES = 5
"""Of stage 2: Twitter-2015's four types, and non-entity."""
DETECTOR_BATCH, PROMPTS = 4, 8
"""The paper's batch sizes for Twitter-2015, of stage 1 and of stage 2."""
PACK_WIDTH = 96
USED_ROWS = 21_521
"""Word embeddings that Twitter-2015 with captions and notes touches, of XLM-RoBERTa's (docs/performance.md)."""
SEED, WARM = 1, 3


class Case(NamedTuple):
    """A row of the table.

    Attributes:
        tokens: of every prompt of stage 2; None is stage 1 at the corpus's own lengths.
        dropout: the encoder's rates, as the recipe has them; False is none at all.
        awp: with adversarial weight perturbation, from the first step on.
    """

    tokens: int | None
    dropout: bool = True
    awp: bool = False

    def __str__(self) -> str:
        what = f"stage 2, {PROMPTS} x {self.tokens}" if self.tokens else f"stage 1, {DETECTOR_BATCH} tweets"
        return what + (", AWP" if self.awp else "") + ("" if self.dropout else ", no dropout")


class Data(NamedTuple):
    """Batches before they are padded.

    Attributes:
        chosen: each batch's examples.
        vocabulary: the word embeddings that the whole training would touch.
    """

    chosen: list[list[Any]]
    vocabulary: Vocabulary

    @property
    def lengths(self) -> list[list[int]]:
        return [[item.length for item in batch] for batch in self.chosen]


class Timed(NamedTuple):
    """Steps of one side.

    Attributes:
        seconds: of a step, in the median of the rounds.
        fastest: of a step, in the fastest round.
        peak_bytes: of memory; None where it is not known.
        compile_seconds: before the first step.
    """

    seconds: float
    fastest: float
    peak_bytes: int | None
    compile_seconds: float


def optimizer(case: Case) -> OptimizerSettings:
    return OptimizerSettings(learning_rate=1e-5, awp_gamma=1e-4 if case.awp else 0.0, awp_start=0.0)


def read_data(case: Case, encoder: Path, config: EncoderConfig, steps: int) -> Data:
    """The first batches of stage 1 as the recipe orders them, or prompts of one length made of random tokens."""
    if case.tokens is None:
        splits = read_corpus(CORPUS).splits
        tokenizer = load_tokenizer(encoder)
        tokenize = functools.partial(detector_features, tokenizer=tokenizer, max_tokens=config.max_tokens)
        features = {name: tokenize(examples) for name, examples in splits.items()}
        batches = training_batches(features["train"], list, batch_size=DETECTOR_BATCH, epochs=1, seed=SEED)
        chosen = list(itertools.islice(batches, WARM + steps))
        ids = (item.token_ids for split in features.values() for item in split)
        return Data(chosen, Vocabulary.of(ids, size=config.vocab_size))
    rng = np.random.default_rng(SEED)
    used = min(USED_ROWS, config.vocab_size)
    drawn = rng.integers(5, used, (WARM + steps, PROMPTS, case.tokens))
    chosen = [
        [
            RecognizerFeatures(0, Prompt(tuple(row.tolist()), 1, (), Cut()), n % CLASSES, np.zeros(0, np.float32))
            for n, row in enumerate(batch)
        ]
        for batch in drawn
    ]
    return Data(chosen, Vocabulary.of([np.arange(used)], size=config.vocab_size))


def model_flops(case: Case, config: EncoderConfig, data: Data) -> float:
    """Operations that a timed step's real tokens need, in the mean."""
    outputs = {"token_outputs": len(BIO)} if case.tokens is None else {"example_outputs": CLASSES}
    model = ModelSizes(encoder=config, **outputs)
    gradients = 2 if case.awp else 1
    return statistics.mean(
        step_flops(model, lengths, examples=len(lengths), gradients=gradients, recomputing=False)
        for lengths in data.lengths[WARM:]
    )


def our_side(
    case: Case, config: EncoderConfig, data: Data, execution: Execution, *, rounds: int, whole_vocabulary: bool
) -> Timed:
    """The recipe's jitted step: rows shared, the vocabulary in use."""
    vocabulary = Vocabulary.whole(config.vocab_size) if whole_vocabulary else data.vocabulary
    key, encoder_params = jax.random.key(SEED), random_params(config, seed=SEED)
    collate: Callable[..., Any]
    if case.tokens is None:
        loss_fn = detector_loss(SpanDetector(config, execution), alpha=None)
        params = init_detector(config, encoder_params, key)
        collate = functools.partial(collate_detector, buckets=length_buckets(config.max_tokens), pack_width=PACK_WIDTH)
    else:
        loss_fn = recognizer_loss(EntityRecognizer(config, CLASSES, execution), alpha=None, grounding_weight=0.0)
        params = init_recognizer(config, encoder_params, key, num_types=CLASSES)
        collate = functools.partial(collate_recognizer, buckets=length_buckets(config.max_tokens), max_objects=0)
    size = DETECTOR_BATCH if case.tokens is None else PROMPTS
    settings = TrainingSettings(
        optimizer=optimizer(case), epochs=1, batch_size=size, checkpoint_every=10**9, log_every=10**9
    )
    training = Training(params, loss_fn, [item for batch in data.chosen for item in batch], collate)
    begun = begin(training, settings=settings, seed=SEED, vocabulary=vocabulary)
    del params, encoder_params, training
    state = begun.state
    batches = [vocabulary.renumbered(collate)(batch, batch_size=size) for batch in data.chosen]
    shapes = {str(shape := shape_of(batch)): shape for batch in batches}.values()
    with Stepper(loss_fn, settings.optimizer, state=state, course=begun.course) as stepper:
        del begun
        started = time.perf_counter()
        stepper.compile_ahead(shapes)
        peak = max(planned_bytes(stepper.compiled(shape).executable) or 0 for shape in shapes)
        compile_seconds = time.perf_counter() - started

        def steps(some: Sequence[Any]) -> None:
            nonlocal state
            for batch in some:
                state, _ = stepper(state, [batch])
            jax.block_until_ready(state)

        return timed(steps, batches, rounds=rounds, peak=lambda: peak or None, compile_seconds=compile_seconds)


def timed(
    steps: Callable[[Sequence[Any]], None],
    batches: Sequence[Any],
    *,
    rounds: int,
    peak: Callable[[], int | None],
    compile_seconds: float = 0.0,
) -> Timed:
    """Make the first steps, which are not timed, and the others in rounds."""
    started = time.perf_counter()
    steps(batches[:WARM])
    compile_seconds += time.perf_counter() - started
    seconds = []
    for part in np.array_split(np.arange(WARM, len(batches)), rounds):
        started = time.perf_counter()
        steps([batches[place] for place in part])
        seconds.append((time.perf_counter() - started) / len(part))
    return Timed(statistics.median(seconds), min(seconds), peak(), compile_seconds)
