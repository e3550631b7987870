"""What an encoder is, and how it is computed: sizes and rates from a checkpoint's config.json; scan, remat, fusion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

Params = dict[str, Any]
"""A nested dict whose leaves are arrays."""

MODEL_TYPES = ("xlm-roberta", "roberta", "bert")

# Field of EncoderConfig -> its key in a Hugging Face config.json.
_KEYS = {
    "model_type": "model_type",
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "type_vocab_size": "type_vocab_size",
    "layer_norm_eps": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "pad_token_id": "pad_token_id",
    "initializer_range": "initializer_range",
}

# Keys that change the forward pass -> the values this encoder computes (a missing key or null is fine).
_SUPPORTED: dict[str, tuple[object, ...]] = {
    "model_type": MODEL_TYPES,
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "pruned_heads": ({},),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """The sizes and rates of an encoder; the names of its fields in a config.json are Hugging Face's.

    Attributes:
        model_type: "xlm-roberta", "roberta" or "bert"; decides how positions are counted.
        max_position_embeddings: rows of the position table; see `max_tokens` for the usable length.
        hidden_dropout: rate on the embeddings and on each block's output.
        attention_dropout: rate on the attention probabilities.
        initializer_range: standard deviation of fresh kernels and embeddings.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    pad_token_id: int
    initializer_range: float = 0.02

    @property
    def max_tokens(self) -> int:
        """The longest sequence, special tokens included: RoBERTa's positions begin behind the pad id."""
        if self.model_type == "bert":
            return self.max_position_embeddings
        return self.max_position_embeddings - self.pad_token_id - 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EncoderConfig:
        """Read the content of a Hugging Face config.json; other keys are ignored, missing ones default.

        Raises:
            ValueError: settings this encoder does not compute, or sizes that are missing or do not fit;
                all of them in one message.
        """
        given = {key: value for key, value in values.items() if value is not None}
        given.setdefault("pad_token_id", 0 if given.get("model_type") == "bert" else 1)
        problems = _config_problems(given)
        if problems:
            raise ValueError("this encoder's config.json cannot be used:\n  " + "\n  ".join(problems))
        return cls(**{field: given[key] for field, key in _KEYS.items() if key in given})

    def to_dict(self) -> dict[str, Any]:
        """Write the config under Hugging Face's keys; `from_dict` reads it back equal."""
        return {key: getattr(self, field) for field, key in _KEYS.items()} | {"hidden_act": "gelu"}


REMAT = ("none", "dots", "layers")
"""What a layer keeps for the backward pass: everything, the results of its Dense layers, or nothing but its input."""

COMPUTE_DTYPES = ("float32", "bfloat16")
"""What layers compute in. Parameters, and so their gradients and moments, are float32 either way."""

ATTENTION = ("auto", "xla", "cudnn")
"""Kernels of attention; `attention.py` says which can what."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """How an encoder's layers are computed: other programs for the same function, dropout's draws included.

    The parameters' tree does not depend on it; neither does what is learned, but for the order of floating-point sums,
    and for what bfloat16 rounds.

    Attributes:
        compute_dtype: one of `COMPUTE_DTYPES`; `layers.py` says what stays float32 in bfloat16. The vectors that leave
            the encoder are float32, so that heads, logits and losses are too.
        attention: one of `ATTENTION`: what computes attention.
        scan_layers: make a program of one layer and loop over it. Smaller, but every step copies the layers' parameters
            and their gradients once. On a CPU neither compiling nor a step gets faster by it alone.
        remat: one of `REMAT`: what is not kept is computed once more in the backward pass, for less memory. XLA's
            compiler for CPUs undoes it unless layers are scanned.
        fused_projections: take query, key and value in one product.
    """

    compute_dtype: str = "float32"
    attention: str = "xla"
    scan_layers: bool = False
    remat: str = "none"
    fused_projections: bool = False

    def __post_init__(self) -> None:
        for name, accepted in (("compute_dtype", COMPUTE_DTYPES), ("attention", ATTENTION), ("remat", REMAT)):
            if getattr(self, name) not in accepted:
                words = ", ".join(map(repr, accepted))
                raise ValueError(f"{name}={getattr(self, name)!r}: accepted: {words}")


def in_float32(execution: Execution) -> Execution:
    """The same for what takes no gradient: dev, tagging and predictions, which then differ on no device but by sums.

    That costs little: a training's steps are most of its work.
    """
    return dataclasses.replace(execution, compute_dtype="float32", attention="xla")


def _config_problems(given: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{key} is {given[key]!r}; accepted: {', '.join(map(repr, accepted))}"
        for key, accepted in _SUPPORTED.items()
        if key in given and given[key] not in accepted
    ]
    required = [f.name for f in dataclasses.fields(EncoderConfig) if f.default is dataclasses.MISSING]
    problems += [f"{_KEYS[field]} is missing" for field in required if _KEYS[field] not in given]
    sizes = [f.name for f in dataclasses.fields(EncoderConfig) if f.type == "int" and f.name != "pad_token_id"]
    wrong = [k for k in map(_KEYS.__getitem__, sizes) if k in given and not (_is_int(given[k]) and given[k] > 0)]
    problems += [f"{key} is {given[key]!r}; expected a positive integer" for key in wrong]
    if not (_is_int(given["pad_token_id"]) and given["pad_token_id"] >= 0):
        problems.append(f"pad_token_id is {given['pad_token_id']!r}; expected an integer of at least 0")
    width, heads = given.get("hidden_size"), given.get("num_attention_heads")
    if not wrong and width and heads and width % heads:
        problems.append(f"hidden_size {width} is not a multiple of num_attention_heads {heads}")
    return problems


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
