"""`--format torch` of each family of encoders: transformers' own classes give our logits, and our reader the arrays."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
import tokenizers

from scanner_jax.encoder import EncoderConfig, Params, init_encoder
from scanner_jax.models import SpanDetector, init_detector, init_recognizer
from scanner_jax.recognition import Recognition
from scanner_jax.tokens import load_tokenizer
from scanner_jax.torch_folders import EXAMPLE, read_detector, read_recognizer, write_detector, write_recognizer

SPELLINGS = {
    "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
}
WORDS = ["The", "entity", "is", "Ada", "saw", "Lake", "Mira"]


def write_tokenizer(folder: Path, family: str) -> int:
    """Write tokenizer.json with the family's special tokens, in its order; return the size of the vocabulary."""
    special = SPELLINGS[family]
    vocabulary = {token: number for number, token in enumerate([*special, *WORDS])}
    unknown = next(token for token in special if "unk" in token.lower())
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=unknown))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens(special)
    backend.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


@pytest.fixture(params=SPELLINGS, scope="module")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recognition, Any]:
    """An export's two folders, what its recognizer is run with, and both stages' random parameters."""
    folder = tmp_path_factory.mktemp(request.param)
    config = {
        "model_type": request.param,
        "vocab_size": write_tokenizer(folder, request.param),
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 40,
        "type_vocab_size": 2 if request.param == "bert" else 1,
        "layer_norm_eps": 1e-12 if request.param == "bert" else 1e-5,
        "initializer_range": 0.4,  # so wide that every token and position matters
    }
    plain = EncoderConfig.from_dict(config)
    grown = EncoderConfig.from_dict(config | {"vocab_size": config["vocab_size"] + 1})
    keys = [jax.random.key(number) for number in range(4)]
    params = {
        "detector": init_detector(plain, init_encoder(plain, keys[0]), keys[1]),
        "recognizer": init_recognizer(grown, init_encoder(grown, keys[2]), keys[3], num_types=4),
    }
    params = jax.tree.map(lambda leaf: np.asarray(leaf + 0.01), params)  # biases that are not 0 either
    recognition = Recognition(
        encoder=grown, tokenizer=load_tokenizer(folder), types=("LOC", "ORG", "PER"), max_tokens=40, max_objects=2,
        eval_batch_size=1,
    )  # fmt: skip
    write_detector(folder / "detector", params["detector"], recognition)
    write_recognizer(folder / "recognizer", params["recognizer"], recognition)
    return folder, recognition, params


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    """What the model card's code defines."""
    there: dict[str, Any] = {}
    exec(EXAMPLE, there)
    return there


def ids_of(recognition: Recognition, text: str) -> list[int]:
    tokenizer = recognition.tokenizer
    return [tokenizer.start, *tokenizer.text(text), tokenizer.end]


def test_the_detector(made: tuple[Path, Recognition, Params], card: dict[str, Any], transformers: ModuleType) -> None:
    import torch

    folder, recognition, params = made
    ids = ids_of(recognition, "saw Ada , Lake Mira")
    model = SpanDetector(EncoderConfig.from_dict(recognition.encoder.to_dict() | {"vocab_size": 12}))
    token_ids = np.array([ids], np.int32)
    ours = model.apply({"params": params["detector"]}, token_ids, token_ids >= 0, deterministic=True)
    theirs = card["detector_logits"](folder, torch.tensor([ids]))
    np.testing.assert_allclose(theirs.numpy(), ours, atol=2e-5)
    assert np.ptp(ours) > 0.1
    opened = transformers.AutoModelForTokenClassification.from_pretrained(folder / "detector")
    assert opened.config.model_type == recognition.encoder.model_type
    assert opened.config.id2label == {0: "O", 1: "B-ENTITY", 2: "I-ENTITY"}


def test_the_recognizer(made: tuple[Path, Recognition, Params], card: dict[str, Any], transformers: ModuleType) -> None:
    import torch

    folder, recognition, params = made
    ids = ids_of(recognition, "The entity is Ada")
    ids[4:4] = [recognition.tokenizer.mask, recognition.object_token, recognition.object_token]
    token_ids = np.array([ids], np.int32)
    places = np.array([4], np.int32), np.array([[5, 6]], np.int32)
    ours = recognition.model.apply(
        {"params": params["recognizer"]}, token_ids, token_ids >= 0, *places, deterministic=True
    )
    theirs = card["recognizer_logits"](folder, torch.tensor([ids]), 4, [5, 6])
    for found, expected in zip(theirs, ours, strict=True):
        np.testing.assert_allclose(found.numpy(), expected[0], atol=2e-5)
        assert np.ptp(expected) > 0.1


def test_both_are_read_back(made: tuple[Path, Recognition, Params]) -> None:
    folder, _, params = made
    jax.tree.map(np.testing.assert_array_equal, read_detector(folder / "detector"), params["detector"])
    jax.tree.map(np.testing.assert_array_equal, read_recognizer(folder / "recognizer"), params["recognizer"])


def test_the_tokenizer(made: tuple[Path, Recognition, Params], transformers: ModuleType) -> None:
    folder, recognition, _ = made
    own = recognition.tokenizer
    for stage in ("detector", "recognizer"):
        found = transformers.AutoTokenizer.from_pretrained(folder / stage)
        special = found.cls_token_id, found.sep_token_id, found.pad_token_id, found.mask_token_id, found.unk_token_id
        assert special == (own.start, own.end, own.pad, own.mask, own.unknown)
        words = ["saw", "Lake", "elsewhere"]
        ids = found(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
        assert ids == [token for word in next(own.words([words])) for token in word]
