"""Stage 2 around its model: gold classes, prompts, overlaps, logits in order, what the best epoch is chosen by."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

from scanner_jax.candidates import Prompted, candidate_counts, gold_class, object_overlaps, object_recall
from scanner_jax.convert import add_token_row, load_encoder
from scanner_jax.decoding import Judgement
from scanner_jax.encoder import EncoderConfig, Params
from scanner_jax.models import init_recognizer
from scanner_jax.prompts import PromptError
from scanner_jax.recognition import (
    Recognition,
    _collate,
    _dev_scores,
    _features,
    judge,
    predicted_entities,
    recognizer_loss,
    write_prompts,
)
from scanner_jax.tokens import load_tokenizer
from scanner_jax.types import Entity, Example, ImageObject, Knowledge, Span

WORDS = "The entity is for in this sentence . Mira Okafor visits Lake Tamsin with the Reds red dog".split()
TWEETS = [
    Example(
        "0",
        ("Mira", "Okafor", "visits", "Lake", "Tamsin"),
        (Entity(0, 2, "PER", ((0.0, 0.0, 4.0, 4.0), (10.0, 0.0, 14.0, 4.0))), Entity(3, 5, "LOC")),
    ),
    Example("1", ("visits", "this", "sentence")),
    Example("2", ("the", "Reds"), (Entity(1, 2, "ORG"),)),
]
CANDIDATES = [
    (TWEETS[0], Span(0, 2)),
    (TWEETS[0], Span(3, 4)),  # a part of a gold entity is none
    (TWEETS[0], Span(3, 5)),
    (TWEETS[2], Span(1, 2)),
    (TWEETS[2], Span(0, 2)),
]
OBJECTS = (
    ImageObject((10.0, 0.0, 14.0, 2.0), "dog", 0.9, "red dog"),  # half of the second gold box
    ImageObject((0.0, 0.0, 4.0, 4.0), "red dog", 0.8),  # the first gold box
    ImageObject((50.0, 50.0, 60.0, 60.0), "dog", 0.7),
    ImageObject((2.0, 0.0, 6.0, 4.0), "dog", 0.6),  # 8 of 24 pixels
)
KNOWLEDGE = [
    Knowledge(objects=OBJECTS),
    Knowledge(objects=OBJECTS),
    Knowledge(),
    Knowledge(notes="the Reds"),
    Knowledge(),
]


@pytest.fixture(scope="module")
def recognizer(tiny_encoder: Callable[[Sequence[str]], Path]) -> tuple[Recognition, Params]:
    folder = tiny_encoder(WORDS)
    config, encoder_params = load_encoder(folder)
    recognition = Recognition(
        encoder=dataclasses.replace(config, vocab_size=config.vocab_size + 1),
        tokenizer=load_tokenizer(folder),
        types=("LOC", "ORG", "PER"),
        max_tokens=32,
        max_objects=3,
        eval_batch_size=2,
    )
    params = init_recognizer(recognition.encoder, add_token_row(encoder_params), jax.random.key(0), num_types=4)
    return recognition, params | {"types": {"kernel": 20 * params["types"]["kernel"], "bias": params["types"]["bias"]}}


@pytest.fixture(scope="module")
def prompted(recognizer: tuple[Recognition, Params]) -> Prompted:
    return write_prompts(recognizer[0], CANDIDATES, KNOWLEDGE)


def test_gold_class() -> None:
    found = [gold_class(*candidate) for candidate in CANDIDATES]
    assert found == ["PER", "non-entity", "LOC", "ORG", "non-entity"]


def test_candidate_counts() -> None:
    assert candidate_counts(CANDIDATES) == {"entities": 3, "non_entities": 2}
    assert candidate_counts(CANDIDATES[1:2]) == {"entities": 0, "non_entities": 1}
    assert candidate_counts([]) == {"entities": 0, "non_entities": 0}


def test_overlaps_with_the_best_gold_box() -> None:
    found = object_overlaps(CANDIDATES[0], OBJECTS)
    np.testing.assert_allclose(found, [0.5, 1.0, 0.0, 1 / 3], rtol=1e-6)
    assert found.dtype == np.float32
    assert object_overlaps(CANDIDATES[1], OBJECTS).tolist() == [0.0] * 4  # a non-entity beside an entity with boxes
    assert object_overlaps(CANDIDATES[2], OBJECTS).tolist() == [0.0] * 4  # an entity that nothing in the image shows
    assert object_overlaps(CANDIDATES[0], ()).shape == (0,)


def test_object_recall_after_the_cut(recognizer: tuple[Recognition, Params], prompted: Prompted) -> None:
    assert prompted.boxes == [[item.box for item in OBJECTS[:3]]] * 2 + [[]] * 3
    assert object_recall(prompted) == {"recall": 100.0, "support": 1}  # of the only candidate with gold boxes
    one = dataclasses.replace(recognizer[0], max_objects=1)  # what is left has 0.5, and not more
    assert object_recall(write_prompts(one, CANDIDATES, KNOWLEDGE)) == {"recall": 0.0, "support": 1}


def test_prompts_and_features(recognizer: tuple[Recognition, Params], prompted: Prompted) -> None:
    recognition, _ = recognizer
    assert recognition.classes == ("LOC", "ORG", "PER", "non-entity")
    assert recognition.object_token == recognition.tokenizer.backend.get_vocab_size()  # `<obj>` is an added token
    assert [len(prompt.object_positions) for prompt in prompted.prompts] == [3, 3, 0, 0, 0]
    for prompt in prompted.prompts:
        assert len(prompt.token_ids) <= 32
        assert prompt.token_ids[prompt.mask_position] == recognition.tokenizer.mask
        assert [prompt.token_ids[place] for place in prompt.object_positions] == (
            [recognition.object_token] * len(prompt.object_positions)
        )
    teacher = np.arange(20, dtype=np.float32).reshape(5, 4)
    features = _features(recognition, prompted, teacher)
    assert [item.index for item in features] == [0, 1, 2, 3, 4]
    assert [item.label for item in features] == [2, 3, 0, 1, 3]
    assert [item.prompt for item in features] == prompted.prompts
    assert [len(item.overlaps) for item in features] == [3, 3, 0, 0, 0]
    np.testing.assert_array_equal([item.teacher_logits for item in features], teacher)


def test_a_budget_that_is_too_small_is_refused(recognizer: tuple[Recognition, Params]) -> None:
    with pytest.raises(PromptError, match="example 0, candidate 'Mira Okafor': 16 tokens cannot hold"):
        write_prompts(dataclasses.replace(recognizer[0], max_tokens=16), CANDIDATES, KNOWLEDGE)


def test_judge_keeps_the_candidates_order(recognizer: tuple[Recognition, Params], prompted: Prompted) -> None:
    recognition, params = recognizer
    judgement = judge(recognition, params, prompted)
    assert judgement.types.shape == (5, 4) and judgement.overlaps.shape == (5, 3)
    # All at once, and wider than the bucket.
    ids = np.array([np.pad(prompt.token_ids, (0, 40 - len(prompt.token_ids))) for prompt in prompted.prompts])
    mask = np.arange(40) < np.array([[len(prompt.token_ids)] for prompt in prompted.prompts])
    places = np.array([prompt.mask_position for prompt in prompted.prompts])
    objects = np.array([prompt.object_positions or (0, 0, 0) for prompt in prompted.prompts])
    forward = jax.jit(functools.partial(recognition.model.apply, deterministic=True))
    types, overlaps = forward({"params": params}, ids, mask, places, objects)
    np.testing.assert_allclose(judgement.types, types, atol=1e-5)
    np.testing.assert_allclose(judgement.overlaps[:2], overlaps[:2], atol=1e-5)
    assert np.isneginf(judgement.overlaps[2:]).all()  # prompts without objects
    for logits in judgement.types, judgement.overlaps[:2]:
        assert np.abs(np.diff(logits, axis=0)).max(axis=1).min() > 1e-3  # no two rows could be swapped unseen
    nothing = judge(recognition, params, Prompted([], [], []))
    assert nothing.types.shape == (0, 4) and nothing.overlaps.shape == (0, 3)


def test_boxes_only_where_grounded(recognizer: tuple[Recognition, Params], prompted: Prompted) -> None:
    recognition, params = recognizer
    judgement = judge(recognition, params, prompted)
    judgement = judgement._replace(types=np.tile(np.float32([0, 0, 5, 0]), (5, 1)))
    chosen = [OBJECTS[int(judgement.overlaps[row].argmax())].box for row in (0, 1)]
    found = predicted_entities(recognition, TWEETS, prompted, judgement, grounded=True)
    assert [item.entity.boxes for item in found[0]] == [(chosen[0],), (chosen[1],), ()]
    assert [item.box_score is None for item in found[0]] == [False, False, True]
    plain = predicted_entities(recognition, TWEETS, prompted, judgement, grounded=False)
    assert {(item.entity.boxes, item.box_score) for items in plain for item in items} == {((), None)}


def test_the_best_epoch_is_chosen_by_gmner_where_grounded(
    recognizer: tuple[Recognition, Params], prompted: Prompted, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognition, params = recognizer
    types = np.full((5, 4), -9, np.float32)
    types[range(5), [2, 3, 0, 1, 3]] = 9  # every type is right
    overlaps = np.full((5, 3), -np.inf, np.float32)
    overlaps[0], overlaps[1] = [-1.0, 2.0, 0.0], [9.0, 9.0, 9.0]  # Mira's second object is hers
    monkeypatch.setattr("scanner_jax.recognition.judge", lambda *_: Judgement(types, overlaps))
    scores = _dev_scores(recognition, TWEETS, prompted, True, params)
    assert (scores["score"], scores["f1"], scores["support"]) == (100.0, 100.0, 3)
    assert scores["box_threshold"] < 1 / (1 + math.exp(-2.0))
    overlaps[0] = [2.0, -1.0, 0.0]  # now another is chosen
    assert _dev_scores(recognition, TWEETS, prompted, True, params)["score"] == 66.67
    scores = _dev_scores(recognition, TWEETS, prompted, False, params)
    assert scores["score"] == 100.0 and "box_threshold" not in scores


def test_loss_adds_lambda_times_the_grounding_loss(recognizer: tuple[Recognition, Params], prompted: Prompted) -> None:
    recognition, params = recognizer
    model = dataclasses.replace(recognition, encoder=without_dropout(recognition)).model
    features = _features(recognition, prompted, None)
    batch = _collate(recognition)(features, batch_size=8)
    types, overlaps = model.apply(
        {"params": params},
        *(batch[name] for name in ("token_ids", "segments", "mask_position", "object_positions")),
        deterministic=True,
    )
    types, scores = np.asarray(types)[:5].astype(np.float64), np.asarray(overlaps)[:2].astype(np.float64)
    labels = [item.label for item in features]
    typed = np.mean(np.log(np.exp(types).sum(axis=1)) - types[np.arange(5), labels])
    # Both candidates of the image count, the non-entity with overlaps of 0.
    targets = np.array([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])
    grounded = np.mean(np.log1p(np.exp(scores)) - targets * scores)
    for weight in (0.0, 0.7):
        loss = recognizer_loss(model, alpha=None, grounding_weight=weight)(params, batch, jax.random.key(0))
        np.testing.assert_allclose(loss, typed + weight * grounded, rtol=1e-5)

    # A teacher changes the type's loss alone.
    teacher = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    taught = _collate(recognition)(_features(recognition, prompted, teacher), batch_size=8)
    half = [
        recognizer_loss(model, alpha=0.5, grounding_weight=weight)(params, taught, jax.random.key(0))
        for weight in (0.0, 1.0)
    ]
    np.testing.assert_allclose(half[1] - half[0], grounded, rtol=1e-4)
    assert not np.isclose(half[0], typed)


def without_dropout(recognition: Recognition) -> EncoderConfig:
    return dataclasses.replace(recognition.encoder, hidden_dropout=0.0, attention_dropout=0.0)
