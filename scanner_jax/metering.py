"""What training steps do on a device, by the shape of their batch: time, padding, work, memory, and floors of time."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from scanner_jax.costs import ModelSizes, step_bytes, step_flops
from scanner_jax.devices import Device
from scanner_jax.pipeline import Batch
from scanner_jax.stepping import Stepper, TrainState, shape_of


class Bucket(NamedTuple):
    """A batch's shape: so many rows of so many tokens, which several examples may share."""

    rows: int
    tokens: int
    shared: bool

    def __str__(self) -> str:
        return f"{self.rows} x {self.tokens}{' shared' if self.shared else ''}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """Steps of one shape, all before AWP began or all after, and what they cost.

    Attributes:
        rows: of the batch.
        tokens: of each row.
        shared: whether several examples may share a row.
        gradients: taken in each step: 2 once AWP has begun, else 1.
        awp: whether the training has any.
        batches: of this shape that were met.
        steps: that were timed.
        compile_seconds: of tracing and compiling, or of reading JAX's cache on disk; one program serves both halves.
        step_seconds: of a step, with its batch's way to the device, in the mean.
        examples_per_second: examples are windows of sentences, or prompts.
        tokens_per_second: real tokens.
        padding_share: of the batches' tokens, from 0 to 1.
        flops: that a step executes, padding and recomputation included (`costs.step_flops`).
        model_flops: that a step's real tokens need, each attending to its own example, nothing recomputed; the mean.
        utilization: of the device's peak, by `model_flops`.
        bytes: that a step moves at least (`costs.step_bytes`).
        xla_flops: XLA's own count of a step; a scan's body once, and both branches of AWP's condition.
        xla_bytes: XLA's own count of bytes accessed, likewise; caches may save some of it.
        peak_bytes: XLA's plan of arguments, results and temporaries, less what results reuse.
        arithmetic_floor: seconds that the named device takes for `flops` at its peak.
        bandwidth_floor: seconds that it takes to move `bytes`.
    """

    rows: int
    tokens: int
    shared: bool
    gradients: int
    awp: bool
    batches: int
    steps: int
    compile_seconds: float
    step_seconds: float
    examples_per_second: float
    tokens_per_second: float
    padding_share: float
    flops: int
    model_flops: float
    utilization: float
    bytes: int
    xla_flops: float | None
    xla_bytes: float | None
    peak_bytes: int | None
    arithmetic_floor: float
    bandwidth_floor: float


@dataclasses.dataclass
class _Sum:
    """Timed steps of one shape."""

    shape: Batch
    steps: int = 0
    seconds: float = 0.0
    examples: int = 0
    tokens: int = 0
    model_flops: int = 0


class Meter:
    """Adds up a training's steps.

    Args:
        model: what the steps train.
        stepper: what makes them.
        state: of the shapes that all states have.
    """

    def __init__(self, model: ModelSizes, stepper: Stepper, state: TrainState) -> None:
        self._model = model
        self._stepper = stepper
        self._parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self._met: collections.Counter[Bucket] = collections.Counter()
        self._sums: dict[tuple[Bucket, int], _Sum] = {}

    def meet(self, batches: Iterable[Batch]) -> None:
        """Count batches as met, timed or not."""
        self._met.update(map(bucket_of, batches))

    def timed(self, batches: Sequence[Batch], *, gradients: int) -> int:
        """How many steps with a batch of the first one's shape have been added."""
        found = self._sums.get((bucket_of(batches[0]), gradients))
        return found.steps if found else 0

    def add(self, batches: Sequence[Batch], seconds: float, *, gradients: int) -> None:
        """Add steps with batches of one shape, which took so long together."""
        key = bucket_of(batches[0]), gradients
        total = self._sums.setdefault(key, _Sum(shape_of(batches[0])))
        total.steps += len(batches)
        total.seconds += seconds
        for lengths in map(lengths_of, batches):
            total.examples += len(lengths)
            total.tokens += sum(lengths)
            total.model_flops += step_flops(
                self._model, lengths, examples=len(lengths), gradients=gradients, recomputing=False
            )

    def measured(self, *, here: Device, floor: Device, precision: str | None) -> list[Measured]:
        """All that was added, the largest batches first.

        Args:
            here: the device that the steps ran on.
            floor: the device that the floors are of.
            precision: of the products on that device; None for the usual one of what the layers compute in.

        Raises:
            DeviceError: the peak at that precision is not known.
        """
        compute_dtype = self._model.execution.compute_dtype
        here_peak = here.peak(here.usual(compute_dtype))[1]
        floor_peak = floor.peak(precision or floor.usual(compute_dtype))[1]
        rows = []
        for (bucket, gradients), total in sorted(
            self._sums.items(), key=lambda item: (-item[0][0].rows * item[0][0].tokens, *item[0])
        ):
            step = self._stepper.compiled(total.shape)
            lengths = [bucket.tokens] * bucket.rows
            model_flops = total.model_flops / total.steps
            executed = step_flops(self._model, lengths, examples=bucket.rows, gradients=gradients, recomputing=True)
            moved = step_bytes(
                self._model,
                parameters=self._parameters,
                rows=bucket.rows,
                tokens=bucket.tokens,
                gradients=gradients,
            )
            xla: Any = step.executable.cost_analysis() or {}
            rows.append(
                Measured(
                    **bucket._asdict(),
                    gradients=gradients,
                    awp=self._stepper.settings.awp_gamma > 0,
                    batches=self._met[bucket],
                    steps=total.steps,
                    compile_seconds=step.seconds,
                    step_seconds=total.seconds / total.steps,
                    examples_per_second=total.examples / total.seconds,
                    tokens_per_second=total.tokens / total.seconds,
                    padding_share=1 - total.tokens / (total.steps * bucket.rows * bucket.tokens),
                    flops=executed,
                    model_flops=model_flops,
                    utilization=total.model_flops / total.seconds / here_peak,
                    bytes=moved,
                    xla_flops=xla.get("flops"),
                    xla_bytes=xla.get("bytes accessed"),
                    peak_bytes=planned_bytes(step.executable),
                    arithmetic_floor=executed / floor_peak,
                    bandwidth_floor=moved / floor.bandwidth,
                )
            )
        return rows


