"""Let torch's models for images be imported beside a torchvision of another build.

    python tests/torchvision_shim.py -m scanner_jax.knowledge captions ...
    python tests/torchvision_shim.py benchmarks/extract.py

runs a module or script so. A CPU torch with the registry's CUDA torchvision can't import it, nor with it any class of
transformers for images: its operators are missing. Nothing here calls them, so that their declaration is enough.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def declare_operators() -> None:
    """Declare the operators that torchvision's import looks for, where it fails."""
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


if __name__ == "__main__":
    declare_operators()
    del sys.argv[0]
    if sys.argv[0] == "-m":
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
