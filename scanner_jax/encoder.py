"""The text encoder: one Flax Linen module for XLM-RoBERTa, RoBERTa and BERT checkpoints of any size.

Parameters are plain nested dicts with one entry per checkpoint tensor (query, key and value apart, one
sub-tree per layer), so that masks for weight decay and adversarial perturbation can go by name:

    embeddings/{word,position,token_type}/embedding   embeddings/layer_norm/{scale,bias}
    layer_0/attention/{query,key,value,out}/{kernel,bias}   layer_0/attention/layer_norm/{scale,bias}
    layer_0/feed_forward/{up,down}/{kernel,bias}            layer_0/feed_forward/layer_norm/{scale,bias}

This tree is the same for every `Execution`: layers are stacked, and projections joined, inside the forward pass.
Every layer's output is at hand with Linen's `apply(..., capture_intermediates=True)`.

A row of the batch may hold several sequences, one after the other. `segments` says which token belongs to which:
0 is padding, and the row's sequences are 1, 2, ... Nothing passes between them, and each has the positions that it
would have in a row of its own. Where each row is one sequence, `segments` may be a mask of bools.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from scanner_jax.encoder_config import EncoderConfig as EncoderConfig
from scanner_jax.encoder_config import Execution as Execution
from scanner_jax.encoder_config import Params as Params

Segments = Bool[Array, "b t"] | Int[Array, "b t"]
"""The sequence of its row that each token belongs to, from 1, and 0 at padding; bools where a row holds but one."""

Dropout = jax.Array | None
"""A key to draw dropout from; None for no dropout."""


def token_positions(config: EncoderConfig, segments: Segments) -> Int[Array, "b t"]:
    """Row of the position table for each token, by the family's rule, from the start of its sequence.

    BERT counts from 0. RoBERTa counts from pad id + 1; padding gets the pad id.
    """
    place = jnp.arange(segments.shape[-1])
    begins = jnp.concatenate([jnp.ones_like(segments[:, :1], bool), segments[:, 1:] != segments[:, :-1]], axis=1)
    offset = place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    if config.model_type == "bert":
        return offset
    return jnp.where(segments > 0, offset + 1, 0) + config.pad_token_id


def visibility(segments: Segments) -> Bool[Array, "b 1 #t t"]:
    """Which tokens (last axis) each token may attend to: those of its own sequence."""
    if segments.dtype == jnp.bool_:
        return segments[:, None, None, :]
    return (segments[:, :, None] == segments[:, None, :])[:, None]


def _dense(config: EncoderConfig, features: int, *, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.normal(config.initializer_range), name=name)


def _layer_norm(config: EncoderConfig) -> nn.LayerNorm:
    # The fast variance (mean of squares minus squared mean) cancels badly at BERT's eps of 1e-12.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, name="layer_norm")


def _drop(x: Array, rate: float, rng: Dropout) -> Array:
    return nn.Dropout(rate)(x, deterministic=rng is None, rng=rng)


class _WordEmbedding(nn.Module):
    """Flax's Embed, but for a table that is given with other rows than the config's: training may hold those in use."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, token_ids: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        config = self.config
        if self.has_variable("params", "embedding"):
            table: Any = self.get_variable("params", "embedding")
        else:
            init = nn.initializers.normal(config.initializer_range)
            table = self.param("embedding", init, (config.vocab_size, config.hidden_size))
        return jnp.take(table, token_ids, axis=0)  # NaN for ids beyond the table, rather than another token's row


