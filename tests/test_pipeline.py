"""Batches: no word is lost or doubled, padding is marked, orders are random and can be gone on with."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner_jax.forward import predict
from scanner_jax.packing import bucket_for
from scanner_jax.pipeline import (
    Batch,
    DetectorFeatures,
    RecognizerFeatures,
    _windows,
    collate_detector,
    collate_recognizer,
    detector_features,
    length_buckets,
    steps_per_epoch,
    training_batches,
)
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.tags import bio_labels
from scanner_jax.tokens import Tokenizer
from scanner_jax.types import Entity, Example

unhurried = settings(deadline=None)


@given(st.lists(st.integers(1, 15), max_size=60), st.integers(1, 12))
def test_windows_own_each_word_once_and_fit(lengths: list[int], room: int) -> None:
    windows = list(_windows(lengths, room))
    assert [word for owned, _, _ in windows for word in owned] == list(range(len(lengths)))
    for owned, first, last in windows:
        assert owned
        assert 0 <= first <= owned.start
        assert owned.stop <= last <= len(lengths)
        assert sum(min(length, room) for length in lengths[first:last]) <= room


@given(st.integers(1, 200), st.integers(8, 40))
def test_windows_give_context_on_both_sides(count: int, room: int) -> None:
    for owned, first, last in _windows([1] * count, room):
        for word in owned:
            assert word - first >= min(word, room // 4)
            assert last - word > min(count - word - 1, room // 4 - 1)


def test_a_sentence_that_fits_is_one_window() -> None:
    assert list(_windows([3, 1, 4], 8)) == [(range(3), 0, 3)]
    assert len(list(_windows([3, 1, 5], 8))) == 2
    assert list(_windows([], 8)) == []


def hyphenated(pieces: int, word: str) -> str:
    """One word of `pieces` sub-words, an odd number."""
    return "-".join([word] * ((pieces + 1) // 2))


SENTENCES = st.lists(st.lists(st.sampled_from([1, 1, 1, 3, 5, 21]), max_size=30), max_size=4)


@unhurried
@given(SENTENCES, st.integers(6, 24), st.integers(0, 2**32 - 1))
def test_detector_features(tiny_tokenizer: Tokenizer, sentences: list[list[int]], max_tokens: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    known = ["Mira", "Lake", "dog", "today"]
    examples = []
    for index, sizes in enumerate(sentences):
        words = tuple(hyphenated(size, str(rng.choice(known))) for size in sizes)
        starts = range(0, max(0, len(words) - 2), 4)
        examples.append(Example(str(index), words, tuple(Entity(start, start + 2, "PER") for start in starts)))
    logits = [rng.normal(size=(len(example.words), 3)).astype(np.float32) for example in examples]
    features = detector_features(examples, tiny_tokenizer, max_tokens=max_tokens, teacher_logits=logits)

    owned = [(item.example, word) for item in features for word in item.words.tolist()]
    assert owned == [(index, word) for index, sizes in enumerate(sentences) for word in range(len(sizes))]
    for item in features:
        example = examples[item.example]
        assert item.length == len(item.token_ids) <= max_tokens
        assert (item.token_ids[0], item.token_ids[-1]) == (tiny_tokenizer.start, tiny_tokenizer.end)
        assert (np.diff(item.positions) > 0).all()
        pieces = [tiny_tokenizer.text(example.words[word]) for word in item.words]
        for position, word in zip(item.positions, pieces, strict=True):
            kept = item.token_ids[position : position + len(word)].tolist()
            assert kept[: max_tokens - 2] == word[: max_tokens - 2]
        assert item.labels.tolist() == [bio_labels(len(example.words), example.entities)[word] for word in item.words]
        np.testing.assert_array_equal(item.teacher_logits, logits[item.example][item.words])


def test_a_short_sentence_whole(tiny_tokenizer: Tokenizer) -> None:
    example = Example("1", ("Mira-Okafor", "visits", "Lake", "Tamsin"), (Entity(0, 1, "PER"), Entity(2, 4, "LOC")))
    (item,) = detector_features([Example("0", ()), example], tiny_tokenizer, max_tokens=8)
    assert item.example == 1
    assert [tiny_tokenizer.backend.id_to_token(token) for token in item.token_ids] == (
        "<s> Mira - Okafor visits Lake Tamsin </s>".split()
    )
    assert item.positions.tolist() == [1, 4, 5, 6]
    assert item.labels.tolist() == [1, 0, 1, 2]
    assert item.teacher_logits is None


def test_text_that_spells_special_tokens_stays_text(tiny_tokenizer: Tokenizer) -> None:
    example = Example("1", ("<s>", "a<mask>", "<pad>", "</s>", "dog"))
    (item,) = detector_features([example], tiny_tokenizer, max_tokens=100)
    assert not tiny_tokenizer.special & set(item.token_ids[1:-1].tolist())
    assert len(item.words) == 5


def test_collate_detector() -> None:
    features = [
        DetectorFeatures(
            example=0,
            token_ids=np.array([0, 11, 12, 13, 2]),
            words=np.array([0, 1]),
            positions=np.array([1, 3]),
            labels=np.array([1, 2]),
            teacher_logits=np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]),
        ),
        DetectorFeatures(
            example=1,
            token_ids=np.array([0, 14, 2]),
            words=np.array([4]),
            positions=np.array([1]),
            labels=np.array([0]),
            teacher_logits=np.array([[7.0, 8.0, 9.0]]),
        ),
    ]
    batch = collate_detector(features, batch_size=3, buckets=(4, 6, 10))
    assert {name: value.shape for name, value in batch.items()} == {
        "token_ids": (3, 6),
        "segments": (3, 6),
        "labels": (3, 6),
        "mask": (3, 6),
        "teacher_logits": (3, 6, 3),
    }
    assert batch["token_ids"][:2].tolist() == [[0, 11, 12, 13, 2, 0], [0, 14, 2, 0, 0, 0]]
    assert batch["segments"].tolist() == [[True] * 5 + [False], [True] * 3 + [False] * 3, [False] * 6]
    assert np.argwhere(batch["mask"]).tolist() == [[0, 1], [0, 3], [1, 1]]
    assert batch["labels"][batch["mask"]].tolist() == [1, 2, 0]
    assert batch["teacher_logits"][batch["mask"]].tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert not batch["teacher_logits"][~batch["mask"]].any()

    untaught = [dataclasses.replace(item, teacher_logits=None) for item in features]
    assert "teacher_logits" not in collate_detector(untaught, batch_size=2, buckets=(6,))


def test_collate_recognizer() -> None:
    features = [
        RecognizerFeatures(
            index=0,
            prompt=Prompt((0, 5, 9, 6, 20, 7, 20, 2), 2, (4, 6), Cut()),
            label=3,
            overlaps=np.array([0.5, 0.25]),
            teacher_logits=np.array([1.0, 2.0, 3.0, 4.0]),
        ),
        RecognizerFeatures(
            index=1,
            prompt=Prompt((0, 9, 2), 1, (), Cut()),
            label=1,
            overlaps=np.zeros(0),
            teacher_logits=np.array([5.0, 6.0, 7.0, 8.0]),
        ),
    ]
    batch = collate_recognizer(features, batch_size=3, buckets=(8, 16), max_objects=3)
    assert {name: value.tolist() for name, value in batch.items() if name not in ("token_ids", "segments")} == {
        "mask_position": [2, 1, 0],
        "object_positions": [[4, 6, 0], [0, 0, 0], [0, 0, 0]],
        "object_mask": [[True, True, False], [False] * 3, [False] * 3],
        "overlaps": [[0.5, 0.25, 0.0], [0.0] * 3, [0.0] * 3],
        "labels": [3, 1, 0],
        "mask": [True, True, False],
        "teacher_logits": [[1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]],
    }
    assert batch["token_ids"].tolist() == [[0, 5, 9, 6, 20, 7, 20, 2], [0, 9, 2, 0, 0, 0, 0, 0], [0] * 8]
    assert batch["segments"].sum(axis=1).tolist() == [8, 3, 0]
    untaught = [dataclasses.replace(item, teacher_logits=None) for item in features]
    assert "teacher_logits" not in collate_recognizer(untaught, batch_size=2, buckets=(8,), max_objects=3)
    # MNER without objects has an axis of none.
    assert collate_recognizer(features[1:], batch_size=1, buckets=(8,), max_objects=0)["overlaps"].shape == (1, 0)


@given(st.integers(3, 1000))
def test_buckets_end_at_the_limit(max_tokens: int) -> None:
    buckets = length_buckets(max_tokens)
    assert buckets[-1] == max_tokens
    assert list(buckets) == sorted(set(buckets))
    for length in range(1, max_tokens + 1):
        fitting = bucket_for(length, buckets)
        assert fitting >= length
        assert not any(length <= bucket < fitting for bucket in buckets)


def test_a_sequence_beyond_the_buckets_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 17 tokens, but the largest bucket is 16"):
        bucket_for(17, (8, 16))


@dataclasses.dataclass(frozen=True)
class Item:
    """A feature that is nothing but a number and a length."""

    number: int
    length: int = 1


ITEMS = [Item(number) for number in range(23)]


def numbers(items: Sequence[Item]) -> Batch:
    return {"numbers": np.array([item.number for item in items])}


def drawn(*, seed: int, epochs: int = 3) -> list[list[int]]:
    return [
        batch["numbers"].tolist() for batch in training_batches(ITEMS, numbers, batch_size=5, epochs=epochs, seed=seed)
    ]


def test_each_epoch_is_a_new_permutation_with_a_short_last_batch() -> None:
    batches = drawn(seed=1)
    per_epoch = steps_per_epoch(len(ITEMS), 5)
    assert per_epoch == 5
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3] * 3
    epochs = [list(itertools.chain(*batches[start : start + per_epoch])) for start in range(0, 15, per_epoch)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(23))
    assert len({tuple(epoch) for epoch in [*epochs, list(range(23))]}) == 4


def test_the_members_of_a_batch_change_between_epochs() -> None:
    batches = drawn(seed=1)
    first, second = ({frozenset(batch) for batch in batches[start : start + 5]} for start in (0, 5))
    assert not first & second


def test_the_seed_decides_the_order() -> None:
    assert drawn(seed=1) == drawn(seed=1)
    assert drawn(seed=1)[0] != drawn(seed=2)[0]
    assert drawn(seed=1, epochs=2) == drawn(seed=1, epochs=3)[:10]


@pytest.mark.parametrize("done", [0, 3, 5, 7, 14])
def test_a_restored_iterator_goes_on_where_it_was(done: int) -> None:
    make = functools.partial(training_batches, ITEMS, numbers, batch_size=5, epochs=3, seed=1)
    former = make()
    for _ in range(done):
        next(former)
    state = former.get_state()
    later = make()
    later.set_state(state)
    assert [batch["numbers"].tolist() for batch in later] == drawn(seed=1)[done:]


@pytest.mark.parametrize(("count", "size", "steps"), [(1, 8, 1), (8, 8, 1), (9, 8, 2), (16, 8, 2)])
def test_steps_per_epoch(count: int, size: int, steps: int) -> None:
    assert steps_per_epoch(count, size) == steps


def pad_items(items: Sequence[Item], *, batch_size: int) -> Batch:
    batch = {"numbers": np.full(batch_size, -1), "width": np.array(max(item.length for item in items))}
    batch["numbers"][: len(items)] = [item.number for item in items]
    return batch


@unhurried
@given(st.lists(st.integers(1, 9), max_size=20), st.integers(1, 6))
def test_predict_gives_each_feature_its_own_row_once(lengths: list[int], batch_size: int) -> None:
    items = [Item(number, length) for number, length in enumerate(lengths)]
    widths = []

    def forward(params: Any, batch: Batch) -> Any:
        assert batch["numbers"].shape == (batch_size,)  # the tail too: one compilation per bucket
        widths.append(int(batch["width"]))
        return batch["numbers"] * int(params), {"same": np.stack([batch["numbers"]] * 2, axis=1)}

    found = list(predict(forward, 10, items, pad_items, batch_size=batch_size))
    assert sorted(item.number for item, _ in found) == list(range(len(items)))
    for item, (scaled, tree) in found:
        assert scaled == 10 * item.number
        assert tree["same"].tolist() == [item.number] * 2
    ordered = sorted(lengths)
    assert widths == [max(ordered[start : start + batch_size]) for start in range(0, len(ordered), batch_size)]
