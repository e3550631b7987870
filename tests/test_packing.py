"""Sequences that share rows: places without overlap, few shapes, and models that compute what padded rows give."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scanner_jax.detection import detector_loss
from scanner_jax.encoder import Encoder, EncoderConfig, Params, init_encoder, token_positions
from scanner_jax.models import EntityRecognizer, SpanDetector
from scanner_jax.packing import Layout, Place, bucket_for, first_fit_decreasing, fit_batches, lay_out, row_counts
from scanner_jax.pipeline import (
    Batch,
    DetectorFeatures,
    RecognizerFeatures,
    collate_detector,
    collate_recognizer,
)
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.recognition import recognizer_loss

BUCKETS = (12, 20)
WIDTH, BATCH_SIZE, MAX_OBJECTS = 16, 4, 2
LENGTHS = st.lists(st.integers(3, WIDTH), min_size=3, max_size=BATCH_SIZE)
FAMILIES = ("roberta", "bert")


@given(st.lists(st.integers(1, 40), min_size=1, max_size=32), st.integers(0, 60), st.sampled_from([32, 40]))
def test_places(lengths: list[int], width: int, batch_size: int) -> None:
    own = lay_out(lengths, batch_size=batch_size, buckets=(10, 24, 40))
    layout = lay_out(lengths, batch_size=batch_size, buckets=(10, 24, 40), pack_width=width)
    assert list(own.places) == [Place(row, 0, 1) for row in range(len(lengths))]
    if not layout.shared:
        assert layout == own
        return
    assert own.work >= 0.9 * layout.work
    assert layout.rows % (batch_size // 8) == 0
    assert layout.tokens in (min(width, 40), own.tokens)
    # Each row is its sequences, numbered from 1 and without a gap, then padding.
    for row, segments in enumerate(layout.segments(lengths)):
        placed = zip(layout.places, lengths, strict=True)
        inside = sorted((place.start, place.segment, length) for place, length in placed if place.row == row)
        expected = [segment for _, segment, length in inside for _ in range(length)]
        assert segments.tolist() == expected + [0] * (layout.tokens - len(expected))
        assert [segment for _, segment, _ in inside] == list(range(1, len(inside) + 1))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_first_fit_leaves_no_two_rows_that_fit_into_one(lengths: list[int]) -> None:
    places, rows = first_fit_decreasing(lengths, 20)
    filled = sorted(sum(n for n, place in zip(lengths, places, strict=True) if place.row == row) for row in range(rows))
    assert filled[-1] <= 20
    assert sum(filled[:2]) > 20 or rows == 1


@pytest.mark.parametrize(
    ("lengths", "shape", "shared"),
    [
        ([9, 7, 8, 8], (2, 16), True),
        ([9, 9, 9, 8], (4, 12), False),  # nothing fits beside a 9: rows of their own are shorter
        ([17, 3, 8, 8], (2, 20), True),  # 17 does not fit into 16
        ([17, 17, 17, 17], (4, 20), True),
        ([5], (1, 16), True),
    ],
)
def test_shapes(lengths: list[int], shape: tuple[int, int], shared: bool) -> None:
    layout = lay_out(lengths, batch_size=BATCH_SIZE, buckets=BUCKETS, pack_width=WIDTH)
    assert (layout.shape, layout.shared) == (shape, shared)


def test_row_counts_are_eighths_of_the_batch() -> None:
    layout = lay_out([16] * 5, batch_size=32, buckets=BUCKETS, pack_width=WIDTH)
    assert layout.shape == (8, 16)
    assert lay_out([16] * 31, batch_size=32, buckets=(16,), pack_width=WIDTH).shape == (32, 16)


def test_bucket_for() -> None:
    assert [bucket_for(length, BUCKETS) for length in (1, 12, 13, 20)] == [12, 12, 20, 20]
    with pytest.raises(ValueError, match="a sequence of 21 tokens, but the largest bucket is 20"):
        bucket_for(21, BUCKETS)


@functools.cache
def config(family: str) -> EncoderConfig:
    return EncoderConfig(
        model_type=family,
        vocab_size=30,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
        type_vocab_size=1,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0 if family == "bert" else 1,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_positions_restart(family: str) -> None:
    first = 0 if family == "bert" else 2
    segments = np.array([[1, 1, 1, 2, 2, 3, 0, 0]])
    found = token_positions(config(family), segments)[0].tolist()
    assert found[:6] == [first, first + 1, first + 2, first, first + 1, first]
    if family == "roberta":
        assert found[6:] == [1, 1]


def params_like(tree: Any) -> Params:
    """Random parameters, none of them 0 or 1, for a tree of shapes."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(0.2, 0.4, leaf.shape).astype(np.float32), tree)


