"""VinVL's detector at prediction: of a folder with its two files, set as it was when training's objects were made."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scanner_jax.experts import VINVL
from scanner_jax.knowledge.loading import ModelError
from scanner_jax.knowledge.vinvl.detector import Options, check_operators
from scanner_jax.knowledge.vinvl.expert import Recipe, VinvlExpert, load_expert
from scanner_jax.knowledge.vinvl.labels import read_labels
from scanner_jax.store.sources import file_sha256
from scanner_jax.store.vinvl_rows import LABELS

logger = logging.getLogger(__name__)

WEIGHTS, LABEL_MAP = VINVL


def is_vinvl(folder: str | Path) -> bool:
    """Whether a folder is VinVL's, and no model of transformers."""
    return (Path(folder).expanduser() / LABEL_MAP).is_file()


def served_expert(folder: str | Path, made: Mapping[str, Any], *, precision: str, device: torch.device) -> VinvlExpert:
    """Load the detector.

    Args:
        folder: has the label map, and the weights: by their name, or as its only file of weights.
        made: the provenance of training's objects: how boxes were chosen and what their labels are, where it says so,
            and the files' SHA-256. Other files are used, and said.
        precision: a key of `PRECISIONS`.
        device: where it runs.

    Raises:
        ModelError: weights or labels are not there or not read; torchvision's operators do not run.
    """
    folder = Path(folder).expanduser()
    check_operators(device)
    labels, weights = read_labels(folder / LABEL_MAP), _weights(folder)
    known = made.get("weights_sha256"), made.get("labels_sha256")
    if known[0] is not None and known != (file_sha256(weights), labels.sha256):
        logger.warning("objects: %s is not the version of VinVL's detector that training saw", folder)
    names = {field.name for field in dataclasses.fields(Options)}
    recipe = Recipe(
        weights=weights,
        labels=folder / LABEL_MAP,
        label=made["label"] if made.get("label") in LABELS else LABELS[0],
        options=Options(**{name: value for name, value in made.items() if name in names}),
        features=None,
        precision=precision,
        device=device,
        batch_size=1,
    )
    return load_expert(recipe, labels)


def _weights(folder: Path) -> Path:
    found = sorted([*folder.glob("*.pth"), *folder.glob("*.safetensors")])
    if (named := folder / WEIGHTS) in found:
        return named
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "no file of weights"
        raise ModelError(f"{folder}: VinVL's label map, and {names}; put {WEIGHTS} there")
    return found[0]
