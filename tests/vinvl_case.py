"""What VinVL's tests share: its detector with formula weights, and the arrays that VinVL's own code gave with them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision_shim import declare_operators
from vinvl_formula import formula_state

from scanner_jax.images import read_image
from scanner_jax.knowledge.vinvl.network import Network
from scanner_jax.knowledge.vinvl.preprocessing import Prepared, prepare

declare_operators()  # the package imports torchvision where it calls it
torch.set_num_threads(1)  # the suite's processes share the cores

DATA = Path(__file__).parent.parent / "data" / "vinvl"
ARRAYS = DATA / "vinvl_golden.npz"
KEYS = DATA / "vinvl_keys.json"
LABELS = DATA / "VG-SGG-dicts-vgoi6-clipped.json"
MISSING = f"{ARRAYS} is not there"

PHOTOS = {"A": ("O_4154", 600, 1000), "C": ("153305", 160, 200)}
"""File, length of the shorter side, and of the longer one at most."""


@functools.cache
def golden() -> dict[str, np.ndarray]:
    """All arrays."""
    with np.load(ARRAYS, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@functools.cache
def formula_network() -> Network:
    """The network with formula weights, and where the arrays are there, the two biases from them."""
    state = formula_state(ARRAYS if ARRAYS.is_file() else None)
    with torch.device("meta"):
        network = Network()
    network.load_state_dict({key: state[key] for key in network.state_dict()}, assign=True)
    return network.requires_grad_(False)


def made_image() -> np.ndarray:
    """Image B, 320 x 240."""
    y, x = np.mgrid[:240, :320]
    red = (3 * x + 5 * y + (x * y) // 7) % 256
    green = (255 * ((x // 24 + y // 20) % 2) + x) % 256
    blue = ((x - 160) ** 2 // 9 + (y - 120) ** 2 // 7) % 256
    return np.stack([red, green, blue], -1).astype(np.uint8)


def prepared(name: str) -> Prepared:
    """One of the three images."""
    from PIL import Image

    if name == "B":
        return prepare(Image.fromarray(made_image()))
    stem, short, long = PHOTOS[name]
    return prepare(read_image(DATA / "images" / f"{stem}.jpg"), short, long)


def worst(found: Any, expected: Any) -> float:
    """The largest difference; arrays of unlike shapes are an error."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0))
