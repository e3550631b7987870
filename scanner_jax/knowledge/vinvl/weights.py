"""Read a checkpoint strictly: what is missing, left over or of another shape is one error that lists it all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.network import Network

_COPY, _ORIGINAL = "attribute.feature_extractor.", "roi_heads.box.feature_extractor."
"""The attribute head shares the box head's stage 4, which published files hold twice."""


def load_network(path: Path) -> Network:
    """The network with a file's weights.

    Accepted: a state dict, alone or under "model" as VinVL saves it; keys with or without `module.` in front; the
    attribute head's copy of stage 4 absent, or present and equal to the box head's; and the same as safetensors.

    Raises:
        ModelError: no such file, not one that can be read safely, or not this network's weights: every key that is
            missing, unknown, of another shape or not finite, and every copy that differs.
    """
    state = _without_prefix(_state(path), path)
    with torch.device("meta"):
        network = Network()
    expected = network.state_dict()
    problems = [f"{key}: missing" for key in expected if key not in state]
    problems += [f"{key}: {fault}" for key in state if (fault := _fault(key, state, expected))]
    if problems:
        listed = "\n  ".join(problems)
        raise ModelError(
            f"--weights {path}: not the weights of VinVL's X152-C4 detector, {len(problems):,} problems:\n  {listed}"
        )
    network.load_state_dict({key: state[key].float() for key in expected}, assign=True)
    return network.requires_grad_(False)


def _state(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(f"--weights {path}: no such file; give VinVL's vinvl_vg_x152c4.pth")
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the unpickler raise all kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"--weights {path} cannot be read: {reason}. Only tensors are read (weights_only), as pickled objects can "
            "carry code; see that the file is whole"
        ) from error
    if isinstance(held, Mapping) and isinstance(held.get("model"), Mapping):
        held = held["model"]
    if not isinstance(held, Mapping) or not held:
        what = type(held).__name__
        raise ModelError(f'--weights {path}: expected a state dict, alone or under "model"; found {what}')
    return {str(key): value for key, value in held.items()}


def _without_prefix(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Keys without the `module.` of data-parallel training, where all or none have it."""
    prefixed = [key for key in state if key.startswith("module.")]
    if prefixed and len(prefixed) < len(state):
        bare = next(key for key in state if not key.startswith("module."))
        raise ModelError(f"--weights {path}: some keys begin with `module.` ({prefixed[0]}) and some do not ({bare})")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _fault(key: str, state: Mapping[str, Any], expected: Mapping[str, Tensor]) -> str:
    """What is wrong with a key or its value; empty where nothing is."""
    value = state[key]
    original = _ORIGINAL + key.removeprefix(_COPY) if key.startswith(_COPY) else key
    if original not in expected:
        return "unknown"
    if not isinstance(value, Tensor):
        return f"{type(value).__name__}, not a tensor"
    if value.shape != expected[original].shape:
        return f"shape {tuple(value.shape)} instead of {tuple(expected[original].shape)}"
    if not value.is_floating_point():
        return f"{value.dtype}, not floating point"
    if not bool(value.isfinite().all()):
        return "not finite"
    is_copy = original != key and isinstance(state.get(original), Tensor)
    return f"differs from {original}, whose copy it should be" if is_copy and _differ(value, state[original]) else ""


def _differ(value: Tensor, original: Tensor) -> bool:
    return value.data_ptr() != original.data_ptr() and not torch.equal(value, original)
