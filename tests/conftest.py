"""What all tests share: offline, on the CPU, and a way to torch's models as oracles."""

from __future__ import annotations

import os
import sys
from types import ModuleType

# Before anything imports jax or huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """Hugging Face's package with its torch classes.

    They import torchvision, which fails beside a torch of another build (a CPU torch with the registry's
    CUDA torchvision). No test here calls torchvision's operators, so their mere declaration helps then.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
    import transformers

    return transformers
