"""An exported model: a folder that holds all it takes to predict, without network, corpus or run.

| file | what |
|---|---|
| `scanner.json` | `FORMAT`, types, limits, threshold, what its prompts were told, experts, config, scores, versions |
| `config.json`, `tokenizer.json` | the pretrained encoder's sizes, and its tokenizer |
| `detector/`, `recognizer/` | the two students' parameters: Orbax checkpoints, or folders for transformers |
| `detector.safetensors`, `recognizer.safetensors` | in their place, with the parameters' paths joined by slashes |
| `detector.stablehlo`, `recognizer.stablehlo`, `predict.py` | beside them, programs and what runs them without us |
| `README.md` | the model card |
| `checksums.json` | the SHA-256 of every file |
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scanner_jax import checkpoint, stablehlo, torch_folders
from scanner_jax.convert import load_config
from scanner_jax.detection import Detection
from scanner_jax.encoder import EncoderConfig, Params, init_encoder
from scanner_jax.files import CHECKSUMS, damaged_files, read_json, write_text
from scanner_jax.models import init_detector, init_recognizer
from scanner_jax.recognition import Recognition
from scanner_jax.tokens import load_tokenizer

FORMAT = 1
"""Raised by hand when the layout changes; a reader refuses a newer one."""

DESCRIPTION = "scanner.json"

WEIGHTS = ("orbax", "safetensors", "torch", "stablehlo")
"""How the parameters may lie in the folder."""

STAGES = ("detector", "recognizer")

_EXPORT = "export it again: python -m scanner_jax.export WORKDIR FOLDER"

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "weights": (str,),
    "types": (list,),
    "max_tokens": (int,),
    "max_objects": (int,),
    "grounded": (bool,),
    "box_threshold": (float, int, type(None)),
    "knowledge": (dict,),
    "experts": (dict,),
    "tokenizer_sha256": (str,),
}
"""What a reader needs of scanner.json; the rest is for people."""


class ExportError(ValueError):
    """A folder that is no whole exported model, or cannot become one; the message says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """A model read from its folder.

    Attributes:
        description: the content of scanner.json.
        detection: what the detector is run with.
        recognition: what the recognizer is run with.
        detector: parameters, numpy arrays.
        recognizer: likewise.
        fingerprint: tells models apart, whatever they are called; a sha256 in hex.
    """

    description: Mapping[str, Any]
    detection: Detection
    recognition: Recognition
    detector: Params
    recognizer: Params
    fingerprint: str


def write_params(folder: Path, params: Mapping[str, Params], *, weights: str, recognition: Recognition) -> None:
    """Write both stages' parameters, by stage, in one of `WEIGHTS`; the folder has tokenizer.json already."""
    params = {stage: jax.tree.map(np.asarray, params[stage]) for stage in STAGES}
    if weights == "torch":
        torch_folders.write_detector(folder / "detector", params["detector"], recognition)
        torch_folders.write_recognizer(folder / "recognizer", params["recognizer"], recognition)
        return
    for stage, tree in params.items():
        if weights == "orbax":
            checkpoint.save_params(folder / stage, tree)
        else:
            flat = {name: np.ascontiguousarray(leaf) for name, leaf in _flat(tree).items()}
            save_file(flat, str(folder / f"{stage}.safetensors"))
    if weights == "stablehlo":
        stablehlo.write_programs(folder, params, recognition)
        write_text(folder / "predict.py", [stablehlo.EXAMPLE])


def open_exported(folder: str | Path) -> Exported:
    """Read an exported model, all of it, and check that it is whole.

    Args:
        folder: what `python -m scanner_jax.export` wrote.

    Raises:
        ExportError: no exported model, of a newer format, cut short or changed, or with another tokenizer.
    """
    folder = Path(folder)
    description = _described(folder)
    if _sha256(folder / "tokenizer.json") != description["tokenizer_sha256"]:
        raise ExportError(
            f"{folder / 'tokenizer.json'} is missing, or not the tokenizer that this model was trained with: its ids "
            f"would mean other words; put the model's own back, or {_EXPORT}"
        )
    _refuse_damage(folder)
    try:
        encoder, tokenizer = load_config(folder), load_tokenizer(folder)
    except (OSError, ValueError) as error:
        raise ExportError(f"{folder}: {error}") from error
    if tokenizer.largest_id >= encoder.vocab_size:
        raise ExportError(
            f"{folder}: tokenizer.json has ids up to {tokenizer.largest_id}, and config.json says vocab_size "
            f"{encoder.vocab_size}: they are not one model's; {_EXPORT}"
        )
    detection, recognition = stages_of(description, encoder, folder)
    params = {stage: _read_params(folder, stage, description["weights"]) for stage in STAGES}
    if problems := shape_problems(params, recognition):
        raise ExportError(f"{folder}: the weights do not fit config.json and scanner.json:\n  " + "\n  ".join(problems))
    return Exported(
        description=description,
        detection=detection,
        recognition=recognition,
        detector=params["detector"],
        recognizer=params["recognizer"],
        fingerprint=_sha256(folder / CHECKSUMS),
    )


