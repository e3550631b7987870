"""The text encoder: one Flax Linen module for XLM-RoBERTa, RoBERTa and BERT checkpoints of any size.

Parameters are plain nested dicts with one entry per checkpoint tensor (query, key and value apart, one
sub-tree per layer), so that masks for weight decay and adversarial perturbation can go by name:

    embeddings/{word,position,token_type}/embedding   embeddings/layer_norm/{scale,bias}
    layer_0/attention/{query,key,value,out}/{kernel,bias}   layer_0/attention/layer_norm/{scale,bias}
    layer_0/feed_forward/{up,down}/{kernel,bias}            layer_0/feed_forward/layer_norm/{scale,bias}

Every layer's output is at hand with Linen's `apply(..., capture_intermediates=True)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

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


def token_positions(config: EncoderConfig, mask: Bool[Array, "b t"]) -> Int[Array, "b t"]:
    """Row of the position table for each token, by the family's rule.

    BERT counts every place from 0. RoBERTa counts the real tokens from pad id + 1; padding gets the pad id.
    """
    if config.model_type == "bert":
        return jnp.broadcast_to(jnp.arange(mask.shape[-1]), mask.shape)
    return jnp.cumsum(mask, axis=-1, dtype=jnp.int32) * mask + config.pad_token_id


def _dense(config: EncoderConfig, features: int, *, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.normal(config.initializer_range), name=name)


def _layer_norm(config: EncoderConfig) -> nn.LayerNorm:
    # The fast variance (mean of squares minus squared mean) cancels badly at BERT's eps of 1e-12.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, name="layer_norm")


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised; the token type is always 0."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], positions: Int[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        config = self.config
        init = nn.initializers.normal(config.initializer_range)
        tables = {
            name: nn.Embed(rows, config.hidden_size, embedding_init=init, name=name)
            for name, rows in (
                ("word", config.vocab_size),
                ("position", config.max_position_embeddings),
                ("token_type", config.type_vocab_size),
            )
        }
        token_type = tables["token_type"](jnp.zeros((1, 1), jnp.int32))
        x = tables["word"](token_ids) + tables["position"](positions) + token_type
        return nn.Dropout(config.hidden_dropout)(_layer_norm(config)(x), deterministic=deterministic)


class Attention(nn.Module):
    """Multi-head self-attention with its residual connection and LayerNorm."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], visible: Bool[Array, "b 1 1 t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Attend from every token to the visible ones (last axis of `visible`)."""
        config = self.config
        heads = (config.num_heads, config.hidden_size // config.num_heads)
        query, key, value = (
            _dense(config, config.hidden_size, name=name)(x).reshape(*x.shape[:2], *heads)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhk,bthk->bhqt", query * heads[1] ** -0.5, key)
        # The softmax runs in float32 at least, whatever the layers compute in.
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        # The lowest number, not -inf: a row of padding alone then gives a mean rather than NaN.
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        probabilities = nn.softmax(scores).astype(x.dtype)
        # Dropped per head and position, as in torch; Linen's own attention would share one draw.
        probabilities = nn.Dropout(config.attention_dropout)(probabilities, deterministic=deterministic)
        context = jnp.einsum("bhqt,bthk->bqhk", probabilities, value).reshape(x.shape)
        out = _dense(config, config.hidden_size, name="out")(context)
        out = nn.Dropout(config.hidden_dropout)(out, deterministic=deterministic)
        return _layer_norm(config)(x + out)


class FeedForward(nn.Module):
    """The position-wise network (exact, erf GELU) with its residual connection and LayerNorm."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], *, deterministic: bool) -> Float[Array, "b t d"]:
        config = self.config
        hidden = nn.gelu(_dense(config, config.intermediate_size, name="up")(x), approximate=False)
        out = _dense(config, config.hidden_size, name="down")(hidden)
        out = nn.Dropout(config.hidden_dropout)(out, deterministic=deterministic)
        return _layer_norm(config)(x + out)


class Layer(nn.Module):
    """One post-LayerNorm transformer layer."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], visible: Bool[Array, "b 1 1 t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        x = Attention(self.config, name="attention")(x, visible, deterministic=deterministic)
        return FeedForward(self.config, name="feed_forward")(x, deterministic=deterministic)


class Encoder(nn.Module):
    """Token ids to one vector per token."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], mask: Bool[Array, "b t"], *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Encode a batch.

        Args:
            token_ids: ids of the sequences, special tokens included, padded at the end.
            mask: True at real tokens, False at padding; the vectors at padding mean nothing.
            deterministic: False draws dropout from the `dropout` random stream.

        Returns:
            The last layer's vectors.

        Raises:
            ValueError: the sequences are longer than the checkpoint's position table allows.
        """
        config = self.config
        if token_ids.shape[-1] > config.max_tokens:
            raise ValueError(f"{token_ids.shape[-1]} tokens, but this encoder takes at most {config.max_tokens}")
        x = Embeddings(config, name="embeddings")(token_ids, token_positions(config, mask), deterministic=deterministic)
        for index in range(config.num_layers):
            x = Layer(config, name=f"layer_{index}")(x, mask[:, None, None, :], deterministic=deterministic)
        return x


def init_encoder(config: EncoderConfig, rng: jax.Array) -> Params:
    """Draw fresh parameters without running the forward pass; under `jax.eval_shape` only their shapes.

    Args:
        config: the encoder's sizes.
        rng: a key of `jax.random`.

    Returns:
        Normal kernels and embeddings (standard deviation `initializer_range`), zero biases, unit scales.
    """
    token_ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    mask = jax.ShapeDtypeStruct((1, 1), jnp.bool_)
    return Encoder(config).lazy_init(rng, token_ids, mask, deterministic=True)["params"]
