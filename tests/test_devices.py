"""Devices' limits: the table against itself, and the device here."""

from __future__ import annotations

import jax
import pytest

from scanner_jax import devices
from scanner_jax.devices import DEVICES, DeviceError, find_device, named_device, this_device


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_the_table_holds_together(device):
    """NVIDIA's tensor cores take bf16 at twice tf32's rate, which half of a number with sparsity would not be."""
    assert device.peaks["bf16"] / device.peaks["tf32"] == pytest.approx(2, rel=0.02)
    assert device.peaks["fp32"] <= device.peaks["tf32"]
    # A product of matrices pays from 10 to 400 operations a byte on: units that were mixed up would be far off.
    assert 10 < device.peaks["tf32"] / device.bandwidth < 400
    assert named_device(device.name.lower()) is device
    assert all(find_device(kind) is device for kind in device.kinds)


def test_names_are_told_apart():
    assert len({name for device in DEVICES for name in (device.name, *device.kinds)}) == sum(
        1 + len(device.kinds) for device in DEVICES
    )
    assert named_device("NVIDIA H100 80GB HBM3") is named_device("NVIDIA H100")
    assert named_device("NVIDIA H100 PCIe").bandwidth < named_device("NVIDIA H100").bandwidth


def test_what_is_not_known_is_said():
    with pytest.raises(DeviceError, match="device=H1000: known are NVIDIA H100, .*--peak_tflops"):
        named_device("H1000")
    with pytest.raises(DeviceError, match="precision=fp8: of NVIDIA L4 are known: fp32, tf32, bf16"):
        named_device("NVIDIA L4").peak("fp8")


def test_precision():
    assert named_device("NVIDIA H100").peak() == ("tf32", 494.7e12)
    assert named_device("NVIDIA H100").peak("bf16") == ("bf16", 989.4e12)
    assert "495 TFLOP/s tf32, 3,350 GB/s" in named_device("NVIDIA H100").describe()


def test_a_device_that_is_not_in_the_table_is_measured(monkeypatch):
    seconds = iter([0.5, 0.25])
    monkeypatch.setattr(devices, "_fastest", lambda *arguments, **options: next(seconds))
    found = devices._measured("abacus", size=10, floats=1000)
    assert found.peaks == {"float32": 2 * 10**3 / 0.5}
    assert found.bandwidth == 2 * 4 * 1000 / 0.25
    assert "measured here" in found.source and found.name == "abacus"


def test_the_device_here_has_limits():
    found = this_device()
    assert found.peak()[1] > 0 and found.bandwidth > 0
    assert found.name == jax.devices()[0].device_kind or jax.devices()[0].device_kind in found.kinds
    assert this_device() is found  # measured once
