"""Both stages as folders that Hugging Face's transformers opens; written and read without torch.

The detector is an `AutoModelForTokenClassification`. The recognizer is an `AutoModel` whose word embeddings have one
more row, that of `<obj>`, and `heads.safetensors` beside it, which `EXAMPLE` applies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from scanner_jax.convert import load_encoder, tensor_names
from scanner_jax.encoder import EncoderConfig, Params
from scanner_jax.files import write_json
from scanner_jax.recognition import Recognition
from scanner_jax.tokens import Tokenizer
from scanner_jax.types import BIO

ARCHITECTURES = {"xlm-roberta": "XLMRoberta", "roberta": "Roberta", "bert": "Bert"}

HEADS = "heads.safetensors"

EXAMPLE = """\
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForTokenClassification


def detector_logits(folder, token_ids):
    \"\"\"O, B or I for every token; of a word its first token counts. token_ids: (1, t), <s> and </s> included.\"\"\"
    with torch.inference_mode():
        return AutoModelForTokenClassification.from_pretrained(f"{folder}/detector")(token_ids).logits


def recognizer_logits(folder, token_ids, mask_position, object_positions):
    \"\"\"The types' logits at <mask>, and at each <obj> that of its overlap with the entity.\"\"\"
    model = AutoModel.from_pretrained(f"{folder}/recognizer", add_pooling_layer=False)
    heads = load_file(f"{folder}/recognizer/heads.safetensors")
    with torch.inference_mode():
        hidden = model(token_ids).last_hidden_state[0]
    types = hidden[mask_position] @ heads["types.weight"].T + heads["types.bias"]
    overlaps = hidden[object_positions] @ heads["overlap.weight"][0] + heads["overlap.bias"]
    return types, overlaps
"""
"""What the model card shows, and a test runs."""


def write_detector(folder: Path, params: Params, recognition: Recognition) -> None:
    """Write the detector; `folder`'s parent has tokenizer.json."""
    tensors = _encoder_tensors(params["encoder"], recognition.encoder, _prefix(recognition.encoder))
    tensors |= _dense_tensors("classifier", params["tags"])
    labels = {index: tag if tag == "O" else f"{tag}-ENTITY" for index, tag in enumerate(BIO)}
    rows = recognition.encoder.vocab_size - 1
    _write(folder, tensors, _config(recognition, "ForTokenClassification", labels, rows), recognition.tokenizer)


def write_recognizer(folder: Path, params: Params, recognition: Recognition) -> None:
    """Write the recognizer and its heads; `folder`'s parent has tokenizer.json."""
    tensors = _encoder_tensors(params["encoder"], recognition.encoder, "")
    config = _config(recognition, "Model", dict(enumerate(recognition.classes)), recognition.encoder.vocab_size)
    _write(folder, tensors, config, recognition.tokenizer)
    heads = {**_dense_tensors("types", params["types"]), **_dense_tensors("overlap", params["overlap"])}
    save_file(heads, str(folder / HEADS), metadata={"format": "pt"})


def read_detector(folder: Path) -> Params:
    """Read what `write_detector` wrote.

    Raises:
        OSError: a file is missing.
        ValueError, KeyError: a file does not fit.
    """
    return {"encoder": _encoder(folder), "tags": _dense("classifier", load_file(str(folder / "model.safetensors")))}


def read_recognizer(folder: Path) -> Params:
    """Read what `write_recognizer` wrote; errors as of `read_detector`."""
    heads = load_file(str(folder / HEADS))
    return {"encoder": _encoder(folder), "types": _dense("types", heads), "overlap": _dense("overlap", heads)}


def _write(folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any], tokenizer: Tokenizer) -> None:
    folder.mkdir()
    save_file(dict(tensors), str(folder / "model.safetensors"), metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    shutil.copy(folder.parent / "tokenizer.json", folder)
    names = {"bos": "start", "cls": "start", "eos": "end", "sep": "end", "pad": "pad", "mask": "mask", "unk": "unknown"}
    spelt = {f"{key}_token": tokenizer.backend.id_to_token(getattr(tokenizer, name)) for key, name in names.items()}
    # Of a word that follows a blank, as RoBERTa's tokenizer has it for the first one as well.
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "add_prefix_space": True, **spelt},
    )


def _config(recognition: Recognition, suffix: str, labels: Mapping[int, str], rows: int) -> dict[str, Any]:
    encoder = recognition.encoder
    return {
        **encoder.to_dict(),
        "vocab_size": rows,
        "architectures": [ARCHITECTURES[encoder.model_type] + suffix],
        "id2label": {str(index): label for index, label in labels.items()},
        "label2id": {label: index for index, label in labels.items()},
        "dtype": "float32",
    }


def _prefix(encoder: EncoderConfig) -> str:
    return "bert." if encoder.model_type == "bert" else "roberta."


def _encoder_tensors(params: Params, config: EncoderConfig, prefix: str) -> dict[str, np.ndarray]:
    flat = traverse_util.flatten_dict(params, sep="/")
    return {
        f"{prefix}{name}": np.ascontiguousarray(flat[path].T if transposed else flat[path], np.float32)
        for name, (path, transposed) in tensor_names(config).items()
    }


def _dense_tensors(name: str, params: Params) -> dict[str, np.ndarray]:
    weight = np.ascontiguousarray(params["kernel"].T, np.float32)
    return {f"{name}.weight": weight, f"{name}.bias": np.asarray(params["bias"], np.float32)}


def _encoder(folder: Path) -> Params:
    return load_encoder(folder)[1]


def _dense(name: str, tensors: Mapping[str, np.ndarray]) -> Params:
    return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}