class Embeddings(nn.Module):
    """Word, position and token-type embeddings, normalised; the token type is always 0."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], positions: Int[Array, "b t"], rng: Dropout
    ) -> Float[Array, "b t d"]:
        config = self.config
        init = nn.initializers.normal(config.initializer_range)
        tables = {
            name: nn.Embed(rows, config.hidden_size, embedding_init=init, name=name)
            for name, rows in (
                ("position", config.max_position_embeddings),
                ("token_type", config.type_vocab_size),
            )
        }
        token_type = tables["token_type"](jnp.zeros((1, 1), jnp.int32))
        x = _WordEmbedding(config, name="word")(token_ids) + tables["position"](positions) + token_type
        return _drop(_layer_norm(config)(x), config.hidden_dropout, rng)


class _Weights(nn.Module):
    """Kernel and bias of a Dense layer, for a product that is taken elsewhere."""

    config: EncoderConfig
    features: int

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Float[Array, "i f"], Float[Array, " f"]]:
        kernel = self.param("kernel", nn.initializers.normal(self.config.initializer_range), (inputs, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class Attention(nn.Module):
    """Multi-head self-attention with its residual connection and LayerNorm."""

    config: EncoderConfig
    fused: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], visible: Bool[Array, "b 1 #t t"], rng: Dropout
    ) -> Float[Array, "b t d"]:
        """Attend from every token to the visible ones (last axis of `visible`)."""
        config = self.config
        heads = (config.num_heads, config.hidden_size // config.num_heads)
        query, key, value = (part.reshape(*x.shape[:2], *heads) for part in self._projections(x))
        rngs = (None, None) if rng is None else jax.random.split(rng)
        scores = jnp.einsum("bqhk,bthk->bhqt", query * heads[1] ** -0.5, key)
        # The softmax runs in float32 at least, whatever the layers compute in.
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        # The lowest number, not -inf: a row of padding alone then gives a mean rather than NaN.
        scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
        probabilities = nn.softmax(scores).astype(x.dtype)
        # Dropped per head and position, as in torch; Linen's own attention would share one draw.
        probabilities = _drop(probabilities, config.attention_dropout, rngs[0])
        context = jnp.einsum("bhqt,bthk->bqhk", probabilities, value).reshape(x.shape)
        out = _dense(config, config.hidden_size, name="out")(context)
        return _layer_norm(config)(x + _drop(out, config.hidden_dropout, rngs[1]))

    def _projections(self, x: Float[Array, "b t d"]) -> list[Float[Array, "b t d"]]:
        names, width = ("query", "key", "value"), self.config.hidden_size
        if not self.fused:
            return [_dense(self.config, width, name=name)(x) for name in names]
        weights = [_Weights(self.config, width, name=name)(width) for name in names]
        kernels, biases = zip(*weights, strict=True)
        return jnp.split(x @ jnp.concatenate(kernels, axis=1) + jnp.concatenate(biases), 3, axis=-1)


class FeedForward(nn.Module):
    """The position-wise network (exact, erf GELU) with its residual connection and LayerNorm."""

    config: EncoderConfig

    @nn.compact
    def __call__(self, x: Float[Array, "b t d"], rng: Dropout) -> Float[Array, "b t d"]:
        config = self.config
        hidden = nn.gelu(_dense(config, config.intermediate_size, name="up")(x), approximate=False)
        out = _dense(config, config.hidden_size, name="down")(hidden)
        return _layer_norm(config)(x + _drop(out, config.hidden_dropout, rng))


class Layer(nn.Module):
    """One post-LayerNorm transformer layer."""

    config: EncoderConfig
    fused: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t d"], visible: Bool[Array, "b 1 #t t"], rng: Dropout
    ) -> Float[Array, "b t d"]:
        rngs = (None, None) if rng is None else jax.random.split(rng)
        x = Attention(self.config, self.fused, name="attention")(x, visible, rngs[0])
        return FeedForward(self.config, name="feed_forward")(x, rngs[1])


class Encoder(nn.Module):
    """Token ids to one vector per token."""

    config: EncoderConfig
    execution: Execution = Execution()

    @nn.compact
    def __call__(
        self, token_ids: Int[Array, "b t"], segments: Segments, *, deterministic: bool
    ) -> Float[Array, "b t d"]:
        """Encode a batch.

        Args:
            token_ids: ids of the sequences, special tokens included, padded at the end.
            segments: the sequence that each token belongs to; the vectors at padding mean nothing.
            deterministic: False draws dropout from the `dropout` random stream.

        Returns:
            The last layer's vectors.

        Raises:
            ValueError: the rows are longer than the checkpoint's position table allows.
        """
        config = self.config
        if token_ids.shape[-1] > config.max_tokens:
            raise ValueError(f"{token_ids.shape[-1]} tokens, but this encoder takes at most {config.max_tokens}")
        # Keys by a layer's number rather than its name: they can be scanned over, and scanning changes no draw.
        rngs = None if deterministic else jax.random.split(self.make_rng("dropout"), config.num_layers + 1)
        rng = None if rngs is None else rngs[-1]
        x = Embeddings(config, name="embeddings")(token_ids, token_positions(config, segments), rng)
        visible = visibility(segments)
        if self.is_initializing() or self.is_mutable_collection("intermediates"):
            for index in range(config.num_layers):
                rng = None if rngs is None else rngs[index]
                x = Layer(config, self.execution.fused_projections, name=f"layer_{index}")(x, visible, rng)
            return x
        params = [self.variables["params"][f"layer_{index}"] for index in range(config.num_layers)]
        apply = _apply_layer(config, self.execution)
        if self.execution.scan_layers:
            return _scan(apply, params, x, visible, None if rngs is None else rngs[:-1])
        for index in range(config.num_layers):
            x = apply(params[index], x, visible, None if rngs is None else rngs[index])
        return x


ApplyLayer = Callable[[Params, Float[Array, "b t d"], Bool[Array, "b 1 #t t"], Dropout], Float[Array, "b t d"]]


@functools.cache
def _apply_layer(config: EncoderConfig, execution: Execution) -> ApplyLayer:
    """One layer as a function, which keeps for the backward pass what `execution.remat` says.

    It is jitted, and the same for all layers: so JAX traces and differentiates it once, not once for each of them.
    """
    layer = Layer(config, execution.fused_projections, parent=None)

    def apply(
        params: Params, x: Float[Array, "b t d"], visible: Bool[Array, "b 1 #t t"], rng: Dropout
    ) -> Float[Array, "b t d"]:
        out: Any = layer.apply({"params": params}, x, visible, rng)
        return out

    jitted: ApplyLayer = jax.jit(apply)
    if execution.remat == "none":
        return jitted
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if execution.remat == "dots" else None
    # A scan's body cannot be merged with its own recomputation, so the barriers against it can go.
    rematerialised: ApplyLayer = jax.checkpoint(jitted, policy=policy, prevent_cse=not execution.scan_layers)
    return rematerialised


def _scan(
    apply: ApplyLayer,
    params: Sequence[Params],
    x: Float[Array, "b t d"],
    visible: Bool[Array, "b 1 #t t"],
    rngs: Dropout,
) -> Float[Array, "b t d"]:
    """Apply one compiled layer to the parameters of all layers in turn."""

    def body(x: Float[Array, "b t d"], own: tuple[Params, Dropout]) -> tuple[Float[Array, "b t d"], None]:
        return apply(own[0], x, visible, own[1]), None

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
    return jax.lax.scan(body, x, (stacked, rngs))[0]


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
