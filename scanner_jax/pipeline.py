"""Grain pipelines: records -> tokens -> batches padded to length buckets, for both stages.

Batches are dicts of numpy arrays. Which examples share a batch is random in every epoch; a batch is padded
to the smallest bucket that holds its longest member, or its members share rows of a fixed width, so that a
jitted step compiles for a few shapes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import grain
import numpy as np
from jaxtyping import Float, Int

from scanner_jax.packing import lay_out
from scanner_jax.prompts import Prompt
from scanner_jax.spill import SpilledList
from scanner_jax.tags import bio_labels
from scanner_jax.tokens import Tokenizer
from scanner_jax.types import BIO, Example

Batch = dict[str, Any]
"""Named arrays with the batch as first axis: numpy on the host, traced under jit."""


class HasLength(Protocol):
    """Features of one sequence, which know how many tokens it has."""

    @property
    def length(self) -> int: ...


Features = TypeVar("Features", bound=HasLength)
Collate = Callable[[Sequence[Features]], Batch]


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorFeatures:
    """One window of a sentence; each word belongs to exactly one of its sentence's windows.

    Attributes:
        example: the sentence's place in its split.
        token_ids: special tokens included.
        words: the words that belong to this window, by their place in the sentence.
        positions: the token at which each of them begins.
        labels: their gold tags (index into BIO).
        teacher_logits: the teacher's logits for them, if there is a teacher.
    """

    example: int
    token_ids: Int[np.ndarray, " t"]
    words: Int[np.ndarray, " w"]
    positions: Int[np.ndarray, " w"]
    labels: Int[np.ndarray, " w"]
    teacher_logits: Float[np.ndarray, "w c"] | None = None

    @property
    def length(self) -> int:
        return len(self.token_ids)


@dataclasses.dataclass(frozen=True, slots=True)
class RecognizerFeatures:
    """One candidate's prompt.

    Attributes:
        index: the candidate's place in its split.
        prompt: with `o` objects.
        label: its gold class.
        overlaps: each object's IoU with the entity's box.
        teacher_logits: the teacher's logits, if there is a teacher.
    """

    index: int
    prompt: Prompt
    label: int
    overlaps: Float[np.ndarray, " o"]
    teacher_logits: Float[np.ndarray, " c"] | None = None

    @property
    def length(self) -> int:
        return len(self.prompt.token_ids)


def detector_features(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    teacher_logits: Sequence[Float[np.ndarray, "w c"]] | None = None,
) -> SpilledList[DetectorFeatures]:
    """Tokenise sentences for the detector; longer ones become overlapping windows, nothing is lost.

    Args:
        examples: the sentences; one without words has no features.
        tokenizer: the encoder's.
        max_tokens: the longest sequence, special tokens included.
        teacher_logits: for each sentence the teacher's logits for its words.

    Returns:
        The windows, in order; those that do not fit into a small buffer lie on the disk.
    """
    features = SpilledList[DetectorFeatures](pack=_packed, unpack=_unpacked)
    tokenised = tokenizer.words(example.words for example in examples)
    for index, (example, words) in enumerate(zip(examples, tokenised, strict=True)):
        labels = np.array(bio_labels(len(words), example.entities), np.int32)
        for owned, first, last in _windows([len(word) for word in words], max_tokens - 2):
            ids, positions = [tokenizer.start], np.zeros(len(owned), np.int32)
            for word in range(first, last):
                if word in owned:
                    positions[word - owned.start] = len(ids)
                ids += words[word][: max_tokens - 2]
            chosen = slice(owned.start, owned.stop)
            features.append(
                DetectorFeatures(
                    example=index,
                    token_ids=np.array([*ids, tokenizer.end], np.int32),
                    words=np.arange(owned.start, owned.stop, dtype=np.int32),
                    positions=positions,
                    labels=labels[chosen],
                    teacher_logits=None if teacher_logits is None else teacher_logits[index][chosen],
                )
            )
    return features


def _packed(item: DetectorFeatures) -> Any:
    teacher = None if item.teacher_logits is None else item.teacher_logits.astype(np.float32).tobytes()
    arrays = (item.token_ids, item.words, item.positions, item.labels)
    return item.example, *(array.tobytes() for array in arrays), teacher


def _unpacked(packed: Any) -> DetectorFeatures:
    example, *arrays, teacher = packed
    token_ids, words, positions, labels = (np.frombuffer(array, np.int32) for array in arrays)
    logits = None if teacher is None else np.frombuffer(teacher, np.float32).reshape(-1, len(BIO))
    return DetectorFeatures(example, token_ids, words, positions, labels, logits)


def _windows(lengths: Sequence[int], room: int) -> Iterator[tuple[range, int, int]]:
    """Yield (words that the window owns, its first word, its last word exclusive).

    A window holds up to `room` sub-words and the next one begins half a window later; of the words in both,
    the first half belongs to the former, the second to the latter, so each is read with context on both sides.
    """
    ends = np.cumsum(np.minimum(lengths, room))
    starts = np.concatenate([[0], ends])
    total, first, owned = len(lengths), 0, 0
    while owned < total:
        last = int(np.searchsorted(ends, starts[first] + room, side="right"))
        following = min(last, max(first + 1, int(np.searchsorted(starts, starts[first] + room // 2))))
        end = total if last == total else (following + last + 1) // 2
        if end > owned:
            yield range(owned, end), first, last
        first, owned = following, end


def collate_detector(
    features: Sequence[DetectorFeatures], *, batch_size: int, buckets: tuple[int, ...], pack_width: int = 0
) -> Batch:
    """Pad windows to a batch, several to a row where `packing.lay_out` says so.

    Returns:
        token_ids (r t), segments (r t), labels (r t), mask (r t): True at the first sub-words of real words;
        teacher_logits (r t c) where the features have them. What is beyond `features` is padding.
    """
    lengths = [item.length for item in features]
    layout = lay_out(lengths, batch_size=batch_size, buckets=buckets, pack_width=pack_width)
    batch: Batch = {
        "token_ids": np.zeros(layout.shape, np.int32),
        "segments": layout.segments(lengths),
        "labels": np.zeros(layout.shape, np.int32),
        "mask": np.zeros(layout.shape, bool),
    }
    if features[0].teacher_logits is not None:
        batch["teacher_logits"] = np.zeros((*layout.shape, len(BIO)), np.float32)
    for place, item in zip(layout.places, features, strict=True):
        firsts = place.row, place.start + item.positions
        batch["token_ids"][place.row, place.tokens(item.length)] = item.token_ids
        batch["labels"][firsts] = item.labels
        batch["mask"][firsts] = True
        if item.teacher_logits is not None:
            batch["teacher_logits"][firsts] = item.teacher_logits
    return batch


def collate_recognizer(
    features: Sequence[RecognizerFeatures],
    *,
    batch_size: int,
    buckets: tuple[int, ...],
    max_objects: int,
    pack_width: int = 0,
) -> Batch:
    """Pad prompts to a batch, several to a row where `packing.lay_out` says so.

    Returns:
        token_ids (r t), segments (r t), mask_position (b), object_positions (b o), object_mask (b o), overlaps (b o),
        labels (b), mask (b): True at real prompts; teacher_logits (b c) where the features have them; prompt_rows
        (b) where prompts share rows.
    """
    lengths = [item.length for item in features]
    layout = lay_out(lengths, batch_size=batch_size, buckets=buckets, pack_width=pack_width)
    batch: Batch = {
        "token_ids": np.zeros(layout.shape, np.int32),
        "segments": layout.segments(lengths),
        "mask_position": np.zeros(batch_size, np.int32),
        "object_positions": np.zeros((batch_size, max_objects), np.int32),
        "object_mask": np.zeros((batch_size, max_objects), bool),
        "overlaps": np.zeros((batch_size, max_objects), np.float32),
        "labels": np.zeros(batch_size, np.int32),
        "mask": np.zeros(batch_size, bool),
    }
    if layout.shared:
        batch["prompt_rows"] = np.zeros(batch_size, np.int32)
        batch["prompt_rows"][: len(features)] = [place.row for place in layout.places]
    if features[0].teacher_logits is not None:
        batch["teacher_logits"] = np.zeros((batch_size, len(features[0].teacher_logits)), np.float32)
    for row, (place, item) in enumerate(zip(layout.places, features, strict=True)):
        objects = len(item.prompt.object_positions)
        batch["token_ids"][place.row, place.tokens(item.length)] = item.prompt.token_ids
        batch["mask_position"][row] = place.start + item.prompt.mask_position
        batch["object_positions"][row, :objects] = np.add(item.prompt.object_positions, place.start)
        batch["object_mask"][row, :objects] = True
        batch["overlaps"][row, :objects] = item.overlaps
        batch["labels"][row] = item.label
        batch["mask"][row] = True
        if item.teacher_logits is not None:
            batch["teacher_logits"][row] = item.teacher_logits
    return batch


def length_buckets(max_tokens: int) -> tuple[int, ...]:
    """Lengths to pad to: close together where tweets are, further apart beyond, and the limit itself."""
    steps = [*range(32, 129, 16), 160, 192, 256, 320, 384, 512]
    return (*(step for step in steps if step < max_tokens), max_tokens)


def training_batches(
    features: Sequence[Features], collate: Collate[Features], *, batch_size: int, epochs: int, seed: int
) -> grain.DatasetIterator:
    """Shuffled batches for all epochs, in a new order each; the last batch of an epoch may be short.

    Args:
        features: looked up in any order.
        collate: pads a list of at most `batch_size` features to a batch.
        batch_size: features a batch.
        epochs: how often each feature comes.
        seed: of the order.

    Returns:
        An iterator whose position can be saved with Grain's checkpoint handlers.
    """
    batches = grain.MapDataset.source(features).seed(seed).shuffle().batch(batch_size, batch_fn=_as_list).map(collate)
    return iter(batches.repeat(epochs).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=16)))


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Batches in an epoch of `count` features."""
    return -(-count // batch_size)


def _as_list(features: Sequence[Features]) -> list[Features]:
    return list(features)