def bucket_of(batch: Batch) -> Bucket:
    """The shape of a batch that `pipeline` has made."""
    rows, tokens = batch["segments"].shape
    return Bucket(rows, tokens, batch["segments"].dtype != bool)


def lengths_of(batch: Batch) -> list[int]:
    """Tokens of each example in a batch."""
    rows = np.asarray(batch["segments"]).astype(int)
    return [int(count) for row in rows for count in np.bincount(row)[1:]]


def planned_bytes(executable: jax.stages.Compiled) -> int | None:
    """The memory that a compiled step takes at most by XLA's plan; None where the backend has none."""
    plan: Any = executable.memory_analysis()
    if plan is None:
        return None
    held = plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes
    return int(held - plan.alias_size_in_bytes)


_COLUMNS = (
    ("bucket", "{bucket}"),
    ("AWP", "{half}"),
    ("batches", "{batches:,}"),
    ("compile s", "{compile_seconds:.1f}"),
    ("step ms", "{step_ms:,.1f}"),
    ("examples/s", "{examples_per_second:,.1f}"),
    ("tokens/s", "{tokens_per_second:,.0f}"),
    ("padding %", "{padding:.1f}"),
    ("GFLOP", "{gflop:,.1f}"),
    ("MFU %", "{mfu:.1f}"),
    ("GB", "{gb:.2f}"),
    ("XLA's GB", "{xla_gb}"),
    ("peak GB", "{peak_gb}"),
    ("floor: FLOP ms", "{arithmetic:,.3g}"),
    ("GB ms", "{bandwidth:,.3g}"),
)


def table(measured: Sequence[Measured]) -> str:
    """One line for each shape, before and after AWP's start."""
    lines = [
        [name for name, _ in _COLUMNS],
        *([form.format(**_shown(row)) for _, form in _COLUMNS] for row in measured),
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def legend(*, here: Device, floor: Device, precision: str | None, compute_dtype: str) -> str:
    """What the columns of `table` mean, and where the limits are from; arguments as of `Meter.measured`."""
    other = floor.describe(precision or floor.usual(compute_dtype))
    return (
        f"here: {here.describe(here.usual(compute_dtype))}\n"
        f"floors: {'the same' if here is floor else other}; a step takes at least the larger one\n"
        "GFLOP: executed, padding included; MFU: what the real tokens need, of this device's peak; GB: moved at least; "
        "XLA's GB: its own count, loops once; peak GB: XLA's plan of a step\n"
        f"{memory_in_use()}"
    )


def memory_in_use() -> str:
    """The most memory that this process has held on its device, if that keeps count."""
    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    if peak is None:
        return f"memory: {device.device_kind} keeps no count of the most that was in use"
    return f"memory: at most {peak / 1e9:.2f} GB in use on {device.device_kind} in all"


def _shown(row: Measured) -> dict[str, Any]:
    """A row's numbers in the units of its columns."""
    return dataclasses.asdict(row) | {
        "bucket": Bucket(row.rows, row.tokens, row.shared),
        "half": ("before", "after")[row.gradients - 1] if row.awp else "-",
        "step_ms": 1e3 * row.step_seconds,
        "padding": 100 * row.padding_share,
        "gflop": row.flops / 1e9,
        "mfu": 100 * row.utilization,
        "gb": row.bytes / 1e9,
        "xla_gb": "-" if row.xla_bytes is None else f"{row.xla_bytes / 1e9:.2f}",
        "peak_gb": "-" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}",
        "arithmetic": 1e3 * row.arithmetic_floor,
        "bandwidth": 1e3 * row.bandwidth_floor,
    }
