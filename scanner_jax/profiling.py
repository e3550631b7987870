"""Time a recipe's training steps by the shape of their batches, say what bounds them, and write a trace for xprof.

    python -m scanner_jax.profiling --config=configs/mner15.py:small

Batches, model and step are those of the recipe's first epoch, a teacher's. Stage 2 needs no trained detector: its
candidates are the gold spans, without the mined non-entities. Nothing that is compiled is taken from a cache.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags

from scanner_jax.beginning import Beginning, TrainingSettings, begin
from scanner_jax.candidates import Candidate
from scanner_jax.command_line import CONFIG, PREPARED, config_name, parse_flags, quieten, refuse_words
from scanner_jax.costs import ModelSizes
from scanner_jax.detection import detector_training
from scanner_jax.devices import Device, DeviceError, named_device, this_device
from scanner_jax.encoder import EncoderConfig, Params, random_params
from scanner_jax.files import explain, write_json
from scanner_jax.inputs import InputError, open_inputs
from scanner_jax.metering import Measured, Meter, bucket_of, legend, table
from scanner_jax.pipeline import Batch, steps_per_epoch
from scanner_jax.prompts import PromptError
from scanner_jax.recognition import recognizer_training
from scanner_jax.runs import (
    Run,
    detection_of,
    detector_vocabulary_of,
    prompted_with_knowledge,
    recognition_of,
    recognizer_vocabulary_of,
)
from scanner_jax.settings import execution, placement, training_settings
from scanner_jax.stepping import LossFn, Stepper, TrainState, shape_of
from scanner_jax.store import StoreError
from scanner_jax.types import Example
from scanner_jax.watching import step_annotation, trace
from scanner_jax.wikipedia import WikipediaError

STAGES = ("detector", "recognizer")

_STAGE = flags.DEFINE_enum("stage", "both", [*STAGES, "both"], "What is trained.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps to time of each shape, after one that is not.", lower_bound=1)
_SHAPES = flags.DEFINE_integer("shapes", None, "Only so many shapes, the most frequent ones; by default all.", 1)
_TRACED = flags.DEFINE_integer("traced_steps", 2, "Steps of each shape in the trace; 0 writes none.", lower_bound=0)
_DEVICE = flags.DEFINE_string("device", None, "Whose floors to give, as 'NVIDIA H100'; by default the device here.")
_PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    ["fp32", "tf32", "bf16"],
    "Of that device's products; by default as layers compute.",
)
_PEAK = flags.DEFINE_float("peak_tflops", None, "Floors of a device with so many TFLOP/s and --bandwidth_gbs.", 0)
_BANDWIDTH = flags.DEFINE_float("bandwidth_gbs", None, "Bandwidth of that device's memory, in GB/s.", 0)
_OUT = flags.DEFINE_string("out", None, "Receives the traces; by default runs/profile-<config>.")
_JSON = flags.DEFINE_string("json", None, "The numbers as JSON; by default OUT/profile.json.")
_RANDOM = flags.DEFINE_boolean("random_weights", False, "Draw the encoder's weights; its folder need not have any.")

NEVER = 2**31 - 1
"""An update that no training makes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's training before its first step."""

    name: str
    model: ModelSizes
    loss_fn: LossFn
    settings: TrainingSettings
    beginning: Beginning
    epoch: int


def main(arguments: Sequence[str]) -> None:
    """Profile; whatever stops it ends in a sentence and an exit code."""
    refuse_words(arguments)
    quieten()
    try:
        _profile()
    except InputError as error:
        sys.exit(f"The recipe cannot start; this is missing or does not fit:\n{error}")
    except (DeviceError, PromptError, StoreError, WikipediaError) as error:
        sys.exit(f"Profiling stopped: {error}")
    except OSError as error:
        sys.exit(f"Profiling stopped: {explain(error)}")


