"""Read an encoder from a Hugging Face folder: config.json and safetensors, strictly both ways.

Every tensor of the checkpoint is used once or is on the list of things an encoder does not need, and every
parameter is filled once; otherwise one error names everything that does not fit. Pickles are never read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import safetensors
from flax import traverse_util
from jaxtyping import Array, Float

from scanner_jax.encoder import EncoderConfig, Params, init_encoder

logger = logging.getLogger(__name__)

# Checkpoint tensor -> our parameter, and whether it is transposed (torch keeps Dense kernels as out x in).
# `{}` is the layer's number. Prefixes and the old LayerNorm names are taken off before.
_TABLE: tuple[tuple[str, str, bool], ...] = (
    ("embeddings.word_embeddings.weight", "embeddings/word/embedding", False),
    ("embeddings.position_embeddings.weight", "embeddings/position/embedding", False),
    ("embeddings.token_type_embeddings.weight", "embeddings/token_type/embedding", False),
    ("embeddings.LayerNorm.weight", "embeddings/layer_norm/scale", False),
    ("embeddings.LayerNorm.bias", "embeddings/layer_norm/bias", False),
    ("encoder.layer.{}.attention.self.query.weight", "layer_{}/attention/query/kernel", True),
    ("encoder.layer.{}.attention.self.query.bias", "layer_{}/attention/query/bias", False),
    ("encoder.layer.{}.attention.self.key.weight", "layer_{}/attention/key/kernel", True),
    ("encoder.layer.{}.attention.self.key.bias", "layer_{}/attention/key/bias", False),
    ("encoder.layer.{}.attention.self.value.weight", "layer_{}/attention/value/kernel", True),
    ("encoder.layer.{}.attention.self.value.bias", "layer_{}/attention/value/bias", False),
    ("encoder.layer.{}.attention.output.dense.weight", "layer_{}/attention/out/kernel", True),
    ("encoder.layer.{}.attention.output.dense.bias", "layer_{}/attention/out/bias", False),
    ("encoder.layer.{}.attention.output.LayerNorm.weight", "layer_{}/attention/layer_norm/scale", False),
    ("encoder.layer.{}.attention.output.LayerNorm.bias", "layer_{}/attention/layer_norm/bias", False),
    ("encoder.layer.{}.intermediate.dense.weight", "layer_{}/feed_forward/up/kernel", True),
    ("encoder.layer.{}.intermediate.dense.bias", "layer_{}/feed_forward/up/bias", False),
    ("encoder.layer.{}.output.dense.weight", "layer_{}/feed_forward/down/kernel", True),
    ("encoder.layer.{}.output.dense.bias", "layer_{}/feed_forward/down/bias", False),
    ("encoder.layer.{}.output.LayerNorm.weight", "layer_{}/feed_forward/layer_norm/scale", False),
    ("encoder.layer.{}.output.LayerNorm.bias", "layer_{}/feed_forward/layer_norm/bias", False),
)

# Poolers, the heads of pretraining and of other tasks, and buffers that some versions wrote.
_IGNORED = ("pooler.", "lm_head.", "cls.", "classifier.", "qa_outputs.")
_IGNORED_BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")

_PREFIXES = ("roberta.", "bert.")
_DTYPES = ("F32", "F16", "BF16")

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
)
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor as it lies in a file, unread."""

    name: str
    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def plain_name(self) -> str:
        """The name without a model prefix and with today's LayerNorm names."""
        prefix = next((p for p in _PREFIXES if self.name.startswith(p)), "")
        name = self.name.removeprefix(prefix)
        return re.sub(r"LayerNorm\.(gamma|beta)$", _new_layer_norm_name, name)

    @property
    def ignored(self) -> bool:
        return self.plain_name.startswith(_IGNORED) or self.plain_name in _IGNORED_BUFFERS


def _new_layer_norm_name(old: re.Match[str]) -> str:
    return "LayerNorm.weight" if old[1] == "gamma" else "LayerNorm.bias"


def resolve_encoder(name_or_folder: str | Path) -> Path:
    """Find an encoder's folder: a local one as it is, anything else by its name on the Hugging Face hub.

    Only config, tokenizer and safetensors files are fetched; what the hub's cache holds works offline.

    Raises:
        FileNotFoundError: no such folder, and the hub does not give it.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    advice = "give a folder with config.json, model.safetensors and the tokenizer (put it under models/)"
    name = str(name_or_folder)
    # `models/x` has the form of a hub name too, but is where local encoders lie.
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith(("models/", ".")):
        raise FileNotFoundError(f"encoder {name!r}: no such folder; {advice}, or a name on the Hugging Face hub")
    patterns = ["config.json", _SINGLE, _INDEX, "model-*.safetensors", *_TOKENIZER_FILES]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"encoder {name!r}: no such folder, and the Hugging Face hub did not give it ({reason}); "
            f"check the name and the connection, or {advice}"
        ) from error


def load_encoder(folder: str | Path) -> tuple[EncoderConfig, Params]:
    """Read config and weights of an `xlm-roberta`, `roberta` or `bert` checkpoint.

    Args:
        folder: holds config.json and model.safetensors, or the shards that model.safetensors.index.json
            names; float32, float16 or bfloat16.

    Returns:
        The config, and the parameters of `Encoder` in float32.

    Raises:
        FileNotFoundError: config.json or the weights are missing.
        ValueError: unsupported settings, or tensors that do not fit; all of them in one message.
    """
    folder = Path(folder)
    config = load_config(folder)
    files, problems = _weight_files(folder)
    sources, mismatches = _match(config, [tensor for file in files for tensor in _list_tensors(file)])
    if problems := problems + mismatches:
        raise ValueError(f"{folder}: the weights do not fit config.json:\n  " + "\n  ".join(problems))
    return config, traverse_util.unflatten_dict(dict(_read(files, sources)), sep="/")


def load_config(folder: str | Path) -> EncoderConfig:
    """Read a folder's config.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not JSON, or holds unsupported settings.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: an encoder's folder needs its Hugging Face config.json")
    return EncoderConfig.from_dict(_read_json_object(path))


