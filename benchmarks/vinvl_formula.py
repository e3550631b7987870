"""VinVL's network with weights made by a formula: every name and shape of the published file, and nothing learnt.

    python benchmarks/vinvl_formula.py FILE.pth [--biases vinvl_golden.npz]

writes 594 MB as the published checkpoint holds them, under "model". What such a detector says means nothing; but the
outputs of VinVL's own code with these weights are known, and tests compare with them. `--biases` takes two biases of
those tests' arrays, which make labels vary; without them nearly all are one class.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

from scanner_jax.knowledge.vinvl.boxes import cell_anchors
from scanner_jax.knowledge.vinvl.network import Network

_GAINS = {
    "backbone.body.stem.conv1": 1 / 60,
    "rpn.head.cls_logits": 0.8,
    "rpn.head.bbox_pred": 0.06,
    "roi_heads.box.predictor.bbox_pred": 0.4,
    "roi_heads.box.predictor.cls_score": 3.05,
}


def formula_state(biases: Path | None = None) -> dict[str, torch.Tensor]:
    """The state dict with the published file's 841 keys, in float32."""
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in Network().state_dict().items()}
    state = {key: torch.from_numpy(_values(key, shape)) for key, shape in shapes.items()}
    if biases is not None:
        with np.load(biases, allow_pickle=False) as arrays:
            for name in ("rpn.head.cls_logits.bias", "roi_heads.box.predictor.cls_score.bias"):
                state[name] = torch.from_numpy(arrays[f"override/{name}"])
    copied = {key: value for key, value in state.items() if key.startswith("roi_heads.box.feature_extractor.")}
    return state | {key.replace("roi_heads.box", "attribute"): value for key, value in copied.items()}


def _values(key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key.endswith("cell_anchors.0"):
        return cell_anchors().numpy()
    noise = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    layer, _, kind = key.rpartition(".")
    if layer.endswith(("bn1", "bn2", "bn3", "downsample.1")):
        gain = 0.05 if layer.endswith("bn3") else 0.1
        # Small variances, so that a wrong epsilon shows.
        values = {
            "running_var": 0.01 * np.exp(0.5 * noise),
            "running_mean": 0.1 * noise,
            "bias": 0.1 * noise,
            "weight": gain * (1 + 0.2 * noise),
        }[kind]
    elif kind == "bias":
        values = 0.1 * noise
    elif layer.endswith("cls_embedding"):
        values = 0.5 * noise
    else:
        values = noise / np.sqrt(np.prod(shape[1:])) * _GAINS.get(layer, 1.0)
    return values.astype(np.float32)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--biases", type=Path)
    options = parser.parse_args()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": formula_state(options.biases)}, options.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
