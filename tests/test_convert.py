"""Reading Hugging Face folders: every accepted form gives the same parameters, all others one clear error."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from safetensors.flax import save_file as save_flax
from safetensors.numpy import load_file, save_file

from scanner_jax.convert import add_token_row, fingerprint_encoder, load_encoder, resolve_encoder, tensor_names
from scanner_jax.encoder import Encoder, EncoderConfig, Params, init_encoder

SHAPE_ONLY = Path("models/xlm-roberta-large-shape")
CONFIG = EncoderConfig(
    model_type="xlm-roberta",
    vocab_size=31,
    hidden_size=8,
    num_layers=2,
    num_heads=2,
    intermediate_size=12,
    max_position_embeddings=10,
    type_vocab_size=1,
    pad_token_id=1,
)


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    """A checkpoint of CONFIG with Hugging Face's names and torch's orientation."""
    shapes = traverse_util.flatten_dict(jax.eval_shape(lambda: init_encoder(CONFIG, jax.random.key(0))), sep="/")
    rng = np.random.default_rng(0)
    return {
        name: rng.normal(size=shapes[path].shape[::-1] if transposed else shapes[path].shape).astype(np.float32)
        for name, (path, transposed) in tensor_names(CONFIG).items()
    }


def write(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_shards(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    write(folder, tensors)
    (folder / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in names}, folder / shard)
        weight_map |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def assert_holds(params: Params, tensors: dict[str, np.ndarray]) -> None:
    flat = traverse_util.flatten_dict(params, sep="/")
    names = tensor_names(CONFIG)
    assert {path for path, _ in names.values()} == set(flat)
    for name, (path, transposed) in names.items():
        assert flat[path].dtype == jnp.float32
        np.testing.assert_array_equal(flat[path].T if transposed else flat[path], tensors[name])


def test_single_file(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    config, params = load_encoder(write(tmp_path, tensors))
    assert config == CONFIG
    assert_holds(params, tensors)
    shapes = jax.tree.map(lambda leaf: leaf.shape, init_encoder(config, jax.random.key(0)))
    assert jax.tree.map(lambda leaf: leaf.shape, params) == shapes


def test_shards(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    assert_holds(load_encoder(write_shards(tmp_path, tensors))[1], tensors)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision(tmp_path: Path, tensors: dict[str, np.ndarray], dtype: jnp.dtype) -> None:
    write(tmp_path, tensors)
    half = {name: jnp.asarray(tensor, dtype) for name, tensor in tensors.items()}
    save_flax(half, tmp_path / "model.safetensors")
    assert_holds(load_encoder(tmp_path)[1], {name: np.asarray(tensor, np.float32) for name, tensor in half.items()})


@pytest.mark.parametrize("prefix", ["roberta.", "bert."])
def test_prefixes_old_names_and_what_is_not_needed(tmp_path: Path, tensors: dict[str, np.ndarray], prefix: str) -> None:
    def old(name: str) -> str:
        return prefix + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    other = np.zeros(3, np.float32)
    extra = ("pooler.dense.weight", "embeddings.position_ids")
    heads = ("lm_head.dense.weight", "cls.predictions.bias", "classifier.out_proj.bias")
    written = {old(name): tensor for name, tensor in tensors.items()}
    write(tmp_path, written | {prefix + name: other for name in extra} | dict.fromkeys(heads, other))
    assert_holds(load_encoder(tmp_path)[1], tensors)


@pytest.mark.parametrize("family", ["XLMRoberta", "Roberta", "Bert"])
def test_checkpoints_with_a_head_as_hugging_face_saves_them(
    transformers: ModuleType, tmp_path: Path, family: str
) -> None:
    config = getattr(transformers, f"{family}Config")(
        vocab_size=31,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=10,
        type_vocab_size=1,
    )
    model = getattr(transformers, f"{family}ForMaskedLM")(config)
    model.save_pretrained(tmp_path)
    _, params = load_encoder(tmp_path)
    assert_holds(params, {name: tensor.numpy() for name, tensor in model.base_model.state_dict().items()})


def test_one_error_names_all_that_does_not_fit(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    del tensors["encoder.layer.1.output.dense.bias"], tensors["embeddings.LayerNorm.weight"]
    tensors["embeddings.word_embeddings.weight"] = np.zeros((30, 8), np.float32)
    tensors["encoder.layer.0.attention.self.key.bias"] = np.zeros(8, np.float64)
    tensors["encoder.layer.2.output.dense.bias"] = np.zeros(8, np.float32)
    tensors["roberta.embeddings.LayerNorm.bias"] = np.zeros(8, np.float32)
    with pytest.raises(ValueError, match="do not fit") as error:
        load_encoder(write(tmp_path, tensors))
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert sorted(lines) == [
        "embeddings.LayerNorm.weight: missing",
        "embeddings.word_embeddings.weight: shape (30, 8), expected (31, 8)",
        "encoder.layer.0.attention.self.key.bias: type F64, accepted: F32, F16, BF16",
        "encoder.layer.1.output.dense.bias: missing",
        "encoder.layer.2.output.dense.bias: not a part of this encoder (2 layers)",
        "roberta.embeddings.LayerNorm.bias: second tensor for embeddings/layer_norm/bias, "
        "after embeddings.LayerNorm.bias",
    ]


def test_transposed_kernel_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    name = "encoder.layer.0.intermediate.dense.weight"
    with pytest.raises(ValueError, match=re.escape(f"{name}: shape (8, 12), expected (12, 8)")):
        load_encoder(write(tmp_path, tensors | {name: np.ascontiguousarray(tensors[name].T)}))


def test_shards_that_do_not_match_their_index(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    index = write_shards(tmp_path, tensors) / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    first, second = sorted(set(weight_map.values()))
    moved = next(name for name, file in weight_map.items() if file == first)

    index.write_text(json.dumps({"weight_map": weight_map | {moved: second}}))
    with pytest.raises(ValueError, match=re.escape(f"{moved}: not in {second}")):
        load_encoder(tmp_path)

    index.write_text(json.dumps({"weight_map": weight_map | {moved: "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="must lie in the same folder"):
        load_encoder(tmp_path)

    index.write_text(json.dumps({"weight_map": weight_map}))
    save_file(load_file(tmp_path / first) | {"stray": np.zeros(1, np.float32)}, tmp_path / first)
    with pytest.raises(ValueError, match="stray: not a part of this encoder"):
        load_encoder(tmp_path)

    (tmp_path / second).unlink()
    with pytest.raises(FileNotFoundError, match=f"shards that are missing: {second}"):
        load_encoder(tmp_path)


def test_cut_off_file(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    file = write(tmp_path, tensors) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_encoder(tmp_path)


def test_pickles_are_refused_and_the_advised_line_works(
    transformers: ModuleType, tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    import torch

    (write(tmp_path, tensors) / "model.safetensors").unlink()
    torch.save({name: torch.tensor(tensor) for name, tensor in tensors.items()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"only pytorch_model\.bin") as error:
        load_encoder(tmp_path)
    code = re.search(r'python -c "(.+)"$', str(error.value))
    assert code is not None
    exec(code[1])
    assert_holds(load_encoder(tmp_path)[1], tensors)


@pytest.mark.parametrize(
    ("content", "message"), [(None, "config.json is missing"), ("{", "is not JSON"), ("[]", "expected a JSON object")]
)
def test_bad_config(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load_encoder(tmp_path)


@pytest.mark.skipif(not SHAPE_ONLY.is_dir(), reason=f"{SHAPE_ONLY} is missing")
def test_folder_without_weights() -> None:
    for read in (load_encoder, fingerprint_encoder):
        with pytest.raises(FileNotFoundError, match=r"the weights are missing; put model\.safetensors there"):
            read(SHAPE_ONLY)


def test_resolve(tmp_path: Path) -> None:
    assert resolve_encoder(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError, match=r"hub did not give it.*put it under models/"):
        resolve_encoder("nobody/has-this-encoder")
    for local in ("models/has-no-such-folder", "./nothing", str(tmp_path / "nothing")):
        with pytest.raises(FileNotFoundError, match=r"no such folder; give a folder.*put it under models/"):
            resolve_encoder(local)


def test_fingerprint_follows_content_alone(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    folder = write(tmp_path / "one", tensors)
    (folder / "tokenizer.json").write_text("{}")
    first = fingerprint_encoder(folder)
    shutil.copytree(folder, tmp_path / "two", copy_function=shutil.copyfile)
    (tmp_path / "two" / "README.md").write_text("about the model")
    assert fingerprint_encoder(tmp_path / "two") == first
    seen = {first}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content + b" ")
        seen.add(fingerprint_encoder(folder))
        (folder / name).write_bytes(content)
    assert len(seen) == 4
    assert fingerprint_encoder(folder) == first


def test_added_token_row() -> None:
    params = init_encoder(CONFIG, jax.random.key(0))
    longer = add_token_row(params)
    table = params["embeddings"]["word"]["embedding"]
    new = longer["embeddings"]["word"]["embedding"]
    assert table.shape[0] == CONFIG.vocab_size, "the parameters given stay as they are"
    np.testing.assert_array_equal(new[:-1], table)
    np.testing.assert_allclose(new[-1], np.asarray(table).mean(axis=0), atol=1e-7)
    row = jnp.arange(8.0)
    np.testing.assert_array_equal(add_token_row(params, row=row)["embeddings"]["word"]["embedding"][-1], row)

    config = dataclasses.replace(CONFIG, vocab_size=CONFIG.vocab_size + 1)
    ids = jnp.array([[0, CONFIG.vocab_size, 2]])
    out = Encoder(config).apply({"params": longer}, ids, jnp.ones_like(ids, bool), deterministic=True)
    assert isinstance(out, jax.Array)
    assert jnp.isfinite(out).all()
