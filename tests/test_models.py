"""The two models: heads on the encoder's vectors at the right places, blind to padding."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from scanner_jax.encoder import Encoder, EncoderConfig, Params, init_encoder
from scanner_jax.models import EntityRecognizer, SpanDetector, init_detector, init_recognizer

CONFIG = EncoderConfig(
    model_type="roberta",
    vocab_size=40,
    hidden_size=16,
    num_layers=1,
    num_heads=2,
    intermediate_size=32,
    max_position_embeddings=34,
    type_vocab_size=1,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    initializer_range=0.3,
)
NUM_TYPES = 5
RNG = np.random.default_rng(0)
IDS = RNG.integers(4, 40, (3, 10)).astype(np.int32)
LENGTHS = np.array([10, 7, 4])
MASK = np.arange(10) < LENGTHS[:, None]
MASK_POSITION = np.array([4, 6, 1], np.int32)
OBJECT_POSITIONS = np.array([[7, 9, 5], [2, 3, 0], [0, 0, 0]], np.int32)


@functools.cache
def encoder_params() -> Params:
    rng = np.random.default_rng(1)  # far faster than compiling jax.random's initialisers
    empty = jax.eval_shape(lambda: init_encoder(CONFIG, jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), empty)


@functools.cache
def detector_params() -> Params:
    return init_detector(CONFIG, encoder_params(), jax.random.key(1))


@functools.cache
def recognizer_params() -> Params:
    return init_recognizer(CONFIG, encoder_params(), jax.random.key(1), num_types=NUM_TYPES)


@functools.partial(jax.jit, static_argnames="model")
def run(model: nn.Module, params: Params, *inputs: np.ndarray) -> Any:
    return model.apply({"params": params}, *inputs, deterministic=True)


DETECTOR = SpanDetector(CONFIG)
RECOGNIZER = EntityRecognizer(CONFIG, NUM_TYPES)


def hidden() -> np.ndarray:
    return np.asarray(run(Encoder(CONFIG), encoder_params(), IDS, MASK))


def widened(array: np.ndarray, filler: int | bool) -> np.ndarray:
    return np.concatenate([array, np.full((3, 6), filler, array.dtype)], axis=1)


def test_detector_is_a_linear_head_on_every_token() -> None:
    params = detector_params()
    logits = run(DETECTOR, params, IDS, MASK)
    expected = hidden() @ np.asarray(params["tags"]["kernel"]) + params["tags"]["bias"]
    assert logits.shape == (3, 10, 3)
    np.testing.assert_allclose(logits[MASK], expected[MASK], atol=1e-5)


def test_recognizer_reads_the_mask_and_the_objects() -> None:
    params = recognizer_params() | {
        "types": {"kernel": RNG.normal(size=(16, NUM_TYPES)), "bias": RNG.normal(size=NUM_TYPES)},
        "overlap": {"kernel": RNG.normal(size=(16, 1)), "bias": RNG.normal(size=1)},
    }
    types, overlaps = run(RECOGNIZER, params, IDS, MASK, MASK_POSITION, OBJECT_POSITIONS)
    assert types.shape == (3, NUM_TYPES)
    assert overlaps.shape == (3, 3)
    vectors = hidden()
    for row in range(3):
        at_mask = vectors[row, MASK_POSITION[row]]
        np.testing.assert_allclose(types[row], at_mask @ params["types"]["kernel"] + params["types"]["bias"], atol=1e-5)
        for place in range(3):
            at_object = vectors[row, OBJECT_POSITIONS[row, place]]
            expected = at_object @ params["overlap"]["kernel"][:, 0] + params["overlap"]["bias"][0]
            np.testing.assert_allclose(overlaps[row, place], expected, atol=1e-5)


@pytest.mark.parametrize("filler", [0, 1, 17])
def test_padding_changes_nothing(filler: int) -> None:
    ids, mask = widened(IDS, filler), widened(MASK, False)
    short = run(DETECTOR, detector_params(), IDS, MASK)
    long = run(DETECTOR, detector_params(), ids, mask)
    np.testing.assert_allclose(short[MASK], long[:, :10][MASK], atol=1e-5)

    places = (MASK_POSITION, OBJECT_POSITIONS)
    short = run(RECOGNIZER, recognizer_params(), IDS, MASK, *places)
    long = run(RECOGNIZER, recognizer_params(), ids, mask, *places)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), short, long)


def test_fresh_parameters_are_those_the_models_ask_for() -> None:
    ids, mask, one = jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool), jnp.zeros(1, jnp.int32)
    detector = functools.partial(DETECTOR.init, deterministic=True)
    recognizer = functools.partial(RECOGNIZER.init, deterministic=True)
    expected = jax.eval_shape(detector, jax.random.key(0), ids, mask)["params"]
    assert shapes(detector_params()) == shapes(expected)
    expected = jax.eval_shape(recognizer, jax.random.key(0), ids, mask, one, one[:, None])["params"]
    assert shapes(recognizer_params()) == shapes(expected)


def shapes(params: Params) -> dict[str, tuple[tuple[int, ...], str]]:
    return {path: (leaf.shape, str(leaf.dtype)) for path, leaf in traverse_util.flatten_dict(params, sep="/").items()}


def test_heads_are_drawn_from_the_key() -> None:
    again = init_recognizer(CONFIG, encoder_params(), jax.random.key(1), num_types=NUM_TYPES)
    other = init_recognizer(CONFIG, encoder_params(), jax.random.key(2), num_types=NUM_TYPES)
    ours = recognizer_params()
    np.testing.assert_array_equal(ours["types"]["kernel"], again["types"]["kernel"])
    assert not np.allclose(ours["types"]["kernel"], other["types"]["kernel"])
    assert not np.allclose(ours["types"]["kernel"][:, :1], ours["overlap"]["kernel"])
    assert np.std(ours["types"]["kernel"]) == pytest.approx(CONFIG.initializer_range, rel=0.3)
    assert not ours["types"]["bias"].any()


def test_dropout_draws_from_its_stream() -> None:
    @jax.jit
    def logits(seed: int) -> Any:
        rngs = {"dropout": jax.random.key(seed, impl="unsafe_rbg")}  # compiles fast
        return DETECTOR.apply({"params": detector_params()}, IDS, MASK, deterministic=False, rngs=rngs)

    np.testing.assert_array_equal(logits(0), logits(0))
    assert not np.allclose(logits(0), logits(1))
