"""The machine that a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe(framework: str = "jax") -> dict[str, Any]:
    """Processor, cores, memory, versions and device, as JSON values; of jax or torch, which share no process."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **(_jax() if framework == "jax" else _torch()),
    }


def _jax() -> dict[str, Any]:
    import jax

    return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}


def _torch() -> dict[str, Any]:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