def detector_windows(lengths: Sequence[int]) -> list[DetectorFeatures]:
    rng = np.random.default_rng(lengths)
    features = []
    for index, length in enumerate(lengths):
        positions = np.sort(rng.permutation(np.arange(1, length - 1))[: 1 + length // 3])
        features.append(
            DetectorFeatures(
                example=index,
                token_ids=rng.integers(3, 30, length).astype(np.int32),
                words=np.arange(len(positions)),
                positions=positions,
                labels=rng.integers(0, 3, len(positions)),
                teacher_logits=rng.normal(size=(len(positions), 3)).astype(np.float32),
            )
        )
    return features


def prompts(lengths: Sequence[int]) -> list[RecognizerFeatures]:
    rng = np.random.default_rng(lengths)
    features = []
    for index, length in enumerate(lengths):
        places = rng.permutation(length)[: 1 + int(rng.integers(MAX_OBJECTS + 1))].tolist()
        ids = tuple(rng.integers(3, 30, length).tolist())
        features.append(
            RecognizerFeatures(
                index=index,
                prompt=Prompt(ids, places[0], tuple(places[1:]), Cut()),
                label=int(rng.integers(3)),
                overlaps=rng.random(len(places) - 1),
                teacher_logits=rng.normal(size=3).astype(np.float32),
            )
        )
    return features


DETECTOR_INPUTS = ("token_ids", "segments")
RECOGNIZER_INPUTS = ("token_ids", "segments", "mask_position", "object_positions", "prompt_rows")


@functools.cache
def computed(stage: str, family: str) -> Callable[[Batch], tuple[Any, Any, Params]]:
    """Logits, loss and gradients of a batch, jitted."""
    if stage == "detector":
        model: Any = SpanDetector(config(family))
        names, loss_fn = DETECTOR_INPUTS, detector_loss(model, alpha=None)
    else:
        model = EntityRecognizer(config(family), 3)
        names, loss_fn = RECOGNIZER_INPUTS, recognizer_loss(model, alpha=None, grounding_weight=0.5)

    def inputs(batch: Batch) -> list[Any]:
        return [batch.get(name) for name in names]

    sample = collate(stage, [5], shared=False)
    init = functools.partial(model.init, deterministic=True)
    params = params_like(jax.eval_shape(init, jax.random.key(0), *inputs(sample))["params"])

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # compiles twice as fast
    def compute(batch: Batch) -> tuple[Any, Any, Params]:
        logits = model.apply({"params": params}, *inputs(batch), deterministic=True)
        loss, grads = jax.value_and_grad(loss_fn)(params, batch, jax.random.key(0))
        return logits, loss, grads

    return compute


def collate(stage: str, lengths: Sequence[int], *, shared: bool) -> Batch:
    # All padded batches of one width, so that they compile once.
    options: Any = {"batch_size": BATCH_SIZE} | (
        {"buckets": BUCKETS, "pack_width": WIDTH} if shared else {"buckets": BUCKETS[-1:]}
    )
    if stage == "detector":
        return collate_detector(detector_windows(lengths), **options)
    return collate_recognizer(prompts(lengths), max_objects=MAX_OBJECTS, **options)


def sequence_logits(stage: str, logits: Any, batch: Batch, layout: Layout, lengths: Sequence[int]) -> list[np.ndarray]:
    if stage == "detector":
        return [
            np.asarray(logits[place.row, place.tokens(length)])
            for place, length in zip(layout.places, lengths, strict=True)
        ]
    types, overlaps = logits
    return [*np.asarray(types)[batch["mask"]], np.asarray(overlaps)[batch["object_mask"]]]


@pytest.mark.parametrize(
    ("stage", "family"), [("detector", "roberta"), ("detector", "bert"), ("recognizer", "roberta")]
)
@settings(deadline=None, max_examples=15, derandomize=True)
@given(lengths=LENGTHS)
@example(lengths=[6, 10, 7, 9])  # two full rows
@example(lengths=[3, 3, 3, 3])  # four to a row
@example(lengths=[20, 3, 14, 3])  # longer than the width
def test_packed_is_padded(stage: str, family: str, lengths: list[int]) -> None:
    padded, packed = (collate(stage, lengths, shared=shared) for shared in (False, True))
    layouts = [
        lay_out(lengths, batch_size=BATCH_SIZE, buckets=BUCKETS[-1:]),
        lay_out(lengths, batch_size=BATCH_SIZE, buckets=BUCKETS, pack_width=WIDTH),
    ]
    outputs = [computed(stage, family)(batch) for batch in (padded, packed)]
    ours, theirs = (
        sequence_logits(stage, logits, batch, layout, lengths)
        for (logits, _, _), batch, layout in zip(outputs, (padded, packed), layouts, strict=True)
    )
    for left, right in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)
    (_, loss, grads), (_, packed_loss, packed_grads) = outputs
    np.testing.assert_allclose(packed_loss, loss, atol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-5), packed_grads, grads)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 0.01  # there was something to compare


