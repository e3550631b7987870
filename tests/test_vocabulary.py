"""Training the vocabulary in use is training all of it, and a run may change from one to the other."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scanner_jax.beginning import TrainingSettings
from scanner_jax.detection import detector_loss
from scanner_jax.encoder import EncoderConfig, init_encoder
from scanner_jax.loop import train
from scanner_jax.models import SpanDetector, init_detector
from scanner_jax.optim import OptimizerSettings, decay_factors, make_optimizer
from scanner_jax.pipeline import DetectorFeatures, collate_detector
from scanner_jax.vocabulary import Vocabulary, VocabularyError

SIZE, USED = 60, [3, 4, 7, 11, 12, 13, 20, 31, 32, 33, 41, 58]
CONFIG = EncoderConfig(
    model_type="roberta",
    vocab_size=SIZE,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    max_position_embeddings=20,
    type_vocab_size=1,
    pad_token_id=1,
    initializer_range=0.3,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)
SETTINGS = TrainingSettings(
    optimizer=OptimizerSettings(learning_rate=0.02, weight_decay=0.3, max_grad_norm=0.5, warmup_fraction=0.2),
    epochs=10,
    batch_size=4,
    checkpoint_every=7,
    log_every=10,
)


def sentences() -> list[DetectorFeatures]:
    rng = np.random.default_rng(0)
    return [
        DetectorFeatures(
            example=index,
            token_ids=rng.choice(USED, length).astype(np.int32),
            words=np.arange(length - 2),
            positions=np.arange(1, length - 1),
            labels=rng.integers(0, 3, length - 2).astype(np.int32),
        )
        for index, length in enumerate(rng.integers(4, 9, 20))
    ]


def collate(features: Any, *, batch_size: int) -> Any:
    return collate_detector(features, batch_size=batch_size, buckets=(9,))


def start(dtype: Any) -> Any:
    params = init_detector(CONFIG, init_encoder(CONFIG, jax.random.key(0)), jax.random.key(1))
    return jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)


def run(folder: Path, *, used: bool, dtype: Any = np.float32, evaluate: Any = None, **changes: Any) -> Any:
    folder.mkdir(exist_ok=True)
    vocabulary = Vocabulary.of((item.token_ids for item in sentences()), size=SIZE)
    return train(
        name="test",
        params=start(dtype),
        loss_fn=detector_loss(SpanDetector(CONFIG), alpha=None),
        features=sentences(),
        collate=collate,
        settings=dataclasses.replace(SETTINGS, **changes),
        evaluate=evaluate,
        seed=1,
        folder=folder,
        vocabulary=vocabulary if used else None,
    )


def table(params: Any) -> Any:
    return params["encoder"]["embeddings"]["word"]["embedding"]


def assert_close(ours: Any, theirs: Any, atol: float, *, but: str = "nothing") -> None:
    def check(path: Any, a: Any, b: Any) -> None:
        assert a.dtype == b.dtype and a.shape == b.shape
        if but not in (name := jax.tree_util.keystr(path, simple=True, separator="/")):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)

    jax.tree_util.tree_map_with_path(check, ours, theirs)


KEY_BIAS = "key/bias"
"""It shifts all scores of a query alike, so its gradient is nothing but rounding, which AdamW makes whole steps of."""


@pytest.fixture
def float64():
    jax.config.update("jax_enable_x64", True)  # for all threads, which jax.enable_x64 is not
    yield
    jax.config.update("jax_enable_x64", False)


def test_fifty_steps_in_float64_are_those_of_the_whole_vocabulary(tmp_path, float64):
    ours, theirs = (run(tmp_path / str(used), used=used, dtype=np.float64) for used in (True, False))
    assert_close(ours, theirs, 1e-10)  # nothing left out: here that rounding is too small for AdamW
    moved = np.abs(table(theirs) - table(start(np.float64))).max(axis=1)
    assert (moved > 1e-3).all()  # by training or by decay


def test_ten_steps_in_float32_are_those_of_the_whole_vocabulary(tmp_path):
    ours, theirs = (run(tmp_path / str(used), used=used, epochs=2) for used in (True, False))
    assert_close(ours, theirs, 1e-6, but=KEY_BIAS)


def test_awp_on_kernels_does_not_mind(tmp_path):
    optimizer = dataclasses.replace(SETTINGS.optimizer, awp_gamma=0.05)
    ours, theirs = (run(tmp_path / str(used), used=used, epochs=2, optimizer=optimizer) for used in (True, False))
    assert_close(ours, theirs, 1e-6, but=KEY_BIAS)
    assert np.abs(table(theirs) - table(run(tmp_path / "plain", used=False, epochs=2))).max() > 1e-3


def test_awp_on_embeddings_is_refused(tmp_path):
    optimizer = dataclasses.replace(SETTINGS.optimizer, awp_gamma=0.05, awp_tensors=("kernel", "embedding"))
    run(tmp_path, used=False, epochs=1, optimizer=optimizer)
    with pytest.raises(VocabularyError, match="leave embedding out of awp_tensors"):
        run(tmp_path / "used", used=True, epochs=1, optimizer=optimizer)


def test_evaluation_and_the_best_parameters_have_the_whole_table_as_it_was_then(tmp_path):
    """The best epoch is the second of four; the rows out of use have decayed as far as that."""
    seen: dict[bool, list[Any]] = {True: [], False: []}

    def evaluator(used: bool) -> Any:
        def evaluate(params: Any) -> dict[str, float]:
            seen[used].append(jax.tree.map(np.array, params))
            return {"score": -abs(len(seen[used]) - 2.0)}

        return evaluate

    bests = [run(tmp_path / str(used), used=used, epochs=4, evaluate=evaluator(used)) for used in (True, False)]
    assert_close(seen[True], seen[False], 1e-5, but=KEY_BIAS)
    assert_close(bests[0], bests[1], 1e-5, but=KEY_BIAS)
    assert_close(bests[0], seen[True][1], 0)
    factors = decay_factors(SETTINGS.optimizer, SETTINGS.optimizer.milestones(20))
    np.testing.assert_allclose(table(bests[0])[50], factors[10] * table(start(np.float32))[50], rtol=1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_the_other_vocabulary(tmp_path, first):
    class StopError(Exception):
        pass

    scores = iter([1.0, 3.0, None])

    def stopping(_: Any) -> dict[str, float]:
        score = next(scores)
        if score is None:
            raise StopError
        return {"score": score}

    remaining = iter([2.5, 2.0])
    with pytest.raises(StopError):
        run(tmp_path, used=first, epochs=4, evaluate=stopping)
    ours = run(tmp_path, used=not first, epochs=4, evaluate=lambda _: {"score": next(remaining)})
    again = iter([1.0, 3.0, 2.5, 2.0])
    theirs = run(tmp_path / "whole", used=False, epochs=4, evaluate=lambda _: {"score": next(again)})
    assert_close(ours, theirs, 1e-5, but=KEY_BIAS)


def test_a_checkpoint_with_trained_rows_that_are_not_in_use_is_refused(tmp_path, monkeypatch):
    run(tmp_path, used=False, epochs=2)
    few = Vocabulary.of([np.array(USED[:-1])], size=SIZE)
    monkeypatch.setattr(Vocabulary, "of", classmethod(lambda *_, **__: few))
    with pytest.raises(VocabularyError, match="go on as the run began, with --config.execution.used_vocabulary=False"):
        run(tmp_path, used=True, epochs=4)


def test_a_token_outside_of_the_vocabulary_is_never_trained_as_another():
    collated = Vocabulary.of([np.array(USED[:-1])], size=SIZE).renumbered(collate)
    with pytest.raises(VocabularyError, match=r"token ids \[58\]"):
        collated(sentences(), batch_size=20)


def test_rows_and_their_places():
    vocabulary = Vocabulary.of([np.array([5, 2]), np.array([5]), np.array([], int)], size=7)
    assert vocabulary.rows.tolist() == [0, 2, 5]
    tree = {"mu": {"embeddings": {"word": {"embedding": np.arange(14.0).reshape(7, 2)}}, "bias": np.ones(7)}}
    small = vocabulary.shrink(tree)
    np.testing.assert_array_equal(small["mu"]["embeddings"]["word"]["embedding"], [[0, 1], [4, 5], [10, 11]])
    assert len(small["mu"]["bias"]) == 7
    whole = vocabulary.grow(small, np.full((7, 2), -1.0))["mu"]["embeddings"]["word"]["embedding"]
    np.testing.assert_array_equal(whole[[0, 2, 5]], small["mu"]["embeddings"]["word"]["embedding"])
    assert (np.delete(whole, [0, 2, 5], axis=0) == -1).all()
    with pytest.raises(VocabularyError, match="from 2 to 7, but the table has 7 rows"):
        Vocabulary.of([np.array([2, 7])], size=7)


def test_decay_factors_are_what_adamw_does_without_a_gradient():
    settings = dataclasses.replace(SETTINGS.optimizer, warmup_fraction=0.25)
    milestones = settings.milestones(12)
    tx = make_optimizer(settings, milestones)
    params = {"embedding": jnp.ones(1)}
    state = tx.init(params)
    for factor in decay_factors(settings, milestones):
        np.testing.assert_allclose(params["embedding"][0], factor, rtol=1e-6)
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        params = jax.tree.map(jnp.add, params, updates)
