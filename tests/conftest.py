"""What all tests share: offline, on the CPU, and a way to torch's models as oracles."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

# Before anything imports jax or huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest
import torchvision_shim

from scanner_jax.tokens import Tokenizer, load_tokenizer

TINY_WORDS = (
    "The entity is for in this sentence . , ' - : # @ < > ( ) "
    "Mira Okafor visits Lake Tamsin with the Reds band today and we love it so much "
    "a an of on at player city club person lake dog red car man woman photo mask obj s pad"
).split()
"""The prompt's own words and some for invented tweets; each piece between blanks and punctuation is one token."""


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Commands say how much is logged, for their process; the next test's is the same one."""
    levels = {name: logging.getLogger(name).level for name in ("", "scanner_jax", "jax", "absl", "asyncio")}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the fixtures that they share, write nothing to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def compiling_as_it_was() -> Iterator[None]:
    """No test finds what another one compiled."""
    yield
    if "jax" in sys.modules:
        import jax
        from jax.experimental.compilation_cache import compilation_cache

        if jax.config.values["jax_compilation_cache_dir"]:
            jax.config.update("jax_compilation_cache_dir", None)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
            compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    """Hugging Face's package with its torch classes, whatever torchvision there is."""
    torchvision_shim.declare_operators()
    import torch
    import transformers

    torch.set_num_threads(1)  # more cost time on models so small

    return transformers


@pytest.fixture(scope="session")
def tiny_clip(transformers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make the folder of a CLIP model, as `tiny_experts.write_clip` does."""
    from tiny_experts import write_clip

    def make(seed: int = 0, **model_cfg: object) -> Path:
        folder = tmp_path_factory.mktemp("clip")
        write_clip(folder, seed=seed, **model_cfg)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_experts(transformers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny random experts: blip2, dfine, detr, clip."""
    from tiny_experts import write_experts

    folder = tmp_path_factory.mktemp("experts")
    write_experts(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A tokenizer that splits at blanks and punctuation; it knows `TINY_WORDS`, the rest is unknown."""
    folder = tmp_path_factory.mktemp("tokenizer")
    _write_tokenizer(folder, TINY_WORDS)
    return load_tokenizer(folder)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Path]:
    """Make an encoder's folder over given words: RoBERTa, 2 layers, 16 wide, at most 128 tokens, random weights."""

    def make(words: Sequence[str]) -> Path:
        folder = tmp_path_factory.mktemp("encoder")
        vocab_size = _write_tokenizer(folder, words)
        config = {
            "model_type": "roberta",
            "vocab_size": vocab_size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 130,
            "type_vocab_size": 1,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 1,
        }
        (folder / "config.json").write_text(json.dumps(config))
        _write_weights(folder)
        return folder

    return make


def _write_tokenizer(folder: Path, words: Sequence[str]) -> int:
    """Write tokenizer.json with RoBERTa's special tokens, at its ids; return the size of the vocabulary."""
    import tokenizers

    tokens = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *words, "<mask>"]))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    backend.save(str(folder / "tokenizer.json"))
    return len(tokens)


def _write_weights(folder: Path) -> None:
    """Fill model.safetensors with seeded noise, wide enough that every token and position matters."""
    import jax
    import numpy as np
    from flax import traverse_util
    from safetensors.numpy import save_file

    from scanner_jax.convert import load_config, tensor_names
    from scanner_jax.encoder import init_encoder

    config = load_config(folder)
    shapes = traverse_util.flatten_dict(jax.eval_shape(lambda: init_encoder(config, jax.random.key(0))), sep="/")
    rng = np.random.default_rng(0)
    tensors = {}
    for name, (path, transposed) in tensor_names(config).items():
        value = rng.normal(float(path.endswith("scale")), 0.2, shapes[path].shape).astype(np.float32)
        tensors[f"roberta.{name}"] = np.ascontiguousarray(value.T if transposed else value)
    save_file(tensors, str(folder / "model.safetensors"))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Callable[[Sequence[str]], Path]) -> Path:
    """The workdir of a tiny recipe with random students: grounded, and told captions, objects, Wikipedia texts."""
    from tiny_recipe import finish, write_grounded_world

    return finish(write_grounded_world(tmp_path_factory.mktemp("world"), tiny_encoder), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def experts_process() -> Iterator[None]:
    """Let the process of `scanner_jax.experts` import torchvision as the tests do, and compute with as many threads."""
    from scanner_jax import experts

    def popen(command: Sequence[str], **options: Any) -> Any:
        here = {"PYTHONPATH": str(Path(experts.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([command[0], torchvision_shim.__file__, *command[1:]], env=os.environ | here, **options)

    names = {name: getattr(subprocess, name) for name in ("PIPE", "TimeoutExpired")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experts, "subprocess", SimpleNamespace(Popen=popen, **names))
        yield
