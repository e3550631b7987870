"""How fast a device can compute and move bytes at best: from its maker's data sheet, or measured here."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp


class DeviceError(ValueError):
    """A device, or a precision of one, that there are no numbers of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A device's limits.

    Attributes:
        name: as a person calls it.
        peaks: operations a second for products of matrices, without sparsity, by precision.
        bandwidth: bytes a second between the device and its memory.
        source: where the numbers are from.
        kinds: what JAX calls it.
    """

    name: str
    peaks: Mapping[str, float]
    bandwidth: float
    source: str
    kinds: tuple[str, ...] = ()

    def peak(self, precision: str | None = None) -> tuple[str, float]:
        """A precision and its operations a second; None takes tf32 where there is one.

        That is what JAX's default precision makes of float32 on such GPUs (documentation of jax.lax.Precision).

        Raises:
            DeviceError: there is no number for it.
        """
        chosen = precision or ("tf32" if "tf32" in self.peaks else next(iter(self.peaks)))
        if chosen not in self.peaks:
            raise DeviceError(f"precision={chosen}: of {self.name} are known: {', '.join(self.peaks)}")
        return chosen, self.peaks[chosen]

    def usual(self, compute_dtype: str) -> str:
        """The precision of products where layers compute in "float32" or "bfloat16"; bf16 only where it is known."""
        return "bf16" if compute_dtype == "bfloat16" and "bf16" in self.peaks else self.peak()[0]

    def describe(self, precision: str | None = None) -> str:
        """Name, limits and source in a line."""
        chosen, peak = self.peak(precision)
        return f"{self.name} ({peak / 1e12:,.3g} TFLOP/s {chosen}, {self.bandwidth / 1e9:,.4g} GB/s; {self.source})"


def _nvidia(name: str, fp32: float, tf32: float, bf16: float, bandwidth: float, *kinds: str, sheet: str) -> Device:
    """Numbers as NVIDIA prints them, in TFLOP/s and GB/s; bf16 accumulates in float32."""
    peaks = {"fp32": fp32 * 1e12, "tf32": tf32 * 1e12, "bf16": bf16 * 1e12}
    return Device(name=name, peaks=peaks, bandwidth=bandwidth * 1e9, source=f"NVIDIA's {sheet}", kinds=kinds)


# Tensor cores without sparsity: half of what the sheets print with it.
DEVICES = (
    _nvidia("NVIDIA H100", 67, 494.7, 989.4, 3350, "NVIDIA H100 80GB HBM3", sheet="H100 data sheet, SXM"),
    _nvidia("NVIDIA H100 PCIe", 51, 378, 756, 2000, sheet="H100 data sheet, PCIe"),
    _nvidia("NVIDIA H200", 67, 494.7, 989.4, 4800, sheet="H200 data sheet, SXM"),
    _nvidia(
        "NVIDIA A100 40GB",
        19.5,
        156,
        312,
        1555,
        "NVIDIA A100-SXM4-40GB",
        "NVIDIA A100-PCIE-40GB",
        sheet="A100 data sheet",
    ),
    _nvidia("NVIDIA A100 80GB", 19.5, 156, 312, 2039, "NVIDIA A100-SXM4-80GB", sheet="A100 data sheet, SXM"),
    _nvidia("NVIDIA A100 80GB PCIe", 19.5, 156, 312, 1935, sheet="A100 data sheet, PCIe"),
    _nvidia("NVIDIA L4", 30.3, 60, 121, 300, sheet="L4 data sheet"),
    _nvidia("NVIDIA L40S", 91.6, 183, 362, 864, sheet="L40S data sheet"),
    _nvidia("RTX 4090", 82.6, 82.6, 165.2, 1008, "NVIDIA GeForce RTX 4090", sheet="Ada white paper"),
    _nvidia("RTX 3090", 35.6, 35.6, 71, 936, "NVIDIA GeForce RTX 3090", sheet="GA102 white paper"),
)


def find_device(name: str) -> Device | None:
    """The device of this name, or that JAX calls so; None if there is none in the table."""
    return next((d for d in DEVICES if name.lower() in {d.name.lower(), *map(str.lower, d.kinds)}), None)


def named_device(name: str) -> Device:
    """The device of this name.

    Raises:
        DeviceError: it is not in the table.
    """
    found = find_device(name)
    if found is None:
        known = ", ".join(device.name for device in DEVICES)
        raise DeviceError(
            f"device={name}: known are {known}; give the limits of another with --peak_tflops and --bandwidth_gbs"
        )
    return found


@functools.cache
def this_device() -> Device:
    """The device that JAX computes on: from the table, or else measured in a few seconds."""
    kind = jax.devices()[0].device_kind
    return find_device(kind) or _measured(kind)


def _measured(kind: str, *, size: int = 2048, floats: int = 2**25) -> Device:
    """Time a product of two square matrices, and adding 1 to an array in place, which reads it and writes it."""
    matrix, array = jnp.ones((size, size)), jnp.ones(floats)
    product = _fastest(jax.jit(jnp.matmul), [matrix, matrix])
    # In place, because a new array's first use costs the host more than moving its bytes does.
    copy = _fastest(jax.jit(_increment, donate_argnums=0), [array], again=True)
    return Device(
        name=kind,
        peaks={"float32": 2 * size**3 / product},
        bandwidth=2 * 4 * floats / copy,
        source=f"measured here: a product of {size} x {size} matrices, a pass over {4 * floats / 1e6:.0f} MB",
    )


def _increment(array: jax.Array) -> jax.Array:
    return array + 1


def _fastest(function: Callable[..., Any], arguments: list[Any], *, again: bool = False, times: int = 5) -> float:
    """Seconds of the fastest of several calls; the first, which compiles, does not count.

    Args:
        function: what to time.
        arguments: of each call.
        again: give each call's result to the next one instead.
        times: calls that are timed.
    """
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        result = jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - started)
        arguments = [result] if again else arguments
    return min(seconds[1:])
