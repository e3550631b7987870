"""Stage 1 as the recipe uses it: train a span detector, tag a split with it, score the spans."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from scanner_jax.beginning import Training, TrainingSettings
from scanner_jax.corpora import Examples
from scanner_jax.costs import ModelSizes
from scanner_jax.encoder import EncoderConfig, Execution, Params, in_float32
from scanner_jax.forward import Forward, Passes, fitting
from scanner_jax.loop import train
from scanner_jax.losses import cross_entropy, trust_your_teacher
from scanner_jax.metrics import PRF, Counts, span_counts
from scanner_jax.models import SpanDetector, init_detector
from scanner_jax.pipeline import Batch, DetectorFeatures, collate_detector, detector_features, length_buckets
from scanner_jax.placement import ONE_DEVICE, Placement
from scanner_jax.spill import SpilledList
from scanner_jax.stepping import LossFn, Watch
from scanner_jax.tags import spans_from_bio
from scanner_jax.tokens import Tokenizer
from scanner_jax.types import BIO, Entity, Example, Span
from scanner_jax.vocabulary import Vocabulary

WordLogits = Sequence[Float[np.ndarray, "w c"]]
"""For each sentence one row of logits over `BIO` per word."""

AT_ONCE = 20_000
"""Sentences that are tokenised and tagged together: more than a split of the paper's corpora has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
    """What all detectors of a recipe share.

    Attributes:
        encoder: sizes of the pretrained encoder.
        tokenizer: its tokenizer.
        max_tokens: longer sentences are windowed.
        eval_batch_size: windows a batch where no gradient is taken.
        fitted: whether such a batch has no more rows than it takes, as `packing.fit_batches` has it.
        pack_width: tokens of the rows that short sentences share in training; 0 gives each its own.
        execution: how the encoder's layers are computed in training.
        placement: the devices that all of it runs on.
    """

    encoder: EncoderConfig
    tokenizer: Tokenizer
    max_tokens: int
    eval_batch_size: int
    fitted: bool = False
    pack_width: int = 0
    execution: Execution = dataclasses.field(default_factory=Execution)
    placement: Placement = ONE_DEVICE

    @property
    def model(self) -> SpanDetector:
        """What is trained."""
        return SpanDetector(self.encoder, self.execution)

    @property
    def reader(self) -> SpanDetector:
        """What tags: the same in float32, whatever it was trained in, as an exported model does."""
        return SpanDetector(self.encoder, in_float32(self.execution))

    @property
    def sizes(self) -> ModelSizes:
        """What a detector's steps cost."""
        return ModelSizes(encoder=self.encoder, execution=self.execution, token_outputs=len(BIO))


def train_detector(
    detection: Detection,
    *,
    name: str,
    encoder_params: Params,
    training: Sequence[Example],
    dev: Sequence[Example] | None,
    settings: TrainingSettings,
    seed: int,
    folder: Path,
    teacher_logits: WordLogits | None = None,
    alpha: float | None = None,
    vocabulary: Vocabulary | None = None,
    watch: Watch | None = None,
) -> Params:
    """Train one detector from the pretrained encoder and return its best parameters on dev.

    Args:
        detection: encoder, tokenizer and limits.
        name: the phase's.
        encoder_params: the pretrained encoder's. **Assumption:** a student starts from them anew too.
        training: sentences with gold entities.
        dev: selects the best epoch by span F1; None keeps the last.
        settings: how to train.
        seed: of head, order and dropout.
        folder: the phase's.
        teacher_logits: the teacher's over `training`, for Trust Your Teacher; None trains with plain cross entropy.
        alpha: a fixed trust in the gold label, None for the teacher's own.
        vocabulary: the word embeddings to train, as `detector_vocabulary` has them; None trains all.
        watch: looks on while steps are made.
    """
    made = detector_training(detection, encoder_params, training, seed=seed, teacher_logits=teacher_logits, alpha=alpha)
    return train(
        name=name,
        params=made.params,
        loss_fn=made.loss_fn,
        features=made.features,
        collate=made.collate,
        settings=settings,
        evaluate=None if dev is None else functools.partial(_dev_scores, detection, dev),
        seed=seed,
        folder=folder,
        vocabulary=vocabulary,
        watch=watch,
        placement=detection.placement,
        ahead=() if dev is None else _tagging(detection, made.params, dev).missing(),
    )