def stages_of(
    description: Mapping[str, Any], encoder: EncoderConfig, tokenizer_folder: Path
) -> tuple[Detection, Recognition]:
    """What both stages are run with, as the recipe trained them, but for how batches are laid out."""
    tokenizer = load_tokenizer(tokenizer_folder)
    detection = Detection(
        encoder=encoder, tokenizer=tokenizer, max_tokens=encoder.max_tokens, eval_batch_size=1, fitted=True
    )
    recognition = Recognition(
        encoder=dataclasses.replace(encoder, vocab_size=encoder.vocab_size + 1),  # the row of <obj>
        tokenizer=tokenizer,
        types=tuple(description["types"]),
        max_tokens=description["max_tokens"],
        max_objects=description["max_objects"],
        eval_batch_size=1,
        fitted=True,
    )
    return detection, recognition


def shape_problems(params: Mapping[str, Params], recognition: Recognition) -> list[str]:
    """What does not fit, a line each: parameters that are missing, of another shape, or not the model's."""
    plain = dataclasses.replace(recognition.encoder, vocab_size=recognition.encoder.vocab_size - 1)
    count = len(recognition.classes)

    def fresh() -> dict[str, Params]:
        key = jax.random.key(0)
        encoder, grown = init_encoder(plain, key), init_encoder(recognition.encoder, key)
        return {
            "detector": init_detector(plain, encoder, key),
            "recognizer": init_recognizer(recognition.encoder, grown, key, num_types=count),
        }

    expected = {name: leaf.shape for name, leaf in _flat(jax.eval_shape(fresh)).items()}
    found = {name: np.shape(leaf) for name, leaf in _flat(params).items()}
    return [
        f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'nothing of that name')}"
        for name in sorted(expected | found)
        if expected.get(name) != found.get(name)
    ]


def _described(folder: Path) -> dict[str, Any]:
    """The content of scanner.json, with the fields that are read later."""
    path = folder / DESCRIPTION
    if not path.is_file():
        what = "no such folder" if not folder.is_dir() else f"no {DESCRIPTION} in it, so it is no exported model"
        raise ExportError(f"{folder}: {what}; make one: python -m scanner_jax.export WORKDIR FOLDER")
    try:
        found = read_json(path)
        written = int(found["format"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExportError(f"{path} is damaged or cut short ({error}); copy the folder again, or {_EXPORT}") from error
    if written > FORMAT:
        raise ExportError(
            f"{path} is of a newer format, {written}, and this version reads {FORMAT}; upgrade scanner_jax"
        )
    wrong = [name for name, kinds in _FIELDS.items() if type(found.get(name, ...)) not in kinds]
    if found.get("weights") not in WEIGHTS and "weights" not in wrong:
        wrong.append("weights")
    if wrong:
        raise ExportError(
            f"{path}: {', '.join(wrong)}: missing, or not of the kind that format {written} has; {_EXPORT}"
        )
    return dict(found)


def _refuse_damage(folder: Path) -> None:
    try:
        damaged = damaged_files(folder)
    except FileNotFoundError:
        damaged = [CHECKSUMS]
    if damaged:
        more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
        raise ExportError(
            f"{folder} is cut short or was changed: {', '.join(damaged[:3])}{more}; copy the folder again, or {_EXPORT}"
        )


def _read_params(folder: Path, stage: str, weights: str) -> Params:
    try:
        if weights == "torch":
            read = torch_folders.read_detector if stage == "detector" else torch_folders.read_recognizer
            return read(folder / stage)
        if weights == "orbax":
            return checkpoint.restore_params(folder / stage)
        return traverse_util.unflatten_dict(load_file(str(folder / f"{stage}.safetensors")), sep="/")
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ExportError(f"{folder}: the {stage}'s weights cannot be read ({error}); {_EXPORT}") from error


def _flat(tree: Any) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
