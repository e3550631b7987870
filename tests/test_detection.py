"""Stage 1 around its model: windows joined, spans decoded and scored, the loss of a batch."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jaxtyping import Float
from memory import held

from scanner_jax import detection as detection_module
from scanner_jax.convert import load_encoder
from scanner_jax.corpora import Examples
from scanner_jax.detection import Detection, detector_loss, span_scores, spans_of, tag
from scanner_jax.encoder import Params
from scanner_jax.models import SpanDetector, init_detector
from scanner_jax.pipeline import collate_detector, detector_features
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import Entity, Example, Span

WORDS = "Mira Okafor visits Lake Tamsin with the Reds band today - !".split()
LONG = Example("3", ("Mira-Okafor", "visits", "Lake", "Tamsin", "with", "the", "Reds") * 4)
EXAMPLES = [
    Example("0", ("the", "Reds-band", "!"), (Entity(1, 2, "ORG"),)),
    Example("1", ()),
    Example("2", ("Mira", "Okafor", "visits", "Lake-Tamsin", "today"), (Entity(0, 2, "PER"), Entity(3, 4, "LOC"))),
    LONG,
    Example("4", ("today",)),
]


@pytest.fixture(scope="module")
def detector(tiny_encoder: Callable[[Sequence[str]], Path]) -> tuple[Detection, Params]:
    folder = tiny_encoder(WORDS)
    config, encoder_params = load_encoder(folder)
    detection = Detection(encoder=config, tokenizer=load_tokenizer(folder), max_tokens=16, eval_batch_size=2)
    params = init_detector(config, encoder_params, jax.random.key(0))
    return detection, params | {"tags": {"kernel": 20 * params["tags"]["kernel"], "bias": params["tags"]["bias"]}}


def logits_alone(detection: Detection, params: Params, token_ids: np.ndarray) -> Float[np.ndarray, "t c"]:
    """A sequence's logits in a batch of its own, of another width than the bucket's."""
    length = len(token_ids)
    ids = np.pad(token_ids, (0, 20 - length))[None]
    return np.asarray(forward(detection.model, params, ids, np.arange(20)[None] < length))[0, :length]


@functools.partial(jax.jit, static_argnames="model")
def forward(model: SpanDetector, params: Params, ids: np.ndarray, mask: np.ndarray) -> Any:
    return model.apply({"params": params}, ids, mask, deterministic=True)


def test_tag_gives_each_word_the_logits_of_its_first_sub_word(detector: tuple[Detection, Params]) -> None:
    detection, params = detector
    found = list(tag(detection, params, EXAMPLES))
    assert [rows.shape for rows in found] == [(len(example.words), 3) for example in EXAMPLES]
    for example, rows in zip(EXAMPLES, found, strict=True):
        if example is not LONG and example.words:
            pieces = next(detection.tokenizer.words([example.words]))
            ids = np.array([detection.tokenizer.start, *itertools.chain(*pieces), detection.tokenizer.end])
            firsts = 1 + np.cumsum([0, *map(len, pieces[:-1])])
            np.testing.assert_allclose(rows, logits_alone(detection, params, ids)[firsts], atol=1e-5)


def test_tag_joins_windows(detector: tuple[Detection, Params]) -> None:
    detection, params = detector
    windows = detector_features([LONG], detection.tokenizer, max_tokens=16)
    assert len(windows) > 2
    (rows,) = tag(detection, params, [LONG])
    expected = np.concatenate(
        [logits_alone(detection, params, window.token_ids)[window.positions] for window in windows]
    )
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert list(spans_of([rows])) == list(spans_of([expected]))


def test_batch_size_and_order_change_nothing(detector: tuple[Detection, Params]) -> None:
    detection, params = detector
    one_by_one = [next(tag(detection, params, [example])) for example in EXAMPLES]
    for ours, alone in zip(list(tag(detection, params, EXAMPLES[::-1]))[::-1], one_by_one, strict=True):
        np.testing.assert_allclose(ours, alone, atol=1e-5)
    assert list(tag(detection, params, [])) == []


def test_a_part_at_a_time_changes_nothing(detector: tuple[Detection, Params], monkeypatch: pytest.MonkeyPatch) -> None:
    detection, params = detector
    whole = list(tag(detection, params, EXAMPLES))
    monkeypatch.setattr(detection_module, "AT_ONCE", 2)
    for ours, theirs in zip(tag(detection, params, EXAMPLES), whole, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_spans_of() -> None:
    outside, begin, inside = np.eye(3, dtype=np.float32) * 2 - 0.5
    logits = [
        np.stack([inside, outside, begin, inside, inside, begin]),
        np.zeros((0, 3), np.float32),
        np.stack([outside, outside]),
    ]
    assert list(spans_of(logits)) == [(Span(0, 1), Span(2, 5), Span(5, 6)), (), ()]


def test_span_scores_count_every_gold_entity_and_no_type() -> None:
    # Three gold; two predicted, one right.
    found = [(Span(1, 2),), (), (Span(0, 1),), (), ()]
    assert span_scores(EXAMPLES, found) == {"precision": 50.0, "recall": 33.33, "f1": 40.0, "support": 3}
    nothing = [()] * 5
    assert span_scores(EXAMPLES, nothing) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 3}


def test_loss_is_the_mean_over_first_sub_words(detector: tuple[Detection, Params]) -> None:
    detection, params = detector
    config = dataclasses.replace(detection.encoder, hidden_dropout=0.0, attention_dropout=0.0)
    still = dataclasses.replace(detection, encoder=config).model
    teacher = [np.random.default_rng(1).normal(size=(len(example.words), 3)) for example in EXAMPLES]
    features = detector_features(EXAMPLES, detection.tokenizer, max_tokens=16, teacher_logits=teacher)
    collate = functools.partial(collate_detector, batch_size=len(features) + 2, buckets=(16,))
    batch = collate(features)
    logits = np.concatenate([logits_alone(detection, params, item.token_ids)[item.positions] for item in features])
    gold = np.concatenate([item.labels for item in features])
    losses = -log_softmax(logits)[np.arange(len(gold)), gold]

    untaught = {name: value for name, value in batch.items() if name != "teacher_logits"}
    loss_fn = detector_loss(still, alpha=None)
    np.testing.assert_allclose(loss_fn(params, untaught, jax.random.key(0)), losses.mean(), rtol=1e-5)

    # Trust Your Teacher, as soon as the batch carries the teacher's logits.
    log_teacher = log_softmax(np.concatenate(teacher))
    trust = np.exp(log_teacher[np.arange(len(gold)), gold])
    distance = (np.exp(log_teacher) * (log_teacher - log_softmax(logits))).sum(axis=1)
    expected = (trust * losses + (1 - trust) * distance).mean()
    np.testing.assert_allclose(loss_fn(params, batch, jax.random.key(0)), expected, rtol=1e-5)
    full = detector_loss(still, alpha=0.0)(params, batch, jax.random.key(0))
    np.testing.assert_allclose(full, distance.mean(), rtol=1e-5)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def test_memory_does_not_grow_with_the_sentences(
    detector: tuple[Detection, Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    detection, params = detector
    monkeypatch.setattr(detection_module, "AT_ONCE", 250)
    detection = dataclasses.replace(detection, eval_batch_size=64)

    def tokenised_and_tagged(count: int) -> None:
        examples = Examples(EXAMPLES[2] for _ in range(count))
        assert len(detector_features(examples, detection.tokenizer, max_tokens=16)) == count
        assert span_scores(examples, spans_of(tag(detection, params, examples)))["support"] == 2 * count

    assert held(tokenised_and_tagged, 1000, 3000) < 200
