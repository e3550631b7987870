"""What to compile so that no prediction has to."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from scanner_jax.detection import Detection, tagging
from scanner_jax.encoder import Params
from scanner_jax.forward import Passes
from scanner_jax.packing import row_counts
from scanner_jax.pipeline import DetectorFeatures, Features, RecognizerFeatures, length_buckets
from scanner_jax.prompts import Cut, Prompt
from scanner_jax.recognition import Recognition, judging

Stage = TypeVar("Stage", Detection, Recognition)


def tagging_programs(detection: Detection, params: Params, *, batch_size: int) -> list[Callable[[], object]]:
    """What compiles the programs that `detection.tag` can take and that are not compiled yet.

    Args:
        detection: the detector's, whose batches are fitted.
        params: its parameters.
        batch_size: the `eval_batch_size` to come.
    """
    none = np.zeros(0, np.int32)
    longest = [
        DetectorFeatures(0, np.zeros(bucket, np.int32), words=none, positions=none, labels=none)
        for bucket in length_buckets(detection.max_tokens)
    ]
    return _programs(tagging, detection, params, longest, batch_size)


def judging_programs(recognition: Recognition, params: Params, *, batch_size: int) -> list[Callable[[], object]]:
    """The same for `recognition.judge`."""
    longest = [
        RecognizerFeatures(0, Prompt((0,) * bucket, 0, (), Cut()), label=0, overlaps=np.zeros(0, np.float32))
        for bucket in length_buckets(recognition.max_tokens)
    ]
    return _programs(judging, recognition, params, longest, batch_size)


def _programs(
    passes: Callable[[Stage, Params, Sequence[Features]], Passes[Features]],
    stage: Stage,
    params: Params,
    longest: Sequence[Features],
    batch_size: int,
) -> list[Callable[[], object]]:
    """Those of every number of rows, with each of the features as a batch's longest."""
    return [
        compile_one
        for rows in row_counts(batch_size)
        for item in longest
        for compile_one in passes(
            dataclasses.replace(stage, eval_batch_size=rows, fitted=False), params, [item]
        ).missing()
    ]
