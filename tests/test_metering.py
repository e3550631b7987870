"""What is said of a training's steps, against the batches that they were made with, and looking on changes nothing."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest

from scanner_jax.beginning import TrainingSettings, begin
from scanner_jax.costs import forward_flops
from scanner_jax.detection import Detection, detector_training, train_detector
from scanner_jax.devices import Device
from scanner_jax.encoder import EncoderConfig, init_encoder
from scanner_jax.files import read_json
from scanner_jax.metering import Bucket, Meter, bucket_of, legend, lengths_of, table
from scanner_jax.optim import OptimizerSettings
from scanner_jax.pipeline import collate_detector, detector_features
from scanner_jax.stepping import Stepper
from scanner_jax.types import Entity, Example
from scanner_jax.watching import TIMED, UNTRACED, Watching

SETTINGS = TrainingSettings(
    optimizer=OptimizerSettings(learning_rate=1e-3, awp_gamma=1e-3),
    epochs=4,
    batch_size=4,
    checkpoint_every=100,
    log_every=100,
)
DEVICE = Device(name="abacus", peaks={"fp32": 1e9}, bandwidth=1e6, source="wood")


def examples():
    """Of two buckets: one in eleven is longer than the others."""
    words = "Mira Okafor visits Lake Tamsin today and we love it".split() * 5
    lengths = [38 if n % 11 == 0 else 3 + 7 * n % 25 for n in range(22)]
    return [Example(id=str(n), words=tuple(words[:w]), entities=(Entity(0, 2, "PER"),)) for n, w in enumerate(lengths)]


@pytest.fixture(scope="module")
def detection(tiny_tokenizer):
    config = EncoderConfig(
        model_type="roberta",
        vocab_size=tiny_tokenizer.largest_id + 1,
        hidden_size=16,
        num_layers=1,
        num_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        pad_token_id=1,
    )
    return Detection(encoder=config, tokenizer=tiny_tokenizer, max_tokens=128, eval_batch_size=8)


def encoder_params(detection):
    return init_encoder(detection.encoder, jax.random.key(0))


class Begun(NamedTuple):
    meter: Meter
    batches: list
    stepper: Stepper


@pytest.fixture
def begun(detection):
    training = detector_training(detection, encoder_params(detection), examples(), seed=1)
    beginning = begin(training, settings=SETTINGS, seed=1)
    stepper = Stepper(training.loss_fn, SETTINGS.optimizer, state=beginning.state, course=beginning.course)
    return Begun(Meter(detection.sizes, stepper, beginning.state), list(beginning.batches), stepper)


def test_buckets_and_lengths_are_the_batches(detection):
    features = detector_features(examples(), detection.tokenizer, max_tokens=128)[:4]
    lengths = [item.length for item in features]
    own = collate_detector(features, batch_size=6, buckets=(32, 64))
    assert (bucket_of(own), lengths_of(own)) == ((6, 64, False), lengths)
    shared = collate_detector(features, batch_size=8, buckets=(32, 64), pack_width=64)
    rows, tokens, is_shared = bucket_of(shared)
    assert (tokens, is_shared) == (64, True) and rows < 4, (rows, tokens, lengths)
    assert sorted(lengths_of(shared)) == sorted(lengths)
    assert str(Bucket(6, 64, False)) == "6 x 64" and str(Bucket(6, 64, True)) == "6 x 64 shared"


def test_measured_is_what_was_added(detection, begun):
    first = bucket_of(begun.batches[0])
    same = [batch for batch in begun.batches if bucket_of(batch) == first]
    begun.meter.meet(begun.batches)
    begun.meter.add(same[:2], 2.0, gradients=1)
    begun.meter.add(same[:1], 2.0, gradients=1)
    begun.meter.add(same[:1], 4.0, gradients=2)
    before, after = begun.meter.measured(here=DEVICE, floor=DEVICE, precision=None)
    assert (before.rows, before.tokens, before.shared) == first and before.awp
    assert (before.batches, before.steps, before.step_seconds) == (len(same), 3, pytest.approx(4 / 3))
    used = [same[0], same[0], same[1]]
    tokens = sum(int((batch["segments"] > 0).sum()) for batch in used)
    assert before.tokens_per_second == tokens / 4
    assert before.padding_share == pytest.approx(1 - tokens / sum(batch["segments"].size for batch in used))
    assert before.examples_per_second == sum(len(lengths_of(batch)) for batch in used) / 4
    needed = sum(3 * forward_flops(detection.sizes, lengths_of(batch), examples=4) for batch in used)
    assert before.model_flops == needed / 3
    assert before.utilization == pytest.approx(needed / 4 / 1e9)
    assert before.model_flops < before.flops
    assert (before.arithmetic_floor, before.bandwidth_floor) == (before.flops / 1e9, before.bytes / 1e6)
    assert (before.gradients, after.gradients, after.flops) == (1, 2, 2 * before.flops)
    assert after.compile_seconds == before.compile_seconds > 0  # one program


def test_parameters_are_in_the_plan_and_in_the_bytes(begun, detection):
    begun.meter.add(begun.batches[:1], 1.0, gradients=1)
    (row,) = begun.meter.measured(here=DEVICE, floor=DEVICE, precision=None)
    count = sum(leaf.size for leaf in jax.tree.leaves(encoder_params(detection)))
    assert row.peak_bytes > 4 * 4 * count  # parameters, two moments, gradients
    assert row.bytes > 4 * 8 * count
    assert row.xla_flops > 0 and row.xla_bytes > 0


def test_the_table_has_a_line_for_each_shape(begun):
    for batch in begun.batches:
        begun.meter.meet([batch])
        begun.meter.add([batch], 0.5, gradients=1)
    measured = begun.meter.measured(here=DEVICE, floor=DEVICE, precision=None)
    head, *lines = table(measured).splitlines()
    assert len(lines) == len({bucket_of(batch) for batch in begun.batches}) > 1
    assert "step ms" in head and all("500.0" in line and "before" in line for line in lines)
    assert sum(row.batches for row in measured) == len(begun.batches)
    said = legend(here=DEVICE, floor=dataclasses.replace(DEVICE, name="other"), precision=None, compute_dtype="float32")
    assert "here: abacus (0.001 TFLOP/s fp32, 0.001 GB/s; wood)" in said and "floors: other" in said


def equal(first, second):
    return jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_looking_on_changes_nothing_and_leaves_a_trace(tmp_path, detection):
    train = functools.partial(
        train_detector,
        detection,
        name="detector",
        encoder_params=encoder_params(detection),
        training=examples(),
        dev=None,
        settings=SETTINGS,
        seed=1,
    )
    folder = tmp_path / "profile"
    for name in ("plain", "watched"):
        (tmp_path / name).mkdir()
    watch = Watching(name="detector", model=detection.sizes, folder=folder)
    watched = train(folder=tmp_path / "watched", watch=watch)
    assert equal(train(folder=tmp_path / "plain"), watched)

    rows = read_json(folder / "profile.json")["measured"]
    steps = 6 * SETTINGS.epochs
    assert len({(row["rows"], row["tokens"], row["shared"]) for row in rows}) > 1
    assert {row["gradients"] for row in rows} == {1, 2}  # AWP begins in the middle
    assert 0 < sum(row["steps"] for row in rows) < steps - UNTRACED
    assert all(row["steps"] <= TIMED and row["batches"] <= steps for row in rows)

    planes = jax.profiler.ProfileData.from_file(str(next(folder.rglob("*.xplane.pb")))).planes
    events = [(event.name, dict(event.stats)) for plane in planes for line in plane.lines for event in line.events]
    assert sorted(stats["step_num"] for name, stats in events if name == "train") == [3, 4, 5]
    assert any(stats.get("hlo_module") == "jit_train_step" for _, stats in events)


def test_a_training_too_short_for_a_trace_says_so(tmp_path, detection, caplog):
    with caplog.at_level("INFO", "scanner_jax"):
        train_detector(
            detection,
            name="short",
            encoder_params=encoder_params(detection),
            training=examples()[:4],
            dev=None,
            settings=dataclasses.replace(SETTINGS, epochs=2),
            seed=1,
            folder=tmp_path,
            watch=Watching(name="short", model=detection.sizes, folder=tmp_path / "profile"),
        )
    assert "short: no trace" in caplog.text
    assert not list(tmp_path.rglob("*.xplane.pb"))