def detector_training(
    detection: Detection,
    encoder_params: Params,
    training: Sequence[Example],
    *,
    seed: int,
    teacher_logits: WordLogits | None = None,
    alpha: float | None = None,
) -> Training:
    """What `train_detector` trains; the arguments are its own."""
    return Training(
        params=init_detector(detection.encoder, encoder_params, jax.random.key(seed)),
        loss_fn=detector_loss(detection.model, alpha=alpha),
        features=detector_features(
            training, detection.tokenizer, max_tokens=detection.max_tokens, teacher_logits=teacher_logits
        ),
        collate=functools.partial(
            collate_detector, buckets=length_buckets(detection.max_tokens), pack_width=detection.pack_width
        ),
    )


def detector_vocabulary(detection: Detection, examples: Iterable[Sequence[Example]]) -> Vocabulary:
    """The word embeddings that sentences touch: those of all splits, so that all detectors share what is compiled."""
    features = (
        item
        for split in examples
        for item in detector_features(split, detection.tokenizer, max_tokens=detection.max_tokens)
    )
    return Vocabulary.of((item.token_ids for item in features), size=detection.encoder.vocab_size)


@functools.cache  # so that detectors share what is compiled for it
def detector_loss(model: SpanDetector, *, alpha: float | None) -> LossFn:
    """Cross entropy over the first sub-words, or TYT where the batch carries the teacher's logits."""

    def loss_fn(params: Params, batch: Batch, rng: jax.Array) -> Float[Array, ""]:
        logits = _logits(model, params, batch, rng)
        if "teacher_logits" in batch:
            return trust_your_teacher(logits, batch["labels"], batch["mask"], batch["teacher_logits"], alpha=alpha)
        return cross_entropy(logits, batch["labels"], batch["mask"])

    return loss_fn


def tag(detection: Detection, params: Params, examples: Iterable[Example]) -> Iterator[Float[np.ndarray, "w c"]]:
    """Yield the detector's logits for every word of every sentence, windows joined; those of `AT_ONCE` are held."""
    left = iter(examples)
    while some := Examples(itertools.islice(left, AT_ONCE)):
        logits = [np.zeros((len(example.words), len(BIO)), np.float32) for example in some]
        for item, rows in _tagging(detection, params, some).rows():
            logits[item.example][item.words] = rows[item.positions]
        yield from logits


def spans_of(logits: Iterable[Float[np.ndarray, "w c"]]) -> SpilledList[tuple[Span, ...]]:
    """Decode each sentence's spans from its words' logits, greedily."""
    spans = (spans_from_bio(rows.argmax(axis=-1).tolist()) for rows in logits)
    return SpilledList(spans, pack=_pairs, unpack=_spans)


def _pairs(spans: Iterable[Span]) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in spans]


def _spans(pairs: Iterable[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple(Span(*pair) for pair in pairs)


def span_scores(examples: Iterable[Example], spans: Iterable[Iterable[Span]]) -> PRF:
    """Span F1 over every gold entity: types are not judged in stage 1."""
    counts = (
        span_counts([example.entities], [[Entity(span.start, span.end, "") for span in found]])
        for example, found in zip(examples, spans, strict=True)
    )
    return sum(counts, Counts()).prf()


def _logits(model: SpanDetector, params: Params, batch: Batch, rng: jax.Array | None) -> Float[Array, "b t c"]:
    """Run the model with dropout drawn from `rng`, without dropout if there is none."""
    logits: Any = model.apply(
        {"params": params},
        batch["token_ids"],
        batch["segments"],
        deterministic=rng is None,
        rngs=None if rng is None else {"dropout": rng},
    )
    return logits


def _tagging(detection: Detection, params: Params, examples: Sequence[Example]) -> Passes[DetectorFeatures]:
    features = detector_features(examples, detection.tokenizer, max_tokens=detection.max_tokens)
    return tagging(detection, params, features)


def tagging(detection: Detection, params: Params, features: Sequence[DetectorFeatures]) -> Passes[DetectorFeatures]:
    """The forward pass of `tag` over features."""
    buckets = length_buckets(detection.max_tokens)
    return Passes(
        _forward(detection.reader, detection.placement),
        params,
        features,
        detection.placement.spread(functools.partial(collate_detector, buckets=buckets)),
        detection.eval_batch_size,
        fitting(buckets) if detection.fitted else None,
    )


@functools.cache  # so that detectors share what is compiled for it
def _forward(model: SpanDetector, placement: Placement) -> Forward:
    return Forward(functools.partial(_logits, model, rng=None), placement)


def _dev_scores(detection: Detection, dev: Sequence[Example], params: Params) -> dict[str, Any]:
    scores = span_scores(dev, spans_of(tag(detection, params, dev)))
    return {"score": scores["f1"], **{f"span_{name}": value for name, value in scores.items()}}