def _profile() -> None:
    """Profile the stages of the command line, and leave what was found."""
    floor, precision = _asked_device(), _PRECISION.value
    if floor is not None:
        floor.peak(precision)  # refused before anything is read
    out = Path(_OUT.value or Path("runs") / f"profile-{config_name()}")
    written = Path(_JSON.value or out / "profile.json")
    for folder in (out, written.parent):
        folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG.value
    inputs = open_inputs(config, prepared=Path(PREPARED.value), weights=not _RANDOM.value)
    if (devices := placement(config).devices) > 1:
        raise InputError(
            f"- the mesh has {devices} devices, but steps are timed on one; leave mesh.data and mesh.fsdp at 1"
        )
    run = Run(config=config, inputs=inputs, root=out / "phases")
    here = this_device()
    floor, compute_dtype = floor or here, execution(config).compute_dtype
    precision = precision or floor.usual(compute_dtype)
    found: dict[str, list[Measured]] = {}
    for name in STAGES if _STAGE.value == "both" else (_STAGE.value,):
        stage = (_detector if name == "detector" else _recognizer)(run)
        meter, met, epoch = _measure(stage, out / name)
        found[name] = meter.measured(here=here, floor=floor, precision=precision)
        print(f"\n{name}: {met:,} of the first epoch's {epoch:,} batches have these shapes\n")
        print(table(found[name]), flush=True)
        del stage, meter
    print("\n" + legend(here=here, floor=floor, precision=precision, compute_dtype=compute_dtype))
    write_json(written, _record(found, here=here, floor=floor, precision=precision))
    print(f"numbers: {written}" + (f"; traces: xprof --logdir={out}" if _TRACED.value else ""))


def _asked_device() -> Device | None:
    """The device that floors are asked of; None for the one here.

    Raises:
        DeviceError: it is not known, or half of its limits are given.
    """
    if _PEAK.value is None and _BANDWIDTH.value is None:
        return named_device(_DEVICE.value) if _DEVICE.value else None
    if not _PEAK.value or not _BANDWIDTH.value:
        raise DeviceError("--peak_tflops and --bandwidth_gbs go together, and are more than 0")
    return Device(
        name=_DEVICE.value or "device",
        peaks={_PRECISION.value or "given": 1e12 * _PEAK.value},
        bandwidth=1e9 * _BANDWIDTH.value,
        source="given on the command line",
    )


def _detector(run: Run) -> Stage:
    detection = detection_of(run)
    settings = training_settings(run.config.detector, epochs=run.config.epochs.detector_teacher)
    encoder_params = _encoder_params(run, "detector", detection.encoder)
    training = detector_training(detection, encoder_params, run.inputs.training, seed=run.config.seed)
    return Stage(
        name="detector",
        model=detection.sizes,
        loss_fn=training.loss_fn,
        settings=settings,
        beginning=begin(
            training, settings=settings, seed=run.config.seed, vocabulary=detector_vocabulary_of(run, detection)
        ),
        epoch=steps_per_epoch(len(training.features), settings.batch_size),
    )


def _recognizer(run: Run) -> Stage:
    """Stage 2 with the gold spans of every split as candidates."""
    recognition = recognition_of(run)
    settings = training_settings(run.config.recognizer, epochs=run.config.epochs.recognizer_teacher)
    prompted = {
        split: prompted_with_knowledge(run, recognition, _gold(examples))
        for split, examples in run.inputs.by_use.items()
    }
    training = recognizer_training(
        recognition,
        _encoder_params(run, "recognizer", recognition.encoder),
        prompted["train"],
        grounding_weight=run.config.recognizer.grounding_weight,
        seed=run.config.seed,
    )
    vocabulary = recognizer_vocabulary_of(run, recognition, prompted.values())
    return Stage(
        name="recognizer",
        model=recognition.sizes,
        loss_fn=training.loss_fn,
        settings=settings,
        beginning=begin(training, settings=settings, seed=run.config.seed, vocabulary=vocabulary),
        epoch=steps_per_epoch(len(training.features), settings.batch_size),
    )


def _gold(examples: Sequence[Example]) -> list[Candidate]:
    return [(example, entity.span) for example in examples for entity in example.entities]