def tensor_names(config: EncoderConfig) -> dict[str, tuple[str, bool]]:
    """The checkpoint's tensors: Hugging Face name -> (our path joined by slashes, whether transposed)."""
    return {
        name.format(layer): (path.format(layer), transposed)
        for name, path, transposed in _TABLE
        for layer in (range(config.num_layers) if "{}" in name else range(1))
    }


def fingerprint_encoder(folder: str | Path) -> str:
    """Sha256 over what is read of a folder: config.json, tokenizer.json and the weights, by name and content.

    Raises:
        FileNotFoundError: config.json or the weights are missing.
    """
    folder = Path(folder)
    weights, problems = _weight_files(folder)
    if problems:
        raise FileNotFoundError("\n".join(problems))
    digest = hashlib.sha256()
    for path in sorted([folder / "config.json", *folder.glob("tokenizer.json"), *weights]):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def add_token_row(params: Params, *, row: Float[Array, " d"] | None = None) -> Params:
    """Append one row to an encoder's word embeddings, for an added token such as `<obj>`.

    The new token's id is the old number of rows; `EncoderConfig.vocab_size` grows by one with it.

    **Assumption:** the paper does not say how `<obj>` starts; by default as the mean of the table.

    Args:
        params: the parameters of `Encoder`; left as they are.
        row: the new row.

    Returns:
        The parameters with the longer table.
    """
    table = params["embeddings"]["word"]["embedding"]
    row = table.mean(axis=0) if row is None else row
    word = {"embedding": jnp.concatenate([table, row[None].astype(table.dtype)])}
    return params | {"embeddings": params["embeddings"] | {"word": word}}


def _weight_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The safetensors files of a folder, and what is wrong with their index."""
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE], []
    if (folder / _INDEX).is_file():
        return _shards(folder / _INDEX)
    if list(folder.glob("pytorch_model*.bin")):
        raise FileNotFoundError(
            f"{folder} has only pytorch_model.bin, a pickle, which is never read here because it can run code. "
            "If you trust it, convert it once with:\n  "
            f'python -c "from transformers import AutoModel as M; '
            f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    raise FileNotFoundError(f"{folder}: the weights are missing; put {_SINGLE} there (or its shards and {_INDEX})")


def _shards(index: Path) -> tuple[list[Path], list[str]]:
    weight_map = _read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{index}: expected an object `weight_map` from tensor to file")
    names = sorted(set(weight_map.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{index}: shards must lie in the same folder, not at {', '.join(outside)}")
    files = [index.parent / name for name in names]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise FileNotFoundError(f"{index} names shards that are missing: {', '.join(absent)}")
    held = {file.name: {tensor.name for tensor in _list_tensors(file)} for file in files}
    wrong = [tensor for tensor, name in weight_map.items() if tensor not in held[name]]
    return files, [f"{tensor}: not in {weight_map[tensor]}, where {index.name} puts it" for tensor in wrong]


def _list_tensors(file: Path) -> list[_Tensor]:
    try:
        with safetensors.safe_open(file, framework="flax") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
            return [_Tensor(name, file, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()]
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file ({error}); fetch or copy it again") from error


def _match(config: EncoderConfig, tensors: Sequence[_Tensor]) -> tuple[dict[str, tuple[_Tensor, bool]], list[str]]:
    """Pair parameters with tensors: path -> (tensor, transposed), and a line for all that does not fit."""
    shapes = _parameter_shapes(config)
    table = tensor_names(config)
    sources: dict[str, tuple[_Tensor, bool]] = {}
    problems: list[str] = []
    for tensor in tensors:
        if tensor.ignored:
            continue
        if tensor.plain_name not in table:
            problems.append(f"{tensor.name}: not a part of this encoder ({config.num_layers} layers)")
            continue
        path, transposed = table[tensor.plain_name]
        expected = shapes[path][::-1] if transposed else shapes[path]
        if path in sources:
            problems.append(f"{tensor.name}: second tensor for {path}, after {sources[path][0].name}")
        if tensor.shape != expected:
            problems.append(f"{tensor.name}: shape {tensor.shape}, expected {expected}")
        if tensor.dtype not in _DTYPES:
            problems.append(f"{tensor.name}: type {tensor.dtype}, accepted: {', '.join(_DTYPES)}")
        sources.setdefault(path, (tensor, transposed))
    missing = [name for name, (path, _) in table.items() if path not in sources]
    ignored = [tensor.name for tensor in tensors if tensor.ignored]
    logger.info("tensors used: %d; not needed by an encoder: %s", len(sources), ", ".join(ignored) or "none")
    return sources, problems + [f"{name}: missing" for name in missing]


def _parameter_shapes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(lambda: init_encoder(config, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(shapes, sep="/").items()}


def _read(files: Iterable[Path], sources: Mapping[str, tuple[_Tensor, bool]]) -> Iterable[tuple[str, jax.Array]]:
    for file in files:
        with safetensors.safe_open(file, framework="flax") as opened:
            for path, (tensor, transposed) in sources.items():
                if tensor.file == file:
                    value = opened.get_tensor(tensor.name).astype(jnp.float32)
                    yield path, value.T if transposed else value


def _read_json_object(path: Path) -> Mapping[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if isinstance(content, dict):
        return content
    raise ValueError(f"{path}: expected a JSON object, found {type(content).__name__}")