@pytest.mark.parametrize("stage", ["detector", "recognizer"])
def test_packing_moves_everything_of_a_batch(stage: str) -> None:
    lengths = [6, 10, 7, 9]
    padded, packed = (collate(stage, lengths, shared=shared) for shared in (False, True))
    assert packed["token_ids"].shape == (2, 16)
    for name in ("labels", "teacher_logits"):
        values = [batch[name][batch["mask"]] for batch in (padded, packed)]
        order = [np.lexsort(value.reshape(len(value), -1).T) for value in values]
        np.testing.assert_array_equal(values[0][order[0]], values[1][order[1]])
    if stage == "recognizer":  # one row per prompt, in the batch's order, whatever rows they stand in
        for name in ("labels", "mask", "overlaps", "object_mask", "teacher_logits"):
            np.testing.assert_array_equal(padded[name], packed[name])
        for index, item in enumerate(prompts(lengths)):
            row = packed["token_ids"][packed["prompt_rows"][index]]
            assert row[packed["mask_position"][index]] == item.prompt.token_ids[item.prompt.mask_position]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mask_is_one_sequence_a_row(family: str) -> None:
    params = params_like(jax.eval_shape(functools.partial(init_encoder, config(family)), jax.random.key(0)))
    ids = np.random.default_rng(0).integers(3, 30, (2, 9))
    mask = np.arange(9) < np.array([[9], [4]])
    run = jax.jit(functools.partial(Encoder(config(family)).apply, deterministic=True))
    np.testing.assert_allclose(
        run({"params": params}, ids, mask)[mask], run({"params": params}, ids, mask.astype(np.int32))[mask], atol=1e-6
    )


def test_fitted_batches_are_the_least_work() -> None:
    """Against every way to cut the sequences into runs."""
    rng = np.random.default_rng(4)
    buckets = (8, 12, 16, 32)
    for overhead in (0.0, 20.0, 1000.0):
        for _ in range(40):
            lengths = sorted(rng.integers(1, 33, size=rng.integers(1, 9)).tolist())
            fitted = fit_batches(lengths, batch_size=4, buckets=buckets, overhead=overhead)
            assert all(count <= rows <= 4 and rows in row_counts(4) for count, rows in fitted)
            cuts = [itertools.combinations(range(1, len(lengths)), count) for count in range(len(lengths))]
            every = (np.diff([0, *cut, len(lengths)]).tolist() for cut in itertools.chain.from_iterable(cuts))
            least = min(work(lengths, counts, buckets, overhead) for counts in every if max(counts) <= 4)
            assert work(lengths, [count for count, _ in fitted], buckets, overhead) == pytest.approx(least)


def work(lengths: Sequence[int], counts: Sequence[int], buckets: tuple[int, ...], overhead: float) -> float:
    """What batches of so many sequences, with rows in powers of two, cost."""
    done, last = 0.0, 0
    for count in counts:
        last += count
        rows, tokens = next(rows for rows in (1, 2, 4) if rows >= count), bucket_for(lengths[last - 1], buckets)
        done += overhead + rows * tokens * (1 + tokens / 512)
    return done


def test_fitted_batches_of_few_and_of_many() -> None:
    fit = functools.partial(fit_batches, batch_size=32, buckets=(32, 48, 64, 512), overhead=16)
    assert fit([]) == [] and fit([9]) == [(1, 1)]
    assert sorted(fit([20] * 68 + [500])) == [(1, 1), (4, 4), (32, 32), (32, 32)]  # the long one alone
    assert fit_batches([9] * 40, batch_size=12, buckets=(32,), overhead=0)[-1][0] <= 12
    assert fit_batches([20, 40], batch_size=8, buckets=(32, 48), overhead=1e6) == [(2, 2)]
    assert row_counts(1) == [1] and row_counts(12) == [1, 2, 4, 8, 12] and row_counts(16) == [1, 2, 4, 8, 16]
    with pytest.raises(ValueError, match="513 tokens"):
        fit([513])