def _encoder_params(run: Run, stage: str, encoder: EncoderConfig) -> Params:
    """Where the stage's encoder starts; on the host, as `begin` puts on the device what is trained."""
    if not _RANDOM.value:
        return run.encoder_params(stage)
    return random_params(encoder, seed=run.config.seed)


def _measure(stage: Stage, folder: Path) -> tuple[Meter, int, int]:
    """Time and trace steps of each shape.

    Returns:
        The times; how many of the epoch's batches have the shapes that were timed; how many there are.
    """
    state, course, epoch = stage.beginning.state, stage.beginning.course, stage.epoch
    batches = list(itertools.islice(stage.beginning.batches, epoch))
    halves = {1: NEVER, 2: 0} if stage.settings.optimizer.awp_gamma else {1: NEVER}
    steppers = {
        gradients: Stepper(
            stage.loss_fn,
            stage.settings.optimizer,
            state=state,
            course=course._replace(milestones=course.milestones._replace(adversarial=jnp.int32(start))),
            at_once=stage.settings.steps_per_dispatch,
        )
        for gradients, start in halves.items()
    }
    meter = Meter(stage.model, steppers[1], state)
    chosen = _by_shape(batches)[: _SHAPES.value]
    for group in chosen:
        meter.meet(group)
        _say(f"{stage.name} {bucket_of(group[0])}: compiling")
        _say(f"  compiled in {steppers[1].compiled(shape_of(group[0])).seconds:.1f} s")
        some = _cycled(group, _STEPS.value)
        for gradients, stepper in steppers.items():
            state, seconds = _time(stepper, state, some, stage.settings)
            meter.add(some, seconds, gradients=gradients)
            _say(f"  {1e3 * seconds / len(some):,.1f} ms a step" + (" with AWP" if gradients == 2 else ""))
    if _TRACED.value:
        jax.block_until_ready(state)
        numbers = itertools.count()
        with trace(folder):
            for group, stepper in itertools.product(chosen, steppers.values()):
                for batch in _cycled(group, _TRACED.value):
                    with step_annotation(next(numbers)):
                        state, _ = stepper(state, [batch])
            jax.block_until_ready(state)
    return meter, sum(map(len, chosen)), epoch


def _by_shape(batches: Sequence[Batch]) -> list[list[Batch]]:
    """Batches of one shape together, the most frequent shape first."""
    groups: dict[str, list[Batch]] = {}
    for batch in batches:
        groups.setdefault(str(shape_of(batch)), []).append(batch)
    return sorted(groups.values(), key=len, reverse=True)


def _cycled(batches: Sequence[Batch], count: int) -> list[Batch]:
    return list(itertools.islice(itertools.cycle(batches), count))


def _time(
    stepper: Callable[..., Any], state: TrainState, batches: Sequence[Batch], settings: TrainingSettings
) -> tuple[TrainState, float]:
    """Make a step for each batch and say how many seconds all of them took, after one dispatch that is not timed."""
    at_once = settings.steps_per_dispatch
    dispatches = [batches[start : start + at_once] for start in range(0, len(batches), at_once)]
    state, _ = jax.block_until_ready(stepper(state, dispatches[0]))
    started = time.perf_counter()
    for dispatch in dispatches:
        state, _ = stepper(state, dispatch)
    jax.block_until_ready(state)
    return state, time.perf_counter() - started


def _record(found: dict[str, list[Measured]], *, here: Device, floor: Device, precision: str) -> dict[str, Any]:
    """What is written as JSON: the devices, and every shape's numbers."""
    chosen, peak = floor.peak(precision)
    return {
        "command": sys.argv,
        "jax": jax.__version__,
        "here": dataclasses.asdict(here),
        "floors_of": {"name": floor.name, "precision": chosen, "flops_per_second": peak, "source": floor.source}
        | {"bytes_per_second": floor.bandwidth},
        "stages": {name: [dataclasses.asdict(row) for row in rows] for name, rows in found.items()},
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)
